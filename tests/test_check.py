"""`fastseg check`: every kind of fault is named, nothing else is, and what it counts is what is there."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from planted import plant

from fastseg.cli import main
from fastseg.config import load_config
from fastseg.data.check import check, quick_check
from fastseg.data.checking.census import percent
from fastseg.data.checking.findings import KINDS
from fastseg.data.checking.twins import near_duplicates
from fastseg.data.files import Files, open_files
from fastseg.errors import InputError

CCP = Path(__file__).parents[2] / "shared" / "data" / "ccp"
CCP_TREE = {
    "background": 0,
    "person": {
        "body": {"hair": 1, "skin": 2},
        "clothes": {"upper": 3, "lower": 4, "full": 5, "footwear": 6},
        "carried": 7,
    },
}


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Thirty drawn photographs, 24 to train on and 6 to validate on."""
    from fastseg.data.sample import draw_sample

    root = tmp_path_factory.mktemp("people") / "sample"
    return draw_sample(root, train=24, valid=6, size=(64, 96), seed=5, workers=2)


@pytest.fixture(scope="module")
def spoiled(people, tmp_path_factory):
    """A copy with a fault of each of twenty kinds; (folder, kind → id)."""
    import shutil

    root = Path(shutil.copytree(people, tmp_path_factory.mktemp("spoiled") / "data"))
    return root, plant(root)


def settings(root, *overrides):
    return load_config(f"data.root={root}", "data.size=32", *overrides)


def kinds(report):
    return {(finding.kind, finding.name) for finding in report.findings}


def write(root, name, ids, image=None):
    """One id with a photograph of noise, or of its own, and a mask."""
    for folder in ("JPEGImages", "gt_masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(name.encode())).integers(0, 256, (6, 6, 3), np.uint8)
    image = image or Image.fromarray(noise).resize(ids.shape[::-1])
    image.save(root / "JPEGImages" / f"{name}.png")
    np.save(root / "gt_masks" / f"{name}.npy", ids)


def dataset(root, train, valid):
    """A folder of {id: mask}."""
    for names, listed in ((train, "train_id.txt"), (valid, "val_id.txt")):
        for name, ids in names.items():
            write(root, name, np.asarray(ids, np.uint8))
        (root / listed).write_text("\n".join(names))
    return root


def test_all_twenty_faults_are_named_and_nothing_else(spoiled):
    root, planted = spoiled
    assert len(planted) == 20
    told = []
    report = check(settings(root), lambda done, total: told.append((done, total)))
    assert kinds(report) == set(planted.items())
    assert told[-1] == (32, 32)
    assert {f.kind for f in report.warnings} == {kind for kind in planted if KINDS[kind][0] == "warning"}
    assert len(report.errors) == 14
    table = report.table()
    for kind, name in planted.items():
        assert kind in table
        assert name in table
    assert table.splitlines()[-1] == "14 errors, 6 warnings"
    one = {finding.kind: finding for finding in report.findings}
    assert one["near-duplicate in both splits"].message.startswith("near (valid) looks like the mirror image of")
    assert one["vanishes when resized"].message.endswith("1 pixel of people at 64x96, none at 32x32")
    assert one["shapes differ"].split == "train"


def test_a_clean_sample_has_neither_errors_nor_warnings(people):
    report = check(settings(people), workers=1)
    assert report.findings == []
    assert report.table().splitlines()[-1] == "0 errors, 0 warnings"
    assert report.statistics["photographs"] == {"train": 24, "valid": 6}


def test_statistics_against_a_naive_count(people):
    cfg = settings(people)
    tree, report = cfg.classes(), check(cfg, workers=1)
    masks = {p.stem: np.load(p) for p in (people / "gt_masks").iterdir()}
    train = set((people / "train_id.txt").read_text().split())
    for level, rows in enumerate(report.statistics["levels"]):
        merged = {name: tree.merge(ids, level) for name, ids in masks.items()}
        assert [row["name"] for row in rows] == tree.names(level)
        for node, row in enumerate(rows):
            pixels = {name: int((ids == node).sum()) for name, ids in merged.items()}
            there = {name: count for name, count in pixels.items() if count}
            total = sum(ids.size for ids in masks.values())
            people_total = sum(int((ids != 0).sum()) for ids in masks.values())
            assert row["pixels"] == sum(pixels.values())
            assert row["share"] == pytest.approx(row["pixels"] / total)
            assert row["photographs"]["all"] == len(there)
            assert row["photographs"]["train"] == len(train & set(there))
            assert row["share_by_split"]["train"] == pytest.approx(
                sum(pixels[n] for n in train) / sum(masks[n].size for n in train)
            )
            assert row["median_share"] == pytest.approx(np.median([c / masks[n].size for n, c in there.items()]))
            assert row["fewest"]["pixels"] == min(there.values())
            expected = row["pixels"] / people_total if node in tree.foreground(level) else None
            assert row["share_of_people"] == (None if expected is None else pytest.approx(expected))
    matrix = report.statistics["cooccurrence"]["photographs"]
    assert matrix[2][4] == matrix[4][2] == sum({2, 4} <= set(np.unique(ids)) for ids in masks.values())
    sizes = report.statistics["sizes"]
    assert sizes["distinct"] == len({ids.shape for ids in masks.values()})
    assert sum(row["photographs"] for row in sizes["counted"]) == 30
    shares = np.array([(ids != 0).mean() for ids in masks.values()])
    assert report.statistics["people"]["large"] == (shares > 0.2).sum()


def test_a_class_of_one_pixel_is_not_rounded_away(tmp_path):
    big = np.zeros((300, 400), np.uint8)
    big[100:200] = 2
    tiny = big.copy()
    tiny[7, 9], tiny[250:, :200] = 6, 255
    report = check(settings(dataset(tmp_path / "d", {"a": big, "b": tiny}, {"c": big})))
    row = report.statistics["levels"][2][6]
    assert (row["name"], row["pixels"], row["photographs"]["all"], row["vanishes"]) == ("up_hand", 1, 1, 1)
    assert row["fewest"] == {"pixels": 1, "id": "b"}
    line = next(line for line in report.table().splitlines() if line.startswith("up_hand  "))
    assert line.split()[1:4] == ["1", "<0.01", "%"]
    assert "1 + 0" in line
    assert "1 in b" in line
    assert report.statistics["pixels"]["ignored"] == 50 * 200
    assert percent(0.0) == "0 %"
    assert percent(1e-9) == "<0.01 %"


def test_classes_that_training_never_sees_and_empty_masks(tmp_path):
    some = np.zeros((20, 20), np.uint8)
    some[5:15, 5:15] = 2
    other, ignored = np.where(some, 4, 0), np.full((20, 20), 255)
    report = check(settings(dataset(tmp_path / "d", {"a": some, "void": ignored}, {"b": other})))
    found = kinds(report)
    assert ("class never in training", "head") in found
    assert ("class never in training", "torso") not in found
    assert ("empty mask", "void") in found
    assert json.loads(json.dumps(report.as_json(), allow_nan=False)) == report.as_json()


def test_a_share_that_drifts_between_the_splits(tmp_path):
    some = np.zeros((20, 20), np.uint8)
    some[:10], some[10:12] = 2, 4
    other = np.where(some == 4, 0, some)
    other[10, :4] = 4
    train, valid = ({f"{split}{i}": ids for i in range(20)} for split, ids in (("t", some), ("v", other)))
    found = [f for f in check(settings(dataset(tmp_path / "d", train, valid))).warnings if "drifts" in f.kind]
    assert [(f.name, f.message) for f in found] == [
        ("head", "head: 10.0 % of the pixels to train on, 1.00 % of those to validate on")
    ]


def _cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def _as_png(path, mode, keep=None):
    Image.fromarray(np.load(path)).convert(mode).save(path.with_suffix(".png"))
    path.unlink()
    if keep:
        _cut(path.with_suffix(".png"), keep)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(lambda path: np.save(path, np.array([[{}]]), allow_pickle=True), "pickled mask"),
     (lambda path: np.save(path, np.zeros(3, [("a", "i4"), ("b", "O")]), allow_pickle=True), "pickled mask"),
     (lambda path: _cut(path, 40), "truncated mask"), (lambda path: _cut(path, 200), "truncated mask"),
     (lambda path: _cut(path, 0), "unreadable mask"), (lambda path: path.write_bytes(b"P4\n3"), "unreadable mask"),
     (lambda path: np.save(path, np.zeros((5, 6, 3), np.uint8)), "RGB mask"),
     (lambda path: np.save(path, np.zeros((5, 6, 1), np.uint8)), "not a mask"),
     (lambda path: np.save(path, np.full((5, 6), -1)), "id outside the tree"),
     (lambda path: _as_png(path, "RGBA"), "RGB mask"), (lambda path: _as_png(path, "L", 60), "truncated mask"),
     (lambda path: _as_png(path, "L", 20), "unreadable mask"), (lambda path: _as_png(path, "I;16"), "not a mask")],
)  # fmt: skip
def test_kinds_of_spoiled_masks(drawn_copy, spoil, kind):
    files, train, _ = _listed(drawn_copy)
    spoil(files.mask(train[0]))
    assert kinds(check(settings(drawn_copy), workers=1)) == {(kind, train[0])}


@pytest.mark.parametrize(("orientation", "turned", "said"), [(6, False, "as stored"), (8, True, "as EXIF turns it"),
                                                             (3, False, None)])  # fmt: skip
def test_exif_rotation(tmp_path, orientation, turned, said):
    ids = np.zeros((20, 30), np.uint8)
    ids[5:, :9] = 4
    root = dataset(tmp_path / "d", {"a": ids.T if turned else ids}, {"b": ids})
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(root / "JPEGImages" / "a.png", exif=exif)
    found = [f for f in check(settings(root)).findings if "EXIF" in f.kind]
    assert [f.name for f in found] == (["a"] if said else [])
    assert said is None or said in found[0].message


def _grey(images):
    return np.stack([np.asarray(im.convert("L").resize((32, 32), Image.Resampling.BOX)) for im in images])


def test_near_duplicates_are_copies_and_not_neighbours(people):
    files = Files(people)
    images = [Image.open(files.image(name)).convert("RGB") for name in files.ids("train_id.txt")]
    pictures = _grey(images)
    changes = {
        "brighter": lambda im: ImageEnhance.Brightness(im).enhance(1.15),
        "two pixels off": lambda im: im.crop((0, 0, im.width - 2, im.height - 2)),
        "half": lambda im: im.resize((im.width // 2, im.height // 2)),
        "mirrored": ImageOps.mirror,
    }
    for what, change in changes.items():
        twins = near_duplicates(_grey([change(im) for im in images]), pictures)
        assert [(t.first, t.second, t.mirrored) for t in twins] == [
            (i, i, what == "mirrored") for i in range(len(images))
        ], what
    assert near_duplicates(pictures[:10], pictures[10:]) == []
    plain = np.full((2, 32, 32), 200, np.uint8)
    assert near_duplicates(plain, plain) == []
    assert near_duplicates(pictures[:0], pictures) == []


def test_bits_are_counted_by_an_older_numpy_too(people, monkeypatch):
    files = Files(people)
    pictures = _grey([Image.open(files.image(name)) for name in files.ids("train_id.txt")])
    found = near_duplicates(pictures, pictures)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert near_duplicates(pictures, pictures) == found
    assert len(found) == len(pictures)


def _listed(root):
    files = Files(root)
    return files, files.ids("train_id.txt"), files.ids("val_id.txt")


def test_quick_check_passes_a_clean_dataset_and_keeps_the_first_fault(drawn_copy):
    files, train, valid = _listed(drawn_copy)
    cfg = settings(drawn_copy)
    assert quick_check(cfg, files, train, valid) == []
    with pytest.raises(InputError, match=rf"{train[1]}: stands 2 times in the list to train on"):
        quick_check(cfg, files, [*train, train[1]], valid)
    files.mask(train[2]).unlink()
    with pytest.raises(InputError, match=rf"{train[2]}: no mask"):
        quick_check(cfg, files, train, valid)


def test_quick_check_refuses_leaks_unless_they_are_allowed(drawn_copy):
    files, train, valid = _listed(drawn_copy)
    cfg, allowed = settings(drawn_copy), settings(drawn_copy, "data.allow_leak=true")
    with pytest.raises(InputError, match=rf"{train[0]}: validated on, and is trained on.*allow_leak") as caught:
        quick_check(cfg, files, train, [*valid, train[0]])
    assert len(str(caught.value).splitlines()) == 1
    assert quick_check(allowed, files, train, [*valid, train[0]]) == [train[0]]
    files.image(valid[1]).write_bytes(files.image(train[3]).read_bytes())
    np.save(files.mask(valid[1]), np.load(files.mask(train[3])))
    with pytest.raises(InputError, match=rf"{valid[1]}: .*copy of {train[3]}"):
        quick_check(cfg, files, train, valid)
    assert quick_check(allowed, files, train, valid) == [valid[1]]
    report = check(allowed, workers=1)
    assert not report.errors
    assert [(f.kind, f.name, f.other) for f in report.warnings] == [("same pixels in both splits", valid[1], train[3])]


@pytest.mark.parametrize(
    ("text", "said"),
    [("0: background\n1: Low hand\n2: torso\n3:low_leg\n4 head\n5: up_leg\n6: up_hand\n255: void\n", None),
     ("bg\nlow_hand\ntorso\nlow_leg\nhead\nup_leg\nup_hand\n", None),
     ("0: bg\n1: low_hand\n2: head\n3: torso\n", "line 3 says 2 is head, the hierarchy says torso"),
     ("0: bg\n1: low_hand\n2: torso\n", "no line for 3, low_leg"),
     ("bg\nlow_hand\ntorso\nlow_leg\nhead\nup_leg\nup_hand\nfoot\n", "line 8 has class 7")],
)  # fmt: skip
def test_classes_txt_is_held_against_the_tree(drawn_copy, text, said):
    (drawn_copy / "classes.txt").write_text(text)
    files, train, valid = _listed(drawn_copy)
    if said is None:
        assert quick_check(settings(drawn_copy), files, train, valid) == []
        return
    with pytest.raises(InputError, match=said):
        quick_check(settings(drawn_copy), files, train, valid)
    assert ("classes.txt differs", "classes.txt") in kinds(check(settings(drawn_copy), workers=1))


def test_equal_ids_of_several_folders_are_no_leak(people, drawn):
    cfg = settings(people)
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": [str(people), str(drawn)]})})
    files = open_files([people, drawn])
    train, valid = files.ids("train_id.txt"), files.ids("val_id.txt")
    assert {name.partition("/")[2] for name in train} & {name.partition("/")[2] for name in valid}
    assert quick_check(cfg, files, train, valid) == []
    report = check(cfg, workers=1)
    assert report.findings == []
    assert report.statistics["photographs"] == {"train": 32, "valid": 8}


def test_a_file_that_stands_beside_another_of_its_id(drawn_copy):
    files, train, _ = _listed(drawn_copy)
    Image.open(files.image(train[0])).save(drawn_copy / "JPEGImages" / f"{train[0]}.png")
    (drawn_copy / "JPEGImages" / "._hidden.jpg").write_bytes(b"")
    assert kinds(check(settings(drawn_copy), workers=1)) == {("two files for one id", train[0])}


class _Page(HTMLParser):
    """Tags that are open, sources and links, and text."""

    EMPTY = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text, self.tags = [], [], "", set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(spoiled, tmp_path):
    root, planted = spoiled
    path = check(settings(root)).write_report(tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe"} & page.tags
    assert len(page.sources) > 30
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "url(" not in text
    assert "@import" not in text
    for kind, name in planted.items():
        assert kind in page.text
        assert name in page.text
    assert "14 errors, 6 warnings" in page.text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(InputError, match="cannot write the report"):
        check(settings(root)).write_report(tmp_path / "nowhere" / "page.html")


def test_the_page_escapes_what_files_say(tmp_path):
    ids = np.zeros((20, 20), np.uint8)
    ids[5:] = 4
    nasty = "<script>alert(1)<&'\">"
    root = dataset(tmp_path / "<b>root", {nasty: ids, "same": ids}, {"b": ids})
    write(root, "same", ids, Image.open(root / "JPEGImages" / f"{nasty}.png"))
    (root / "train_id.txt").write_text(f"{nasty}\nsame\n<img src=http://x>")
    (root / "classes.txt").write_text("0: <script>")
    page = _Page(check(settings(root)).write_report(tmp_path / "page.html").read_text())
    assert not {"script", "b>root"} & page.tags
    assert nasty in page.text
    assert "<img src=http://x>: no photograph" in page.text
    assert all(source.startswith("data:") for source in page.sources)


def test_the_command_line(people, spoiled, tmp_path, capsys):
    small = ["data.size=32"]
    assert main(["check", str(people), *small]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 errors, 0 warnings"
    root = spoiled[0]
    page = tmp_path / "page.html"
    assert main(["check", str(root), "--json", "--report", str(page), *small]) == 2
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert (content["errors"], content["warnings"]) == (14, 6)
    assert printed.err.splitlines()[-1].startswith(f"fastseg check: 14 errors in {root}; ")
    assert page.is_file()
    (root / "only.yaml").write_text("hierarchy: {background: 0, person: 1}\n")
    assert main(["check", str(people), "--config", str(root / "only.yaml"), *small]) == 2
    assert "classes.txt: line 2 says 1 is low_hand, the hierarchy says person" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [("nothing", "no folder"), ("file", "no folder"), ("lists", "no id file"), ("masks", "no folder"),
     ("text", "not UTF-8")],
)  # fmt: skip
def test_no_dataset_ends_in_one_line(spoil, said, drawn_copy, tmp_path, capsys):
    if spoil == "lists":
        (drawn_copy / "val_id.txt").unlink()
    if spoil == "masks":
        (drawn_copy / "gt_masks").rename(drawn_copy / "elsewhere")
    if spoil == "text":
        (drawn_copy / "val_id.txt").write_bytes(b"\xff\xfe\x00")
    root = {"nothing": tmp_path / "nothing", "file": drawn_copy / "train_id.txt"}.get(spoil, drawn_copy)
    assert main(["check", str(root)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert said in printed.err


def test_nothing_readable_is_still_a_report(tmp_path):
    root = dataset(tmp_path / "d", {"a": np.zeros((4, 4)), "b": np.zeros((4, 4))}, {})
    for path in [*(root / "JPEGImages").iterdir(), *(root / "gt_masks").iterdir()]:
        path.write_bytes(b"")
    report = check(settings(root))
    assert {f.kind for f in report.errors} == {"empty id list", "unreadable photograph", "unreadable mask"}
    assert report.table().splitlines()[-1].startswith("5 errors")
    json.dumps(report.as_json(), allow_nan=False)
    assert _Page(report.write_report(tmp_path / "page.html").read_text()).open == []


@pytest.mark.skipif(not CCP.is_dir(), reason="no ../shared/data/ccp here")
def test_street_photographs_raise_no_false_alarm(tmp_path):
    cfg = load_config({"hierarchy": CCP_TREE, "data": {"root": str(CCP), "size": "128x96"}})
    report = check(cfg)
    assert kinds(report) == {("empty mask", "0536")}
    assert len(report.statistics["strangest"]) == 10
    assert report.statistics["strangest"][0]["reasons"][0] == "nobody in it"

"""What stands behind `fastseg check`: kinds of faults, counts, near-duplicates, the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from PIL import Image, ImageEnhance, ImageOps
from planted import dataset, kinds, listed, settings, write

from fastseg.config import load_config
from fastseg.data.check import check
from fastseg.data.checking.census import percent
from fastseg.data.checking.twins import near_duplicates
from fastseg.data.files import Files
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
    files, train, _ = listed(drawn_copy)
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


def test_the_page_is_whole_and_needs_nothing_else(spoiled, tmp_path):
    root, planted = spoiled
    path = check(settings(root)).write_report(tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe"} & page.tags
    assert len(page.sources) > 30
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "url(" not in text
    assert "@import" not in text
    for kind, name in planted.items():
        assert kind in page.text
        assert name in page.text
    assert "13 errors, 7 warnings" in page.text
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
    page = Page(check(settings(root)).write_report(tmp_path / "page.html").read_text())
    assert not {"script", "b>root"} & page.tags
    assert nasty in page.text
    assert "<img src=http://x>: no photograph" in page.text
    assert all(source.startswith("data:") for source in page.sources)


def test_nothing_readable_is_still_a_report(tmp_path):
    root = dataset(tmp_path / "d", {"a": np.zeros((4, 4)), "b": np.zeros((4, 4))}, {})
    for path in [*(root / "JPEGImages").iterdir(), *(root / "gt_masks").iterdir()]:
        path.write_bytes(b"")
    report = check(settings(root))
    assert {f.kind for f in report.errors} == {"empty id list", "unreadable photograph", "unreadable mask"}
    assert report.table().splitlines()[-1].startswith("5 errors")
    json.dumps(report.as_json(), allow_nan=False)
    assert Page(report.write_report(tmp_path / "page.html").read_text()).open == []


@pytest.mark.skipif(not CCP.is_dir(), reason="no ../shared/data/ccp here")
def test_street_photographs_raise_no_false_alarm(tmp_path):
    cfg = load_config({"hierarchy": CCP_TREE, "data": {"root": str(CCP), "size": "128x96"}})
    report = check(cfg)
    assert kinds(report) == {("empty mask", "0536")}
    assert len(report.statistics["strangest"]) == 10
    assert report.statistics["strangest"][0]["reasons"][0] == "nobody in it"

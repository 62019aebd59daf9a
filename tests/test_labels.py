"""Label maps of other sets become masks of a tree: ids, sides, mappings, faults, reruns, a batch from the result."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg import PASCAL_PART, Hierarchy, InputError, convert_labels, load_config
from fastseg.cli import main
from fastseg.data.convert import convert
from fastseg.data.labels import load_labels
from fastseg.data.protocol import PROTOCOLS

# The published orders, written out once more and not read from the YAML.
LIP = [
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
]  # fmt: skip
CIHP = [name.replace("jumpsuits", "torso-skin") for name in LIP]
ATR = [
    "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe",
    "right-shoe", "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
]  # fmt: skip
LIP_SIDES = [(14, 15), (16, 17), (18, 19)]
PPP = {0: "background", 1: "head", 2: "torso", 3: "up_hand", 4: "low_hand", 5: "up_leg", 6: "low_leg"}
M2FP = {0: "background", 1: "low_hand", 2: "head", 3: "up_leg", 4: "torso", 5: "low_leg", 6: "up_hand"}
PASCAL_IDS = {"background": 0, "low_hand": 1, "torso": 2, "low_leg": 3, "head": 4, "up_leg": 5, "up_hand": 6}
COMMON = ["background", "hat", "hair", "face", "upper_clothes", "dress", "lower_clothes", "arms", "legs", "shoes"]
# Published label → leaf of the common tree, where the two differ.
TO_COMMON = {
    "sunglasses": "face", "upper-clothes": "upper_clothes", "coat": "upper_clothes", "scarf": "upper_clothes",
    "pants": "lower_clothes", "skirt": "lower_clothes", "left-arm": "arms", "right-arm": "arms", "glove": "arms",
    "left-leg": "legs", "right-leg": "legs", "left-shoe": "shoes", "right-shoe": "shoes", "bag": "background",
    "jumpsuits": None, "torso-skin": None, "socks": None, "belt": None,
}  # fmt: skip
TWO_SIDES = "hierarchy: {background: 0, person: {left: 1, right: 2, rest: 3}}\nlabels:\n"


def write_map(folder, name, ids, palette=False):
    """A map and its photograph; the palette's colours are nothing like the ids."""
    image = Image.fromarray(ids)
    if palette:
        image.putpalette([255 - i // 3 for i in range(768)])
        assert image.mode == "P"
    for part in ("maps", "photos"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    image.save(folder / "maps" / f"{name}.png")
    rgb = np.stack([ids * 11 % 251] * 3, -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "photos" / f"{name}.jpg")


def every_id(count, seed=0):
    """12x14 with all ids and 255, in no order."""
    ids = np.resize([*range(count), 255], 12 * 14).astype(np.uint8)
    return np.random.default_rng(seed).permutation(ids).reshape(12, 14)


def mask(out, name):
    with Image.open(out / "gt_masks" / f"{name}.png") as image:
        assert image.mode == "L"
        return np.array(image)


def lines(file):
    return file.read_text().splitlines()


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def source(tmp_path):
    """Six maps of LIP."""
    for k in range(6):
        write_map(tmp_path, f"p{k}", every_id(20, k))
    return tmp_path


def run(source, out="out", protocol="lip", **settings):
    return convert_labels(source / "maps", source / "photos", source / out, protocol, **settings)


def mapping(source, *changes, tree=TWO_SIDES, **leaves):
    """A mapping's file: every label of LIP to `rest`, but for the ones given."""
    chosen = {name: "background" if name == "background" else "rest" for name in LIP} | leaves
    text = tree + "".join(f"  {label}: {leaf}\n" for label, leaf in chosen.items() if leaf) + "\n".join(changes)
    (source / "mine.yaml").write_text(text)
    return source / "mine.yaml"


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize(
    ("protocol", "leaves"),
    [("ppp", PPP), ("m2fp", M2FP), ("lip", LIP), ("cihp", CIHP), ("atr", ATR)],
)
def test_every_pixel_follows_the_published_order(tmp_path, protocol, leaves, palette):
    ids = every_id(len(leaves))
    write_map(tmp_path, "a", ids, palette)
    summary = run(tmp_path, protocol=protocol)
    pascal = protocol in ("ppp", "m2fp")
    expected = [[PASCAL_IDS[leaves[i]] if pascal and i != 255 else i for i in row] for row in ids.tolist()]
    got = mask(tmp_path / "out", "a")
    assert got.dtype == np.uint8
    assert got.tolist() == expected
    names = list(PASCAL_IDS) if pascal else leaves
    assert lines(tmp_path / "out/classes.txt") == [f"{i}: {name}" for i, name in enumerate(names)]
    assert list(summary.pixels.values()) == [(np.array(expected) == i).sum() for i in range(len(names))]
    assert summary.ignored == (ids == 255).sum()
    assert f"255 {'-':<{max(map(len, names))}}" in summary.table()
    tree = Hierarchy.from_yaml(tmp_path / "out/tree.yaml")
    assert tree.leaves == tuple(names)
    if pascal:
        assert tree == Hierarchy(PASCAL_PART)


def test_default_trees_have_one_person_and_its_groups():
    for protocol, groups in (
        ("lip", ["head", "clothes", "arms", "legs"]),
        ("cihp", ["head", "clothes", "arms", "legs", "torso-skin"]),
        ("atr", ["head", "clothes", "arms", "legs", "bag"]),
    ):
        tree = load_labels(protocol).tree
        assert [tree.names(0)[node] for node in tree.foreground(0)] == ["person"]
        assert sorted(tree.names(1)[node] for node in tree.foreground(1)) == sorted(groups)


@pytest.mark.parametrize(
    ("protocol", "sides"),
    [("lip", LIP_SIDES), ("cihp", LIP_SIDES), ("atr", [(9, 10), (12, 13), (14, 15)]), ("ppp", []), ("m2fp", [])],
)
def test_a_flipped_photograph_with_sides_exchanged_gives_the_flipped_mask(tmp_path, protocol, sides):
    other = np.arange(256, dtype=np.uint8)
    for one, two in sides:
        other[[one, two]] = two, one
    ids = every_id({"atr": 18, "ppp": 7, "m2fp": 7}.get(protocol, 20))
    write_map(tmp_path, "seen", ids)
    write_map(tmp_path, "in_a_mirror", other[ids[:, ::-1]])
    run(tmp_path, protocol=protocol)
    tree = Hierarchy.from_yaml(tmp_path / "out/tree.yaml")
    assert sorted(map(sorted, tree.mirror)) == sorted(map(list, sides))
    table = np.arange(256, dtype=np.uint8)
    for one, two in tree.mirror:
        table[[one, two]] = two, one
    assert mask(tmp_path / "out", "in_a_mirror").tolist() == table[mask(tmp_path / "out", "seen")[:, ::-1]].tolist()


def test_one_tree_for_three_sets(tmp_path):
    trees = set()
    for protocol, labels in (("lip", LIP), ("cihp", CIHP), ("atr", ATR)):
        ids = every_id(len(labels))
        write_map(tmp_path / protocol, "a", ids)
        run(tmp_path / protocol, protocol=protocol, mapping="common")
        leaves = [TO_COMMON.get(name, name) for name in labels]
        number = {i: COMMON.index(leaf) if leaf else 255 for i, leaf in enumerate(leaves)} | {255: 255}
        assert mask(tmp_path / protocol / "out", "a").tolist() == [[number[i] for i in row] for row in ids.tolist()]
        trees.add(Hierarchy.from_yaml(tmp_path / protocol / "out/tree.yaml"))
    assert len(trees) == 1
    assert trees.pop().leaves == tuple(COMMON)


def test_a_mapping_by_name_and_id_with_sides_and_ignore(source):
    mine = mapping(source, "  14: left", "  15: right", **{"left-arm": None, "right-arm": None, "scarf": "ignore"})
    summary = run(source, mapping=mine)
    ids = every_id(20, 3)
    number = dict.fromkeys(range(1, 20), 3) | {0: 0, 14: 1, 15: 2, 11: 255, 255: 255}
    assert mask(source / "out", "p3").tolist() == [[number[i] for i in row] for row in ids.tolist()]
    assert Hierarchy.from_yaml(source / "out/tree.yaml").mirror == ((1, 2),)
    assert summary.protocol == "lip to mine"
    unflipped = load_labels("lip", mapping(source, "mirror: []", **{"left-arm": "left", "right-arm": "right"}))
    assert unflipped.tree.mirror == ()


LEFT = {"left-arm": "left", "right-arm": "right"}


@pytest.mark.parametrize(
    ("leaves", "changes", "said"),
    [
        ({"scarf": None}, (), "label 'scarf' (11) is not mapped; write 'scarf: LEAF' or 'scarf: ignore'"),
        ({"scraf": "rest"}, (), "label 'scraf' is unknown; did you mean scarf?"),
        ({"qqqq": "rest"}, (), "label 'qqqq' is unknown; known are background, hat, hair"),
        ({"hat": "rset"}, (), "hat: leaf 'rset' is unknown; did you mean rest?"),
        ({"hat": "person"}, (), "hat: leaf 'person' is unknown; known are background, left, right, rest, ignore"),
        ({"hat": "no"}, (), "hat: leaf False is not text; put it in quotes"),
        ({}, ("  1: rest",), "label 'hat' is mapped by its name and by its id 1; keep one"),
        ({}, ("  20: rest",), "id 20 is no label's; they are 0, 1, 2"),
        ({}, ("  hat: rest",), "line 23: the key 'hat' stands twice; keep one"),
        ({}, ("  yes: rest",), "label True is not text; put it in quotes"),
        ({}, ("mirrors: []",), "key 'mirrors' is unknown; did you mean mirror?"),
        ({}, ("mirror: [[left, rihgt]]",), "mirror: unknown leaf 'rihgt'; the tree has background, left, right, rest"),
        ({}, ("mirror: left",), "mirror: must be a list of pairs, as [[left-arm, right-arm]]"),
        ({"left-arm": "left", "right-arm": "ignore"}, (), "one is 'left' and one is ignored; treat both alike"),
        (LEFT | {"left-leg": "left"}, (), "mirror: a leaf stands in two pairs; each may be exchanged with one other"),
    ],
)
def test_mappings_that_are_not_right(source, leaves, changes, said):
    mine = mapping(source, *changes, **leaves)
    with pytest.raises(InputError) as caught:
        run(source, mapping=mine)
    assert said in str(caught.value)
    assert str(mine) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (source / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hierarchy: {background: 0, a: 2}\nlabels: {hat: a}", "hierarchy: id 1 is missing below 'a' (2)"),
        ("hierarchy: {background: 0, ignore: 1}\nlabels: {hat: ignore}", "no leaf can be called ignore"),
        ("hierarchy: {background: 0, a: 1}", "must have `labels:` with names and values under it"),
        ("labels: {hat: a}", "must have `hierarchy:`"),
        ("- hat", "must be a mapping with the keys hierarchy, labels"),
        ("hierarchy: [", "cannot read mapping"),
        ("hierarchy: !!python/object/apply:os.getcwd []", "cannot read mapping"),
        ("hierarchy: {background: 0, a: 1}\nlabels: {atr: {hat: a}}", "nothing for protocol lip, only for atr"),
    ],
)
def test_mapping_files_that_are_no_mappings(source, text, said):
    (source / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        run(source, mapping=source / "mine.yaml")
    assert said in str(caught.value)
    assert f"mapping {source / 'mine.yaml'}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels: {0: background, 1: a}", "must have `hierarchy:`"),
        ("labels: {a: 1}\nhierarchy: {a: 0}", "'a': 1 is not ID: NAME"),
        ("labels: {255: a}\nhierarchy: {a: 0}", "255: 'a' is not ID: NAME with an id from 0 to 254"),
        ("labels: {0: no}\nhierarchy: {a: 0}", "0: False is not ID: NAME"),
        ("labels: {0: a, 1: a}\nhierarchy: {a: 0}", "two ids have one name"),
        ("labels: {0: background, 1: a}\nmirror: [[a, b]]\nhierarchy: {a: 1, background: 0}", "label 'b' is unknown"),
        ("labels: {0: background, 1: a}\nhierarchy: {b: 1, background: 0}", "a: leaf 'a' is unknown"),
        ("labels: {0: background, 1: a}\nhierarchy: {a: 1, background: 0}\nmapping: [a]", "must have LABEL: LEAF"),
    ],
)
def test_protocols_that_are_not_right(source, text, said):
    (source / "set.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        run(source, protocol=source / "set.yaml")
    assert said in str(caught.value)
    assert f"protocol {source / 'set.yaml'}" in str(caught.value)


def test_a_set_of_ones_own_may_have_gaps_and_no_background(tmp_path):
    (tmp_path / "set.yaml").write_text(
        "labels: {3: left-wing, 7: right-wing, 9: tail}\nmirror: [[left-wing, right-wing]]\n"
        "hierarchy: {wings: {l: 0, r: 1}, rear: 2}\nmapping: {left-wing: l, right-wing: r, tail: rear}"
    )
    write_map(tmp_path, "a", np.array([[3, 7, 9, 255]], np.uint8))
    run(tmp_path, protocol=tmp_path / "set.yaml")
    assert mask(tmp_path / "out", "a").tolist() == [[0, 1, 2, 255]]
    assert Hierarchy.from_yaml(tmp_path / "out/tree.yaml").mirror == ((0, 1),)
    write_map(tmp_path, "b", np.array([[3, 4, 9, 255]], np.uint8))
    ((_, reason),) = run(tmp_path, protocol=tmp_path / "set.yaml").damaged
    assert reason == "id 4 is no label of set (3, 7, 9, or 255): another set's map?"


def test_names_that_are_not_known_and_kinds_confused(source):
    with pytest.raises(
        InputError, match=r"unknown protocol 'chip': did you mean cihp\? known are atr, cihp, lip, m2fp"
    ):
        run(source, protocol="chip")
    with pytest.raises(InputError, match=r"unknown mapping 'comon': did you mean common\?"):
        run(source, mapping="comon")
    with pytest.raises(InputError, match="nothing for protocol ppp, only for lip, cihp, atr"):
        run(source, protocol="ppp", mapping="common")
    with pytest.raises(InputError, match=r"for \.mat files, not for label maps"):
        run(source, protocol="person6")
    with pytest.raises(InputError, match=r"lip is for label maps, not for \.mat files"):
        convert(source / "maps", source / "photos", source / "out", "lip")
    with pytest.raises(InputError, match=r"has no \.mat file.*; label maps need a protocol of theirs"):
        convert(source / "maps", source / "photos", source / "out")
    with pytest.raises(InputError, match=r"photos has no \.png file"):
        convert_labels(source / "photos", source / "photos", source / "out", "lip")
    assert not (source / "out").exists()


def test_damaged_maps_are_named_and_the_rest_goes_on(source):
    maps, ids = source / "maps", every_id(20)
    for name in ("other_set", "size", "colours", "deep", "cut", "alone", "nobody"):
        write_map(source, name, ids)
    Image.fromarray(np.where(ids == 3, np.uint8(28), ids)).save(maps / "other_set.png")
    Image.fromarray(ids[:-1]).save(maps / "size.png")
    Image.fromarray(ids).convert("RGB").save(maps / "colours.png")
    Image.fromarray(ids.astype(np.uint16)).save(maps / "deep.png")
    (maps / "cut.png").write_bytes((maps / "p0.png").read_bytes()[:-30])
    (source / "photos/alone.jpg").unlink()
    Image.fromarray(np.full_like(ids, 255)).save(maps / "nobody.png")
    # Scores over a published list of ids need the photographs without people, too.
    Image.fromarray(np.zeros_like(every_id(20))).save(maps / "p5.png")
    (maps / "._p1.png").write_bytes(b"macOS")
    summary = run(source)
    reasons = {Path(file).stem: reason for file, reason in summary.damaged}
    hints = {
        "other_set": "id 28 is no label of lip (0 to 19, or 255): another set's map?",
        "size": "its mask is 11x14",
        "colours": "mode RGB",
        "deep": "mode I;16",
        "cut": "breaks off",
        "alone": "there is no photograph",
    }
    assert reasons.keys() == hints.keys()
    for name, hint in hints.items():
        assert hint in reasons[name]
        assert "\n" not in reasons[name]
        assert not reasons[name].startswith(str(maps))
        assert f"{name}.png: {reasons[name]}" in summary.table()
    assert (summary.written, summary.skipped) == (6, ["nobody"])
    assert sorted(lines(source / "out/train_id.txt") + lines(source / "out/val_id.txt")) == [f"p{k}" for k in range(6)]
    assert sorted(file.stem for file in (source / "out/gt_masks").iterdir()) == [f"p{k}" for k in range(6)]


def test_photographs_of_other_kinds_and_several_folders(source):
    second = source / "second"
    write_map(second, "q0", every_id(20))
    for name, suffix in (("p0", "jpeg"), ("p1", "png"), ("p2", "JPG")):
        photo = source / f"photos/{name}.jpg"
        Image.open(photo).save(source / f"photos/{name}.new", "PNG" if suffix == "png" else "JPEG")
        photo.unlink()
        photo.with_suffix(".new").rename(photo.with_suffix(f".{suffix}"))
    folders = [[folder / part for folder in (source, second)] for part in ("maps", "photos")]
    summary = convert_labels(*folders, source / "out", "lip")
    assert summary.written == 7
    names = ["p0.jpeg", "p1.png", "p2.JPG", "p3.jpg", "p4.jpg", "p5.jpg", "q0.jpg"]
    assert sorted(file.name for file in (source / "out/JPEGImages").iterdir()) == names
    for name in names:
        photo = (second if name[0] == "q" else source) / "photos" / name
        assert (source / "out/JPEGImages" / name).read_bytes() == photo.read_bytes()
    write_map(second, "p4", every_id(20))
    with pytest.raises(InputError, match=r"maps/p4\.png and .*second/maps/p4\.png have one id"):
        convert_labels(*folders, source / "out", "lip")


def test_a_map_is_not_its_own_photograph(source):
    (source / "maps/p0.jpg").write_bytes((source / "photos/p0.jpg").read_bytes())
    summary = convert_labels(source / "maps", source / "maps", source / "out", "lip")
    assert (summary.written, len(summary.damaged)) == (1, 5)


def test_id_lists(source):
    (source / "train.txt").write_text("p4\np1\nnowhere\n")
    (source / "valid.txt").write_text("p3\n")
    both = run(source, train_ids=source / "train.txt", valid_ids=source / "valid.txt")
    assert (lines(source / "out/train_id.txt"), lines(source / "out/val_id.txt")) == (["p1", "p4"], ["p3"])
    assert (both.written, both.unlisted, both.train_missing, both.valid_missing) == (3, 3, ["nowhere"], [])
    assert "unlisted        3" in both.table()
    assert "1 ids asked for" in both.table()
    one = run(source, train_ids=source / "train.txt")
    assert (one.kept, one.written, one.unlisted) == (3, 3, 0)
    assert lines(source / "out/train_id.txt") == ["p1", "p4"]
    assert lines(source / "out/val_id.txt") == ["p0", "p2", "p3", "p5"]
    run(source, valid_ids=source / "valid.txt")
    assert lines(source / "out/train_id.txt") == ["p0", "p1", "p2", "p4", "p5"]
    run(source, valid_fraction=0.5, seed=1)
    assert len(lines(source / "out/val_id.txt")) == 3
    with pytest.raises(InputError, match=r"nowhere is in .*train\.txt and in .*train\.txt"):
        run(source, train_ids=source / "train.txt", valid_ids=source / "train.txt")
    with pytest.raises(InputError, match="cannot read the train ids"):
        run(source, train_ids=source / "absent.txt")


def test_a_second_run_keeps_what_is_there(source):
    first = run(source)
    before = contents(source / "out"), {file: file.stat().st_mtime_ns for file in (source / "out").rglob("*.*g")}
    again = run(source)
    after = contents(source / "out"), {file: file.stat().st_mtime_ns for file in (source / "out").rglob("*.*g")}
    assert before == after
    assert (again.kept, again.written, again.pixels, again.ignored) == (6, 0, first.pixels, first.ignored)
    other = run(source, mapping="common")
    assert (other.kept, other.written) == (0, 6)
    assert lines(source / "out/classes.txt")[-1] == "9: shoes"
    run(source)
    assert contents(source / "out") == before[0]


def test_an_interrupted_run_goes_on(source):
    whole = run(source, "whole")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, progress=stop)
    out = source / "out"
    assert not (out / "val_id.txt").exists()
    assert not (out / "tree.yaml").exists()
    half = out / "gt_masks/p1.png"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    (out / "gt_masks/.p4.png.part").write_bytes(b"left by a kill")
    rest = run(source, workers=2)
    assert (rest.kept, rest.written, rest.pixels) == (2, 4, whole.pixels)
    assert contents(out) == contents(source / "whole")


def test_a_killed_run_leaves_whole_files(source):
    code = (
        "import os, sys; from fastseg.data.labels import convert_labels; "
        "convert_labels(*sys.argv[1:], 'lip', workers=2, progress=lambda *now: os.kill(os.getpid(), 9))"
    )
    folders = [str(source / name) for name in ("maps", "photos", "out")]
    home = Path(__file__).parents[1]
    # Returns only when nobody holds the pipe any more, the workers included.
    ended = subprocess.run([sys.executable, "-c", code, *folders], cwd=home, capture_output=True, timeout=20)
    assert ended.returncode == -9, ended.stderr
    assert not (source / "out/val_id.txt").exists()
    for file in (source / "out/gt_masks").glob("p*.png"):
        assert mask(source / "out", file.stem).tolist() == every_id(20, int(file.stem[1:])).tolist()
    run(source)
    run(source, "whole")
    assert contents(source / "out") == contents(source / "whole")


def test_somebody_elses_files_are_left_alone(source):
    (source / "out").mkdir()
    (source / "out/tree.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"such as tree\.yaml: give another folder"):
        run(source)
    assert contents(source / "out") == {Path("tree.yaml"): b"mine"}


def test_the_result_gives_batches(source):
    from fastseg import seg_dataloaders

    run(source)
    cfg = load_config(
        source / "out/tree.yaml", f"data.root={source / 'out'}", "data.size=32x64", "data.workers=0",
        "train.batch_size=4",
    )  # fmt: skip
    assert cfg.classes() == load_labels("lip").tree
    images, masks = seg_dataloaders(cfg).train.one_batch()
    assert (images.shape, masks.shape) == ((4, 3, 32, 64), (4, 32, 64))
    assert set(masks.unique().tolist()) <= {*range(20), 255}


def test_the_command(source, capsys):
    (source / "valid.txt").write_text("p2\n")
    (source / "train.txt").write_text("p1\np5\n")
    folders = [f"--annotations {source}/maps", f"--images {source}/photos", f"--out {source}/out"]
    words = ["convert", *" ".join(folders).split(), "--protocol", "lip", "--mapping", "common"]
    lists = ["--train-ids", f"{source}/train.txt", "--valid-ids", f"{source}/valid.txt"]
    assert main([*words, *lists]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("protocol lip to common\nwritten         3\n")
    assert lines(source / "out/train_id.txt") == ["p1", "p5"]
    assert main([*words[:-4], "--mapping", "common"]) == 2
    error = capsys.readouterr().err.strip()
    assert error == (
        "fastseg convert: --mapping goes with label maps; person6 is for .mat files: name their --protocol"
    )
    (source / "maps/p3.png").write_bytes(b"")
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "1 damaged, the rest is written; the first:" in printed.err
    assert "written         2\nkept            3\n" in printed.out


def test_the_help_names_every_protocol(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    for file in PROTOCOLS.glob("*.yaml"):
        assert file.stem in text

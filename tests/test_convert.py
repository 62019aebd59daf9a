"""Pascal-Part's `.mat` files, real ones and ones made by hand, become masks exactly as the protocol says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from fastseg.data.convert import convert, load_protocol, paint
from fastseg.errors import InputError

REAL = Path(__file__).parents[2] / "shared" / "data" / "pascal_part_mat"
PEOPLE = ["2008_000652", "2008_000700", "2008_003228", "2009_001103", "2010_005243"]
# Written out once more, from the protocol's prose and not from its YAML.
LEAF = {
    "llarm": 1,
    "rlarm": 1,
    "lhand": 1,
    "rhand": 1,
    "torso": 2,
    "llleg": 3,
    "rlleg": 3,
    "lfoot": 3,
    "rfoot": 3,
    "head": 4,
    "hair": 4,
    "neck": 4,
    "nose": 4,
    "mouth": 4,
    "lear": 4,
    "rear": 4,
    "leye": 4,
    "reye": 4,
    "lebrow": 4,
    "rebrow": 4,
    "luleg": 5,
    "ruleg": 5,
    "luarm": 6,
    "ruarm": 6,
}
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the seven real annotations are not at {REAL}")


def at(rows, columns, shape=(4, 6)):
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = 1
    return mask


def thing(kind, *parts, shape=(4, 6)):
    return kind, np.ones(shape, np.uint8), list(parts)


def write_mat(path, *things):
    objects = np.zeros((1, len(things)), [("class", "O"), ("class_ind", "O"), ("mask", "O"), ("parts", "O")])
    for k, (kind, mask, parts) in enumerate(things):
        array = np.zeros((1, len(parts)) if parts else (0, 0), [("part_name", "O"), ("mask", "O")])
        for j, part in enumerate(parts):
            array[0, j] = part
        objects[0, k] = (kind, 1, mask, array)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": {"imname": path.stem, "objects": objects}}, do_compression=True)


def write_photo(path, shape=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape[::-1], (len(path.stem), 90, 30)).save(path)


CROWD = (
    thing("person", ("torso", at(slice(None), slice(0, 4))), ("neck", at(0, slice(1, 3))), ("lhand", at(3, 0))),
    thing("chair"),
    thing("person", ("luarm", at(1, slice(2, 6))), ("lfoot", at(3, slice(3, 6)))),
    thing("cat", ("torso", at(slice(1, 3), slice(4, 6))), ("tail", at(3, 5))),
    thing("person", ("ruleg", at(2, 5))),
    thing("person"),
)
CROWD_MASK = [[2, 4, 4, 2, 0, 0], [2, 2, 6, 6, 0, 0], [2, 2, 2, 2, 0, 5], [1, 2, 2, 3, 3, 0]]


@pytest.fixture
def source(tmp_path):
    """Six people, a cat alone and a person hidden by a cat."""
    for k in range(6):
        write_mat(tmp_path / f"mat/p{k}.mat", *CROWD)
    write_mat(tmp_path / "mat/cat.mat", thing("cat", ("head", at(0, 0))))
    write_mat(tmp_path / "mat/hidden.mat", thing("person", ("nose", at(1, 1))), thing("cat", ("head", at(1, 1))))
    for file in (tmp_path / "mat").iterdir():
        write_photo(tmp_path / f"jpg/{file.stem}.jpg")
    return tmp_path


def run(source, out="out", **settings):
    return convert(source / "mat", source / "jpg", source / out, **settings)


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def lines(file):
    return file.read_text().splitlines()


@pytest.mark.parametrize(
    "options", [{}, {"squeeze_me": True}, {"struct_as_record": False}, {"squeeze_me": True, "struct_as_record": False}]
)
def test_a_mask_worked_out_by_hand(tmp_path, options):
    write_mat(tmp_path / "crowd.mat", *CROWD)
    write_mat(tmp_path / "one.mat", thing("person", ("rfoot", at(0, 0))))
    person6 = load_protocol("person6")
    mask = paint(loadmat(tmp_path / "crowd.mat", **options), person6)
    assert mask.dtype == np.uint8
    assert mask.tolist() == CROWD_MASK
    assert paint(loadmat(tmp_path / "one.mat", **options), person6).tolist() == (3 * at(0, 0)).tolist()


def test_the_protocol_names_the_24_parts_of_a_person():
    person6 = load_protocol("person6")
    assert person6.leaves == ("bg", "low_hand", "torso", "low_leg", "head", "up_leg", "up_hand")
    assert person6.rules == {"person": LEAF}


@real
def test_the_real_files(tmp_path):
    seen = []
    summary = convert(REAL / "Annotations_Part", REAL / "JPEGImages", tmp_path, progress=lambda *now: seen.append(now))
    assert (summary.written, summary.kept, summary.damaged) == (5, 0, [])
    assert summary.skipped == ["2008_001978", "2008_003497"]
    assert seen == [(k, 7) for k in range(1, 8)]
    assert sorted(lines(tmp_path / "train_id.txt") + lines(tmp_path / "val_id.txt")) == PEOPLE
    assert (summary.train, summary.valid) == (4, 1)
    assert lines(tmp_path / "classes.txt")[:2] == ["0: bg", "1: low_hand"]
    assert sorted(file.stem for file in (tmp_path / "gt_masks").iterdir()) == PEOPLE
    totals = np.zeros(7, int)
    for name in PEOPLE:
        photo, mask = REAL / f"JPEGImages/{name}.jpg", np.load(tmp_path / f"gt_masks/{name}.npy")
        assert (tmp_path / f"JPEGImages/{name}.jpg").read_bytes() == photo.read_bytes()
        assert mask.dtype == np.uint8
        assert mask.shape == Image.open(photo).size[::-1]
        totals += [(mask == leaf).sum() for leaf in range(7)]
    assert list(summary.pixels.values()) == totals.tolist()
    assert "2008_001978" in summary.table()
    assert f"{totals[4]:,}" in summary.table()


@real
@pytest.mark.parametrize("name", PEOPLE)
def test_every_pixel_of_a_real_mask(name):
    """A slow painter: for each pixel, the last part that covers it decides. Nothing of ours is used but `paint`."""
    path = REAL / f"Annotations_Part/{name}.mat"
    layers = []
    for item in np.atleast_1d(loadmat(path, squeeze_me=True, struct_as_record=False)["anno"].objects):
        for part in np.atleast_1d(item.parts):
            leaf = LEAF[part.part_name] if getattr(item, "class") == "person" else 0
            layers.insert(0, (leaf, part.mask.astype(bool)))
    covered = np.any([cover for _, cover in layers], axis=0)
    mask = paint(loadmat(path), load_protocol("person6"))
    assert not mask[~covered].any()
    stack = [(leaf, cover[covered].tolist()) for leaf, cover in layers]
    slow = [next(leaf for leaf, cover in stack if cover[pixel]) for pixel in range(int(covered.sum()))]
    assert mask[covered].tolist() == slow


def test_people_without_a_visible_part_are_skipped(source):
    summary = run(source)
    assert (summary.written, summary.skipped) == (6, ["cat", "hidden"])
    assert not (source / "out/gt_masks/cat.npy").exists()
    assert not (source / "out/JPEGImages/hidden.jpg").exists()


def test_an_interrupted_run_goes_on(source):
    whole = run(source, "whole")

    def stop(done, total):
        if done == 5:  # cat, hidden, p0, p1, p2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, progress=stop)
    assert not (source / "out/val_id.txt").exists()
    half = source / "out/gt_masks/p1.npy"
    half.write_bytes(half.read_bytes()[:-3])
    (source / "out/JPEGImages/p0.jpg").write_bytes(b"")
    (source / "out/gt_masks/.p3.npy.part").write_bytes(b"left by a kill")
    rest = run(source, workers=2)
    assert (rest.kept, rest.written) == (2, 4)
    assert contents(source / "out") == contents(source / "whole")
    assert rest.pixels == whole.pixels
    again = run(source)
    assert (again.kept, again.written, again.skipped) == (6, 0, ["cat", "hidden"])
    assert contents(source / "out") == contents(source / "whole")


def test_a_killed_run_leaves_no_workers_behind(source):
    code = (
        "import os, sys; from fastseg.data.convert import convert; "
        "convert(*sys.argv[1:], workers=2, progress=lambda *now: os.kill(os.getpid(), 9))"
    )
    folders = [str(source / name) for name in ("mat", "jpg", "out")]
    # Returns only when nobody holds the pipe any more, the workers included.
    ended = subprocess.run(
        [sys.executable, "-c", code, *folders],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    assert not (source / "out/val_id.txt").exists()
    summary = run(source)
    assert summary.written + summary.kept == 6
    run(source, "whole")
    assert contents(source / "out") == contents(source / "whole")


def test_another_protocol_starts_anew(source):
    (source / "cats.yaml").write_text("leaves: {0: bg, 1: cat}\nclasses: {cat: {cat: [head, torso], bg: [tail]}}")
    run(source)
    summary = run(source, protocol=source / "cats.yaml")
    assert (summary.written, summary.kept, summary.skipped) == (8, 0, [])
    # A person's leg over the cat's torso now erases.
    assert np.load(source / "out/gt_masks/p0.npy").tolist() == at([1, 1, 2], [4, 5, 4]).tolist()
    assert lines(source / "out/classes.txt") == ["0: bg", "1: cat"]
    run(source)
    assert np.load(source / "out/gt_masks/p0.npy").tolist() == CROWD_MASK
    assert not (source / "out/gt_masks/cat.npy").exists()


def test_damaged_files_are_named_and_the_rest_goes_on(source):
    mat = source / "mat"
    (mat / "p0.mat").write_bytes((mat / "p1.mat").read_bytes()[:300])
    (mat / "a_text.mat").write_text("not a .mat file")
    savemat(mat / "other.mat", {"something": 1})
    savemat(mat / "flat.mat", {"anno": {"objects": 3}})
    write_mat(mat / "size.mat", thing("person", ("torso", at(0, 0, (5, 6))), shape=(5, 6)))
    write_mat(mat / "mixed.mat", thing("person", ("torso", at(0, 0, (5, 6)))))
    write_mat(mat / "part.mat", thing("person", ("lwing", at(0, 0))))
    for name in ("a_text", "other", "size", "part"):
        write_photo(source / f"jpg/{name}.jpg")
    (source / "jpg/p2.jpg").unlink()
    (source / "jpg/p3.jpg").write_bytes(b"no photograph")
    (mat / "._p4.mat").write_bytes(b"macOS")
    summary = run(source)
    reasons = {Path(file).stem: reason for file, reason in summary.damaged}
    hints = {
        "p0": "cannot be read",
        "a_text": "cannot be read",
        "other": "`anno`",
        "flat": "`mask`",
        "size": "its mask is 5x6",
        "mixed": "(5, 6)",
        "part": "'lwing' of a person is in no rule",
        "p2": "p2.jpg",
        "p3": "p3.jpg",
    }
    assert reasons.keys() == hints.keys()
    for name, hint in hints.items():
        assert hint in reasons[name]
        assert "\n" not in reasons[name]
        assert f"{name}.mat: {reasons[name]}" in summary.table()
    assert summary.written == 3
    assert sorted(lines(source / "out/train_id.txt") + lines(source / "out/val_id.txt")) == ["p1", "p4", "p5"]


def test_valid_ids_from_a_file(source):
    (source / "valid.txt").write_text("p4\ncat\n\np1\nnowhere\n")
    summary = run(source, valid_ids=source / "valid.txt")
    assert lines(source / "out/val_id.txt") == ["p1", "p4"]
    assert lines(source / "out/train_id.txt") == ["p0", "p2", "p3", "p5"]
    assert summary.valid_missing == ["cat", "nowhere"]
    assert "2 ids asked for" in summary.table()
    (source / "valid.txt").write_text("p4.jpg\n")
    with pytest.raises(InputError, match="none of its 1 ids"):
        run(source, valid_ids=source / "valid.txt")
    with pytest.raises(InputError, match="cannot read the valid ids"):
        run(source, valid_ids=source / "absent.txt")


def test_a_drawn_split_follows_the_seed(source):
    splits = []
    for seed in range(8):
        run(source, valid_fraction=0.34, seed=seed)
        splits.append((lines(source / "out/train_id.txt"), lines(source / "out/val_id.txt")))
        assert list(map(len, splits[-1])) == [4, 2]
    assert len({str(split) for split in splits}) > 2
    run(source, valid_fraction=0.34, seed=3)
    assert lines(source / "out/val_id.txt") == splits[3][1]
    counts = [(summary.train, summary.valid) for summary in (run(source, valid_fraction=f) for f in (0, 0.01, 0.99))]
    assert counts == [(6, 0), (5, 1), (1, 5)]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("leaves: [", "cannot read"),
        ("leaves: {0: bg, 1: a}", "classes"),
        ("leaves: {0: bg, 2: a}\nclasses: {person: {a: [head]}}", "ids 0, 1, 2"),
        ("leaves: {0: bg, 1: a}\nclasses: {person: {b: [head]}}", "'b'"),
        ("leaves: {0: bg, 1: a}\nclasses: {person: {a: head}}", r"\[parts\]"),
        ("leaves: {0: bg, 1: a}\nclasses: {person: {a: [head, no]}}", "quotes"),
        ("leaves: {0: bg, 1: [a]}\nclasses: {person: {a: [head]}}", "quotes"),
        ("leaves: {0: bg, 1: a}\nclasses: {person: {a: [head], bg: [head]}}", "twice"),
    ],
)
def test_bad_protocols(tmp_path, text, hint):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=hint) as caught:
        load_protocol(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_what_cannot_work_is_said_before_anything_is_written(source):
    with pytest.raises(InputError, match=r"unknown protocol 'person7': did you mean person6\? known"):
        run(source, protocol="person7")
    with pytest.raises(InputError, match="cannot read protocol"):
        run(source, protocol="absent.yaml")
    with pytest.raises(InputError, match="no folder"):
        convert(source / "absent", source / "jpg", source / "out")
    with pytest.raises(InputError, match=r"has no \.mat"):
        convert(source / "jpg", source / "jpg", source / "out")
    with pytest.raises(InputError, match=r"has no \.jpg"):
        convert(source / "mat", source / "mat", source / "out")
    with pytest.raises(InputError, match="less than 1"):
        run(source, valid_fraction=1)
    assert not (source / "out").exists()
    with pytest.raises(InputError, match="cannot make the folder"):
        run(source, "mat/p0.mat")


def test_masks_of_somebody_else_are_left_alone(source):
    (source / "out/gt_masks").mkdir(parents=True)
    (source / "out/gt_masks/p0.npy").write_bytes(b"drawn by hand")
    with pytest.raises(InputError, match="another folder"):
        run(source)
    assert contents(source / "out") == {Path("gt_masks/p0.npy"): b"drawn by hand"}


@pytest.mark.slow
@real
def test_the_network_can_learn_real_photographs_by_heart(tmp_path):
    from fastseg import load_config, train

    convert(REAL / "Annotations_Part", REAL / "JPEGImages", tmp_path / "five")
    names = sorted(path.stem for path in (tmp_path / "five" / "gt_masks").iterdir())
    assert len(names) == 5
    # Every id several times, so that an epoch has more than one step; an id may stand in both lists.
    (tmp_path / "five" / "train_id.txt").write_text("\n".join(names * 8))
    (tmp_path / "five" / "val_id.txt").write_text("\n".join(names))
    data = {"root": str(tmp_path / "five"), "size": 256, "workers": 0, "allow_leak": True}
    settings = {"data": data, "out": str(tmp_path)}
    schedule = {"epochs": 12, "batch_size": 5, "lr": [1e-3, 5e-3], "keep": "last"}
    run = train(load_config({**settings, "train": schedule, "loss": ["cross_entropy", "iou"]}))
    assert json.loads((run / "metrics.json").read_text())["miou2"] >= 0.85

import csv
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from onnx_files import write_onnx
from PIL import Image

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference.predict import Predictor
from fastseg.inference.predict_files import predict_files

rng = np.random.default_rng(0)


def photograph(path, shape=(40, 50), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    Image.fromarray(small).resize(shape[::-1]).save(path, quality=95)
    return path


@pytest.fixture
def network(tmp_path):
    return write_onnx(tmp_path / "network.onnx")


@pytest.fixture
def folder(tmp_path):
    """Five photographs, of which two are in folders inside."""
    root = tmp_path / "photographs"
    for i, name in enumerate(("a.jpg", "b.png", "c.JPG", "in/a.jpg", "in/deep/d.webp")):
        photograph(root / name, (30 + i, 40), i)
    (root / "notes.txt").write_text("none")
    return root


def files(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def times(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file() and path.parent != out}


def rows(out):
    with (out / "areas.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_folder_becomes_masks_of_right_ids(network, folder, tmp_path):
    predictor, seen = Predictor(network, batch_size=2), []
    done = predict_files(predictor, [folder], tmp_path / "out", progress=lambda *at: seen.append(at))
    assert (done.made, done.there, done.bad) == (5, 0, [])
    names = ["a", "b", "c", "in/a", "in/deep/d"]
    assert files(done.out) == sorted(["areas.csv", "made.jsonl", *(f"ids/{n}.png" for n in names),
                                      *(f"overlay/{n}.jpg" for n in names)])  # fmt: skip
    assert seen == [(i, 5) for i in range(1, 6)]
    for name, path in zip(names, ["a.jpg", "b.png", "c.JPG", "in/a.jpg", "in/deep/d.webp"], strict=True):
        expected = predictor.predict(folder / path).ids
        with Image.open(done.out / f"ids/{name}.png") as mask:
            assert mask.mode == "P"
            assert (np.asarray(mask) == expected).all()
            assert (np.asarray(mask.convert("RGB")) == predictor.hierarchy.colours()[expected]).all()
        with Image.open(done.out / f"overlay/{name}.jpg") as drawn:
            assert drawn.width == expected.shape[1]
            assert drawn.height > expected.shape[0]
        row = rows(done.out)[name]
        assert (int(row["height"]), int(row["width"])) == expected.shape
        counted = [int(row[leaf]) for leaf in predictor.hierarchy.leaves]
        assert counted == np.bincount(expected.flat, minlength=7).tolist()


def test_a_level_with_cut_outs_and_json(network, folder, tmp_path):
    predictor = Predictor(network)
    out = predict_files(predictor, [folder / "a.jpg"], tmp_path / "out", ["cutout", "json", "ids"], level=1).out
    found = predictor.predict(folder / "a.jpg")
    nodes = found.level(1)
    assert (np.asarray(Image.open(out / "ids/a.png")) == nodes).all()
    entry = json.loads((out / "json/a.json").read_text())
    assert (entry["height"], entry["width"], entry["level"]) == (*nodes.shape, 1)
    there = [node for node in (1, 2) if (nodes == node).any()]
    assert [one["id"] for one in entry["classes"]] == there
    for one in entry["classes"]:
        cut = np.asarray(Image.open(out / f"cutout/a/{one['name']}.png"))
        inside = nodes == one["id"]
        assert ((cut[..., 3] == 255) == inside).all()
        assert set(np.unique(cut[..., 3])) <= {0, 255}
        assert (cut[..., :3] == np.asarray(Image.open(folder / "a.jpg"))).all()
        assert one["pixels"] == inside.sum()
        top, left, bottom, right = one["box"]
        assert inside[top:bottom, left:right].sum() == inside.sum()
        for edge in (inside[top], inside[bottom - 1], inside[:, left], inside[:, right - 1]):
            assert edge.any()
        assert one["confidence"] == pytest.approx(found.confidence[inside].mean(), abs=1e-4)
    assert not (out / "overlay").exists()


def test_what_is_there_is_not_made_again(network, folder, tmp_path):
    out = tmp_path / "out"
    predict_files(Predictor(network), [folder], out)
    before, areas = times(out), (out / "areas.csv").read_text()
    again = predict_files(Predictor(network), [folder], out)
    assert (again.made, again.there) == (0, 5)
    assert times(out) == before
    assert (out / "areas.csv").read_text() == areas
    # One mask gone, one photograph another, half a file left and half a line of the record, as a killed process would.
    (out / "ids/b.png").unlink()
    photograph(folder / "a.jpg", (33, 44), seed=9)
    (out / "ids/c.png.part123").write_bytes(b"half")
    with (out / "made.jsonl").open("a") as record:
        record.write('{"photograph": "/nowh')
    again = predict_files(Predictor(network), [folder], out)
    assert (again.made, again.there) == (2, 3)
    assert not (out / "ids/c.png.part123").exists()
    assert np.asarray(Image.open(out / "ids/a.png")).shape == (33, 44)
    changed = {path.name for path, when in times(out).items() if before[path] != when}
    assert changed == {"a.png", "a.jpg", "b.png", "b.jpg"}
    assert predict_files(Predictor(network), [folder], out).made == 0
    # Another look at the photographs is another mask.
    assert predict_files(Predictor(network, decode="path"), [folder], out).made == 5
    assert predict_files(Predictor(network, decode="path"), [folder], out, level=0).made == 5
    assert set(rows(out)["a"]) == {"name", "photograph", "height", "width", "background", "body"}


def test_a_stopped_call_goes_on_where_it_was(network, folder, tmp_path):
    predictor, out = Predictor(network, batch_size=1), tmp_path / "out"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, [folder], out, progress=stop)
    before = times(out)
    again = predict_files(predictor, [folder], out)
    assert again.there >= 2
    assert again.there + again.made == 5
    kept = [path for path, when in times(out).items() if before.get(path) == when]
    assert len(kept) >= 2 * again.there
    assert len(rows(out)) == 5


def test_equal_names_do_not_overwrite_each_other(network, tmp_path):
    predictor, out = Predictor(network), tmp_path / "out"
    one = photograph(tmp_path / "one/x.jpg", (20, 21))
    two, png = photograph(tmp_path / "two/x.jpg", (30, 31)), photograph(tmp_path / "one/x.png", (40, 41))
    capital = photograph(tmp_path / "three/X.jpg", (50, 51))
    predict_files(predictor, [one.parent, two.parent, capital], out, ["ids"])
    masks = {path.relative_to(out / "ids").as_posix(): np.asarray(Image.open(path)) for path in out.rglob("*.png")}
    shapes = {name: mask.shape for name, mask in masks.items()}
    assert shapes == {"x.png": (20, 21), "x.png.png": (40, 41), "two/x.png": (30, 31), "three/X.png": (50, 51)}
    assert {row["photograph"]: name for name, row in rows(out).items()} == {
        str(one): "x", str(png): "x.png", str(two): "two/x", str(capital): "three/X"}  # fmt: skip
    # Nor in another call: the record knows whose the names are.
    four = photograph(tmp_path / "four/x.jpg", (60, 61))
    done = predict_files(predictor, [four], out, ["ids"])
    assert np.asarray(Image.open(out / "ids/four/x.png")).shape == (60, 61)
    assert done.made == 1
    assert predict_files(predictor, [two, one, png, four, capital], out, ["ids"]).there == 5


def test_bad_files_are_named_and_the_rest_goes_on(network, folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"nothing")
    whole = (folder / "c.JPG").read_bytes()
    (folder / "c.JPG").write_bytes(whole[: len(whole) // 2])
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "in/huge.png").write_bytes(bomb)
    out = tmp_path / "out"
    assert main(["predict", str(network), str(folder), "--out", str(out), "--save", "ids", "--batch-size", "2"]) == 2
    printed = capsys.readouterr()
    for name in ("b.png", "c.JPG", "huge.png"):
        assert sum(name in line for line in printed.err.splitlines() if line.startswith("left out: ")) == 1
    assert printed.err.splitlines()[-1].startswith("fastseg predict: 3 photographs could not be read, the rest is done")
    assert "Traceback" not in printed.err
    assert printed.out == f"{out}/: 3 photographs\n"
    assert files(out / "ids") == ["a.png", "in/a.png", "in/deep/d.png"]
    assert sorted(rows(out)) == ["a", "in/a", "in/deep/d"]


def test_words_of_the_command(network, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(network), str(folder / "*.jpg"), str(folder / "**/d.*"), str(folder / "a.jpg"),
                 "--out", str(out), "--save", "ids", "--size", "2", "--tta", "flip"]) == 0  # fmt: skip
    assert files(out / "ids") == ["a.png", "d.png"]
    # What was written is not taken for photographs, where it lies in the folder that is named.
    inside = folder / "out"
    assert main(["predict", str(network), str(folder), "--out", str(inside)]) == 0
    assert main(["predict", str(network), str(folder), "--out", str(inside)]) == 0
    assert "0 photographs, 5 were there already" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([folder / "*.gif"], "no file fits it"), ([tmp_path / "empty"], "no photograph there"),
        (["x.jpg"], "no such file"),
        ([folder, "--save", "ids,masks"], "'masks' is none of"), ([folder, "--level", "3"], "levels 0 to 2"),
        ([folder, "--size", "wide"], "size"), ([folder, "--out", tmp_path / "file"], "cannot be written"),
    ):  # fmt: skip
        where = [] if "--out" in words else ["--out", str(out)]
        assert main(["predict", str(network), *map(str, words), *where]) == 2
        printed = capsys.readouterr().err
        assert said in printed
        assert len(printed.splitlines()) == 1


def test_a_class_that_is_gone_leaves_no_cut_out(network, folder, tmp_path):
    out = tmp_path / "out"
    predict_files(Predictor(network), [folder / "a.jpg"], out, ["cutout"])
    before = set(files(out / "cutout/a"))
    Image.new("RGB", (9, 9), (255, 0, 0)).save(folder / "a.jpg")
    predict_files(Predictor(network), [folder / "a.jpg"], out, ["cutout"])
    after = set(files(out / "cutout/a"))
    assert len(before) > len(after)
    assert after < before or len(after) <= 1


def test_a_moved_folder_of_masks_still_opens(network, folder, tmp_path):
    out = tmp_path / "out"
    predict_files(Predictor(network), [folder / "a.jpg"], out)
    moved = shutil.move(out, tmp_path / "elsewhere")
    assert predict_files(Predictor(network), [folder / "a.jpg"], moved).there == 1


def test_nothing_at_all(network, tmp_path):
    with pytest.raises(InputError, match="name photographs"):
        predict_files(Predictor(network), [], tmp_path / "out")

import subprocess
import sys

import numpy as np
import pytest
from exporting import made_run
from onnx_files import write_onnx
from PIL import Image

import fastseg.inference.predict as predict_module
from fastseg.errors import InputError
from fastseg.inference.evaluate import Trial
from fastseg.inference.passes import photograph_batches, predicted
from fastseg.inference.predict import Predictor

rng = np.random.default_rng(0)
COLOURS = rng.integers(0, 256, (45, 61, 3), np.uint8)
MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
         "I", "I;16", "I;16B", "I;16L", "I;16N", "F"]  # fmt: skip
# Of 50 sizes these are the small ones, and one that is long and thin.
SIZES = [(1, 1), (1, 2), (2, 1), (1, 500), (500, 1), (3, 3), (7, 5), (31, 33), (32, 64), (33, 65), (64, 32), (63, 64),
         *((int(h), int(w)) for h, w in np.random.default_rng(1).integers(1, 400, (26, 2))), (2, 3000)]  # fmt: skip
LARGE = [(1000, 1500), (1333, 999), (3000, 40), (17, 5000), (2048, 2048), (2000, 3000), (3000, 4000), (4000, 3000),
         (3000, 5000), (5000, 3000), (5000, 1)]  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(drawn, tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("runs") / "run", drawn)


@pytest.fixture(scope="module")
def predictor(run_folder):
    return Predictor(run_folder, device="cpu")


def smooth(shape, seed=0):
    """A photograph (H, W, 3) of soft colours."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("overrides", "choices"),
    [([], {}), ([], {"decode": "path", "tta": "flip,0.5,1"}), (["data.resize=pad"], {"decode": "top_down"}),
     (["loss=[tree_min]", "data.resize=crop"], {"tta": "flip"})],
)  # fmt: skip
def test_the_ids_are_exactly_those_that_evaluate_sees(drawn, tmp_path, overrides, choices):
    run = made_run(tmp_path / "run", drawn, *overrides)
    trial = Trial.of(run, split="train", **choices)
    batches = photograph_batches(trial.files, trial.names, trial.plan, trial.stats, trial.cfg)
    seen = predicted(trial.model, trial.plan, batches)
    paths = [trial.files.image(name) for name in trial.names]
    found = Predictor(run, batch_size=trial.cfg.train.batch_size, **choices).predict(paths)
    assert len(seen) == len(found) == 8
    assert len(np.unique(seen[0])) > 3
    for expected, one in zip(seen, found, strict=True):
        np.testing.assert_array_equal(one.ids, expected)


@pytest.mark.parametrize("resize", ["squish", "pad"])
def test_masks_have_the_photographs_size(drawn, tmp_path, resize):
    predictor = Predictor(made_run(tmp_path / "run", drawn, f"data.resize={resize}"), tta="flip")
    for found, shape in zip(predictor.stream(smooth(shape) for shape in SIZES), SIZES, strict=True):
        assert found.ids.shape == found.level(0).shape == found.confidence.shape == shape
        assert (found.ids.dtype, found.confidence.dtype) == (np.uint8, np.float32)
        assert found.ids.max() < 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "file"])
def test_masks_have_a_large_photographs_size(run_folder, tmp_path, kind):
    predictor = Predictor(run_folder if kind == "run" else write_onnx(tmp_path / "a.onnx"))
    assert len(SIZES) + len(LARGE) == 50
    for shape in LARGE:
        found = predictor.predict(smooth(shape))
        assert found.ids.shape == found.confidence.shape == shape


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(predictor, mode):
    if mode.startswith("I") or mode == "F":
        grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
        kinds = {"I": np.int32, "F": np.float32, "I;16B": ">u2"}
        values = grey.astype(kinds.get(mode, "<u2")) * (257 if ";" in mode else 1)
        image = Image.frombytes(mode, grey.shape[::-1], values.tobytes())
    elif mode in ("La", "RGBa", "PA"):
        image = Image.fromarray(COLOURS).convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode]).convert(mode)
    elif mode == "LAB":
        image = Image.new("LAB", COLOURS.shape[1::-1], (128, 120, 130))
    else:
        image = Image.fromarray(COLOURS).convert(mode)
    assert image.mode == mode
    found = predictor.predict(image)
    assert found.ids.shape == COLOURS.shape[:2]
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        assert (found.ids == predictor.predict(COLOURS).ids).all()
    if mode in ("L", "LA", "La", "I", "I;16", "I;16B", "F"):
        grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
        assert (found.ids == predictor.predict(grey).ids).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_photograph_upright(predictor, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif, quality=95)
    turns = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
             6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    upright = turns[orientation](COLOURS)
    expected = predictor.predict(np.ascontiguousarray(upright)).ids
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")):
        assert (predictor.predict(given).ids == expected).all()
    assert predictor.predict(tmp_path / "a.jpg").ids.shape == upright.shape[:2]


def test_arrays_of_all_layouts(predictor):
    expected = predictor.predict(COLOURS).ids
    opaque = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)])
    strided = np.ascontiguousarray(COLOURS[::-1, ::-1])[::-1, ::-1]
    frozen = COLOURS.copy()
    frozen.setflags(write=False)
    for same in (opaque, strided, frozen):
        assert (predictor.predict(same).ids == expected).all()
    before = COLOURS.copy()
    assert predictor.predict(COLOURS[..., 0]).ids.shape == COLOURS.shape[:2]
    assert (before == COLOURS).all()
    for wrong in (COLOURS.astype(np.float32), COLOURS[0, 0], np.zeros((0, 4, 3), np.uint8), COLOURS[None], None, 3):
        with pytest.raises(InputError, match=r"photograph|holds no pixel"):
            predictor.predict([wrong])


def test_files_that_are_no_photographs(predictor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    for path, said in ((tmp_path / "a.jpg", "not a readable photograph"), (tmp_path / "b.jpg", "no such file"),
                       (tmp_path, "no such file")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            predictor.predict(path)


def test_a_list_is_seen_in_batches(run_folder, predictor):
    photographs = [smooth((40 + 9 * i, 70), i) for i in range(7)]
    sizes, network = [], predictor.backend.run
    several = Predictor(run_folder, device="cpu", batch_size=3)
    several.backend.run = lambda images: sizes.append(len(images)) or network(images)
    for one, found in zip(photographs, several.predict(photographs), strict=True):
        assert (found.ids == predictor.predict(one).ids).mean() > 0.999
    assert sizes == [3, 3, 1]
    assert several.predict([]) == []


@pytest.mark.parametrize(("library", "head"), [("torch", "leaves"), ("torch", "nodes"), ("numpy", "leaves")])
def test_probabilities_fit_the_ids(drawn, tmp_path, head, library):
    if library == "numpy":
        predictor = Predictor(write_onnx(tmp_path / "a.onnx"))
    else:
        predictor = Predictor(made_run(tmp_path / "run", drawn, *(["loss=[tree_min]"] if head == "nodes" else [])))
    found, tree = predictor.predict(COLOURS), predictor.hierarchy
    leaves = found.marginals()
    assert leaves.dtype == np.float32
    assert leaves.shape == (7, *COLOURS.shape[:2])
    assert (leaves.argmax(0) == found.ids).mean() > 0.999
    np.testing.assert_allclose(np.take_along_axis(leaves, found.ids[None].astype(int), 0)[0], found.confidence)
    for level in range(tree.depth):
        assert (found.level(level) == tree.merge(found.ids, level)).all()
        assert found.marginals(level).shape == (len(tree.names(level)), *COLOURS.shape[:2])
        if head == "leaves":
            np.testing.assert_allclose(found.marginals(level), tree.marginals(leaves, level, dim=0), atol=1e-6)
            np.testing.assert_allclose(found.marginals(level).sum(0), 1, atol=1e-5)
    with pytest.raises(InputError, match="levels 0 to 2"):
        found.level(3)


@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("tta", [None, "flip,0.5,2"])
def test_bands_give_what_the_whole_gives(run_folder, tmp_path, monkeypatch, library, tta):
    predictor = Predictor(run_folder if library == "torch" else write_onnx(tmp_path / "a.onnx"), tta=tta)
    image = smooth((150, 120))
    whole = predictor.predict(image)
    expected = whole.ids, whole.confidence, whole.marginals(1)
    monkeypatch.setattr(predict_module, "WHOLE", 0)
    monkeypatch.setattr(predict_module, "BAND", 7 * 120 * 13)
    banded = predictor.predict(image)
    assert len(list(banded._bands())) == 12
    assert (banded.ids == expected[0]).mean() > 0.999
    np.testing.assert_allclose(banded.confidence, expected[1], atol=2e-4)
    np.testing.assert_allclose(banded.marginals(1), expected[2], atol=2e-4)


def test_a_closer_look_and_what_cannot_be_looked_at(tmp_path):
    network = write_onnx(tmp_path / "a.onnx")
    assert Predictor(network, size=2).plan.framing.size == (64, 128)
    assert Predictor(network, size="1.5").plan.framing.size == (48, 96)
    assert Predictor(network, size="40x50").plan.framing.size == (40, 50)
    assert Predictor(network, size=[40, 50], tile="64x96").tiling.side == (64, 96)
    for wrong, said in ((-1, "size"), ("0", "multiple"), ("wide", "size"), (500, "multiple"), ("1x2x3", "size")):
        with pytest.raises(InputError, match=said):
            Predictor(network, size=wrong)
    for wrong in (0, "x", 8, "64x"):
        with pytest.raises(InputError, match="tile"):
            Predictor(network, tile=wrong)
    with pytest.raises(InputError, match="decode 'best'"):
        Predictor(network, decode="best")


def test_twelve_megapixels_within_two_gigabytes_and_without_fastai(run_folder):
    code = f"""
import resource, sys, numpy as np
from fastseg import Predictor
p = Predictor({str(run_folder)!r}).predict(np.full((3000, 4000, 3), 90, np.uint8))
assert p.ids.shape == p.confidence.shape == (3000, 4000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, sorted({{'fastai', 'matplotlib'}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    peak, loaded = done.stdout.split(maxsplit=1)
    assert int(peak) < 2e9
    assert loaded.strip() == "[]"

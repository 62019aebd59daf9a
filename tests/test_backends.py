import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from exporting import made_run
from onnx_files import CARD, with_export, write_onnx

from fastseg.errors import InputError
from fastseg.inference.backends import open_backend
from fastseg.inference.predict import Predictor

IMAGES = np.random.default_rng(0).normal(0, 1, (2, 3, 32, 64)).astype(np.float32)
PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (50, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("runs") / "run", "nowhere")


def openvino_file(path, **export):
    """The same network as OpenVINO keeps it."""
    import openvino

    model = openvino.Core().read_model(write_onnx(path.with_suffix(".onnx"), **export))
    model.set_rt_info(json.dumps(with_export(CARD, format="openvino", **export)), "fastseg")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def test_a_run_folder_gives_its_networks_logits(run_folder):
    backend = open_backend(run_folder, device="cpu")
    from fastseg.inference.evaluate import load_model
    from fastseg.run import Run

    with torch.inference_mode():
        expected = load_model(Run.open(run_folder)).cpu()(torch.from_numpy(IMAGES)).numpy()
    got = backend.logits(IMAGES)
    assert (backend.name, backend.library, got.dtype, got.shape) == ("torch", "torch", np.float32, (2, 7, 32, 64))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("make", [write_onnx, openvino_file])
def test_files_give_their_networks_logits(make, tmp_path):
    backend = open_backend(make(tmp_path / f"file.{'onnx' if make is write_onnx else 'xml'}"), threads=1)
    weights = np.arange(21, dtype=np.float32).reshape(7, 3) % 5 - 2
    np.testing.assert_allclose(backend.logits(IMAGES), np.einsum("ck,nkhw->nchw", weights, IMAGES), atol=1e-5)
    assert backend.logits(IMAGES[:1, :, :, ::2]).shape == (1, 7, 32, 32)
    assert backend.card["classes"][1] == "low_hand"
    assert (backend.size, backend.preprocessing, backend.library) == (None, False, "numpy")


@pytest.mark.parametrize("make", [write_onnx, openvino_file])
def test_files_with_their_preprocessing_give_ids_and_confidence_alone(make, tmp_path):
    path = make(tmp_path / f"file.{'onnx' if make is write_onnx else 'xml'}", preprocessing=True)
    found = Predictor(path).predict(PHOTOGRAPH)
    assert (found.ids == (PHOTOGRAPH[..., 0] > PHOTOGRAPH[..., 1])).all()
    np.testing.assert_allclose(found.confidence, PHOTOGRAPH[..., 0] / 255, atol=1e-6)
    assert (found.level(0) == found.ids).all()
    with pytest.raises(InputError, match="ids and confidence alone"):
        found.marginals(0)
    for wish in ({"decode": "path"}, {"tta": "flip"}, {"size": 2}, {"tile": 64}):
        with pytest.raises(InputError, match="need a file without"):
            Predictor(path, **wish)


def test_a_file_of_one_size_looks_closer_in_tiles_of_it(tmp_path):
    path = write_onnx(tmp_path / "fixed.onnx", size=[32, 64])
    whole = write_onnx(tmp_path / "free.onnx")
    assert (Predictor(path).predict(PHOTOGRAPH).ids == Predictor(whole).predict(PHOTOGRAPH).ids).all()
    closer, free = Predictor(path, size=3), Predictor(whole, size=3)
    assert closer.tiling.fixed
    assert (closer.predict(PHOTOGRAPH).ids == free.predict(PHOTOGRAPH).ids).mean() > 0.999
    with pytest.raises(InputError, match="32x64 or more"):
        Predictor(path, tta="0.5,1")
    with pytest.raises(InputError, match="its tiles are that"):
        Predictor(path, tile=64)


def test_an_onnx_file_needs_neither_torch_nor_fastai(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    code = f"""
import sys, numpy as np
from fastseg import Predictor
for tta, decode in ((None, "leaf"), ("flip,0.5", "top_down")):
    p = Predictor({str(path)!r}, tta=tta, decode=decode).predict(np.full((50, 40, 3), 90, np.uint8))
    assert p.ids.shape == p.confidence.shape == (50, 40) and p.marginals(0).shape == (2, 50, 40)
loaded = {{'torch', 'torchvision', 'fastai', 'matplotlib', 'scipy'}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_is_no_network(run_folder, tmp_path, monkeypatch):
    import onnx

    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "broken.xml").write_bytes(b"nothing")
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    bare = onnx.load(write_onnx(tmp_path / "bare.onnx"))
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    write_onnx(tmp_path / "later.onnx", card=CARD | {"format": 99})
    faults = {"notes.txt": "neither a run folder nor", "absent.onnx": "no such file", ".": "no model.json",
              "broken.onnx": "not readable by ONNX Runtime", "broken.xml": "not readable by OpenVINO",
              "broken.pt2": "not readable", "bare.onnx": "no card", "later.onnx": "format 99"}  # fmt: skip
    for name, said in faults.items():
        with pytest.raises(InputError, match=said) as caught:
            open_backend(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="device 'abacus'"):
        open_backend(run_folder, device="abacus")
    for package, suffix, extra in (("onnxruntime", "onnx", "onnx"), ("openvino", "xml", "openvino")):
        monkeypatch.setitem(sys.modules, package, None)
        (tmp_path / f"x.{suffix}").write_bytes(b"")
        with pytest.raises(InputError, match=rf"pip install 'fastseg-parts\[{extra}\]'"):
            open_backend(tmp_path / f"x.{suffix}")

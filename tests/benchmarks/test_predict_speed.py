"""What a folder of masks costs beside its network; `pytest tests/benchmarks/test_predict_speed.py -m slow -s`."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from timing import paired

from fastseg.inference.predict import Predictor
from fastseg.inference.predict_files import predict_files

pytestmark = pytest.mark.slow
COUNT, SIZE, BATCH = 200, 256, 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """FPN-lite0 at 256x256, as it is drawn."""
    from fastseg.config import load_config
    from fastseg.learning.learner import seg_learner

    folder = tmp_path_factory.mktemp("speed")
    from fastseg.data.sample import draw_sample
    from fastseg.experiments.train import save_run

    root = draw_sample(folder / "drawn", 8, COUNT, (SIZE, SIZE), seed=0)
    cfg = load_config({"data": {"root": str(root), "size": SIZE, "limit_valid": 1}, "train": {"batch_size": BATCH},
                       "model": {"weights": "none"}})  # fmt: skip
    return save_run(seg_learner(cfg), folder / "run")


@pytest.fixture(scope="module")
def photographs(run, tmp_path_factory):
    """Two hundred drawn photographs of 256x256."""
    from fastseg.run import Run

    root = tmp_path_factory.mktemp("photographs")
    from pathlib import Path

    cfg = Run.open(run).cfg
    for name in (Path(cfg.data.root) / cfg.data.valid_ids).read_text().split():
        with Image.open(Path(cfg.data.root) / cfg.data.images / f"{name}.jpg") as image:
            image.convert("RGB").resize((SIZE, SIZE)).save(root / f"{name}.jpg", quality=90)
    return root


def test_a_folder_of_masks_beside_the_bare_network(run, photographs, tmp_path):
    """Reading, deciding, masks, overlays and areas by the network alone, on frames that are ready in memory."""
    predictor = Predictor(run, batch_size=BATCH)
    paths = sorted(photographs.iterdir())
    assert len(paths) == COUNT
    frames = [torch.stack([predictor.prepare(path).frames[0] for path in paths[at : at + BATCH]])
              for at in range(0, COUNT, BATCH)]  # fmt: skip

    @torch.inference_mode()
    def bare():
        for batch in frames:
            predictor._network(batch)

    def whole():
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert predict_files(predictor, [photographs], tmp_path / "out").made == COUNT

    ratio = paired(whole, bare, 5)
    print(f"\n{COUNT} photographs, ids and overlays: {1 / ratio:.3f} of the bare network's throughput (at least 0.9)")
    assert 1 / ratio >= 0.9


def test_the_first_mask_of_an_onnx_file_in_a_new_process(run, tmp_path):
    """Printed, beside what an interpreter with NumPy, Pillow and ONNX Runtime takes to start."""
    import onnx
    from onnx_files import write_onnx

    path = write_onnx(tmp_path / "a.onnx")
    assert onnx.load(path).graph.node
    photograph = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)).save(photograph)
    whole = f"from fastseg import Predictor; Predictor({str(path)!r}).predict({str(photograph)!r}).ids"

    def seconds(code):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    seconds(whole)
    found = [(seconds(whole), seconds("import numpy, PIL.Image, onnxruntime")) for _ in range(5)]
    first, bare = (sorted(column)[2] for column in zip(*found, strict=True))
    print(f"\nfirst mask of an ONNX file: {first:.2f} s in all (1), of which its packages' imports {bare:.2f} s")
    assert first < 1 or first < 3 * bare

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from exporting import made_run

from fastseg.inference import latency
from fastseg.inference.latency import main, opened, peak_memory, timed
from fastseg.learning.model import trained_model
from fastseg.run import Run


def test_medians_of_single_photographs_and_the_rate_of_batches(monkeypatch):
    clock, shapes = [0.0], []

    def run(images):
        shapes.append(len(images))
        # Every tenth call is slow; a batch of four takes as long as two photographs.
        clock[0] += 0.1 if len(shapes) % 10 == 0 else 0.01 * max(1, len(images) / 2)
        return images

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    frames = np.zeros((3, 3, 4, 4), np.float32)
    found = timed(run, frames, repeats=20, batch=4)
    assert shapes == [1] * (5 + 20) + [4] * 6
    assert found["p50_ms"] == pytest.approx(10)
    assert found["p95_ms"] == pytest.approx(100, rel=0.2)
    assert found["photographs_per_second"] == pytest.approx(200)
    assert found["peak_mb"] > 10


def test_memory_is_that_of_the_process_alone():
    """A small process that a large one starts is small."""
    code = """
import numpy as np
from fastseg.inference.latency import peak_memory
before = peak_memory()
block = np.ones(80_000_000, np.uint8)
print(before, peak_memory() - before)
"""
    held = np.ones(200_000_000, np.uint8)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    before, more = map(int, done.stdout.split())
    assert held.nbytes < peak_memory()
    assert before < 120e6
    assert 70e6 < more < 100e6


def test_ways_of_pytorch_give_the_same_logits(drawn, tmp_path, capsys, monkeypatch):
    import torch

    run = made_run(tmp_path / "run", drawn)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = trained_model(Run.open(run))(torch.from_numpy(images)).numpy()
    before = torch.get_num_threads()
    for kind in ("eager", "channels_last"):
        np.testing.assert_allclose(opened(kind, str(run), threads=1)(images), expected, atol=1e-3)
        assert torch.get_num_threads() == 1
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    opened("compiled", str(run), threads=before)
    assert len(compiled) == 1
    np.save(tmp_path / "frames.npy", images)
    asked = {"kind": "eager", "source": str(run), "frames": str(tmp_path / "frames.npy"), "threads": before,
             "repeats": 2, "batch": 2, "logits": str(tmp_path / "logits.npy")}  # fmt: skip
    main([json.dumps(asked)])
    assert set(json.loads(capsys.readouterr().out)) == {"p50_ms", "p95_ms", "photographs_per_second", "peak_mb"}
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-3)


def test_a_files_runtime_is_opened_without_torch(monkeypatch):
    from types import SimpleNamespace

    from fastseg.inference import backends

    seen = []
    monkeypatch.setattr(backends, "open_backend", lambda source, threads: seen.append((source, threads))
                        or SimpleNamespace(logits=len))  # fmt: skip
    assert latency.opened("int8", "net.onnx", 3) is len
    assert seen == [("net.onnx", 3)]

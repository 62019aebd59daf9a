import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from exporting import made_run

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference import benchmark as module
from fastseg.inference.benchmark import benchmark
from fastseg.inference.evaluate import evaluate
from fastseg.inference.tables import benchmark_table

PRETENDED = {"eager": 30.0, "channels_last": 20.0, "onnxruntime": 10.0}


@pytest.fixture
def run(drawn, tmp_path):
    return made_run(tmp_path / "run", drawn)


@pytest.fixture
def pretended(monkeypatch):
    """Processes that answer at once, with PyTorch's logits; `compiled` has no compiler."""
    asked = []

    def process(command, **kwargs):
        from fastseg.inference.latency import opened

        one = json.loads(command[-1])
        asked.append((one, kwargs["env"]["OMP_NUM_THREADS"]))
        if one["kind"] not in PRETENDED:
            return SimpleNamespace(returncode=1, stdout="", stderr="Traceback …\n\nRuntimeError: no compiler\n")
        frames = np.load(one["frames"])
        np.save(one["logits"], opened("eager", one["source"], 1)(frames))
        numbers = {"p50_ms": PRETENDED[one["kind"]], "p95_ms": 40.0, "photographs_per_second": 50.0, "peak_mb": 200.0}
        return SimpleNamespace(returncode=0, stdout="a compiler speaks\n" + json.dumps(numbers) + "\n", stderr="")

    monkeypatch.setattr(module.subprocess, "run", process)
    monkeypatch.setattr(module._Rows, "_source", lambda self, kind: self.work.run.path)
    return asked


def test_rows_are_sorted_scored_and_written(run, pretended):
    rows = benchmark(run, threads=2, repeats=7, kinds=["eager", "compiled", "onnxruntime", "channels_last"])
    assert [row["runtime"] for row in rows] == ["onnxruntime", "channels_last", "eager", "compiled"]
    scores = evaluate(run, write=False)
    for row in rows[:3]:
        assert [row[f"miou{i}"] for i in range(3)] == pytest.approx([scores[f"miou{i}"] for i in range(3)], abs=1e-3)
        assert (row["size"], row["threads"], row["note"]) == ("32x64", 2, "")
    assert rows[3]["note"] == "cannot run here (RuntimeError: no compiler)"
    assert rows[3]["p50_ms"] is rows[3]["miou2"] is None
    assert {(one["threads"], one["repeats"], threads) for one, threads in pretended} == {(2, 7, "2")}
    with (run / "benchmark.csv").open() as file:
        stored = list(csv.DictReader(file))
    assert [row["runtime"] for row in stored] == [row["runtime"] for row in rows]
    assert float(stored[0]["p50_ms"]) == 10
    table = benchmark_table(rows).splitlines()
    assert table[0].split() == ["p50", "ms", "p95", "ms", "photos/s", "peak", "MB", "miou0", "miou1", "miou2"]
    assert [line.split()[0] for line in table[1:]] == ["onnxruntime", "channels_last", "eager", "compiled:"]


def test_another_size(run, pretended):
    rows = benchmark(run, "48x40", kinds=["eager"])
    assert rows[0]["size"] == "48x40"


def test_what_is_refused(run, capsys):
    assert main(["benchmark", str(run), "--threads", "0"]) == 2
    assert "whole numbers from 1" in capsys.readouterr().err
    assert main(["benchmark", str(run), "--size", "dynamic"]) == 2
    assert "size: 'dynamic'" in capsys.readouterr().err
    with pytest.raises(InputError, match="kind 'tensorrt' is none of eager"):
        benchmark(run, kinds=["tensorrt"])


@pytest.mark.slow
def test_all_runtimes_in_processes_of_their_own(run):
    rows = benchmark(run, threads=1, repeats=5)
    assert {row["runtime"] for row in rows} == set(module.KINDS)
    by = {row["runtime"]: row for row in rows}
    assert not [row for row in rows if row["note"] and row["runtime"] != "compiled"]
    for kind in ("channels_last", "onnxruntime", "openvino"):
        assert by[kind]["miou2"] == pytest.approx(by["eager"]["miou2"], abs=1e-3)
    # A process of ONNX Runtime holds no torch.
    assert by["onnxruntime"]["peak_mb"] < 0.6 * by["eager"]["peak_mb"]

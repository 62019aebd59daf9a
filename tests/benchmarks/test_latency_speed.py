"""One photograph at 256x256 through FPN-lite0 in every runtime; `pytest tests/benchmarks -m slow -s` prints it."""

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from exporting import made_run

from fastseg.inference.benchmark import benchmark
from fastseg.inference.tables import benchmark_table

pytestmark = pytest.mark.slow
FLOAT = ("eager", "channels_last", "compiled", "onnxruntime", "openvino")
ROUNDS = 3


def test_other_runtimes_beside_eager_pytorch(drawn, tmp_path):
    """Two threads, each runtime in a process of its own, medians of 30; of three rounds the middle ratio."""
    run = made_run(tmp_path / "run", drawn, arch=[], size="256x256")
    onnx, best = [], []
    for _ in range(ROUNDS):
        rows = benchmark(run, threads=2, kinds=[*FLOAT, "int8"] if not onnx else FLOAT)
        print("\n" + benchmark_table(rows))
        spent = {row["runtime"]: row["p50_ms"] for row in rows if not row["note"]}
        onnx.append(spent["onnxruntime"] / spent["eager"])
        best.append(min(spent[kind] for kind in FLOAT if kind in spent) / spent["eager"])
    print(f"ONNX Runtime {statistics.median(onnx):.2f} × eager (0.65), the best {statistics.median(best):.2f} × (0.6)")
    assert statistics.median(onnx) <= 0.65
    assert statistics.median(best) <= 0.6

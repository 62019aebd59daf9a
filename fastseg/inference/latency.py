"""Times one way of running a network, in a process that loads no more than that way needs.

`python -m fastseg.inference.latency '{"kind": "onnxruntime", "source": …}'` prints the numbers as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TORCH = ("eager", "channels_last", "compiled")
WARM, ROUNDS = 5, 5
Logits = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str]) -> None:
    """Time what the JSON argument asks for: kind, source, frames (.npy), threads, repeats, batch, logits (.npy)."""
    asked = json.loads(argv[0])
    run = opened(asked["kind"], asked["source"], asked["threads"])
    frames = np.load(asked["frames"], mmap_mode="r", allow_pickle=False)
    found = timed(run, frames, asked["repeats"], asked["batch"])
    if asked.get("logits"):
        # After all is timed and the memory is read.
        logits = [run(np.array(frames[i : i + 1]))[0] for i in range(len(frames))]
        np.save(asked["logits"], np.stack(logits))
    print(json.dumps(found))


def opened(kind: str, source: str, threads: int) -> Logits:
    """(N, 3, h, w) → logits: PyTorch as it is (`eager`), `channels_last`, `compiled`, or the runtime of a file."""
    if kind not in TORCH:
        from fastseg.inference.backends import open_backend

        return open_backend(source, threads).logits
    import torch

    from fastseg.learning.model import mask_logits, trained_model
    from fastseg.run import Run

    torch.set_num_threads(threads)
    model = trained_model(Run.open(source))
    if kind == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    elif kind == "compiled":
        model.compile()
    network = mask_logits(model)

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return logits


def timed(run: Logits, frames: np.ndarray, repeats: int, batch: int) -> dict[str, Any]:
    """Latencies of photographs one by one, memory at its highest, and photographs a second in batches."""
    singles = [np.array(frames[i % len(frames)][None]) for i in range(min(repeats, 8))]
    for i in range(WARM):
        run(singles[i % len(singles)])
    spent = [_seconds(run, singles[i % len(singles)]) for i in range(repeats)]
    peak = peak_memory()
    many = np.concatenate([singles[i % len(singles)] for i in range(batch)])
    run(many)
    together = [_seconds(run, many) for _ in range(ROUNDS)]
    half, most = 1000 * np.quantile(spent, [0.5, 0.95])
    return {"p50_ms": round(float(half), 2), "p95_ms": round(float(most), 2),
            "photographs_per_second": round(batch / float(np.median(together)), 2),
            "peak_mb": round(peak / 1e6, 1)}  # fmt: skip


def peak_memory() -> int:
    """Bytes that this process had in memory at most."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not `getrusage`, which counts what the parent had when it started this process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _seconds(run: Logits, images: np.ndarray) -> float:
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])

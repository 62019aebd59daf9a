"""How fast a run is in every runtime, and how good it stays there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastseg.data.machine import cores
from fastseg.errors import InputError
from fastseg.inference.export import TOLERANCES, Wish, Work, photographs
from fastseg.inference.formats import write_onnx, write_openvino
from fastseg.inference.latency import TORCH
from fastseg.inference.parity import level_means
from fastseg.run import Run
from fastseg.writing import write_rows

SCORED_ON, BATCH = 32, 8
FILE = "benchmark.csv"
KINDS = (*TORCH, "onnxruntime", "openvino", "int8", "openvino_int8")
Told = Callable[[str], None]


def benchmark(
    run: str | Path | Run,
    size: str | Sequence[int] | None = None,
    threads: int | None = None,
    repeats: int = 30,
    *,
    kinds: Sequence[str] = KINDS,
    root: str | Path | None = None,
    overrides: Sequence[str] = (),
    told: Told = lambda text: None,
) -> list[dict[str, Any]]:
    """Rows of a table, fastest first, also written into the run's folder as `benchmark.csv`.

    One for each of `kinds`: PyTorch as it is, in channels_last, and compiled; ONNX Runtime, OpenVINO; int8 in both.
    Each runs in a process of its own: `repeats` photographs one by one (median and 95th percentile, milliseconds, from
    a normalised array to logits), batches of 8 (photographs a second), memory at its highest, and the mean IoU of every
    level on up to 32 validation photographs, or all that `root` or `overrides` ask for. What a machine cannot run has
    the reason in `note`. Raises `InputError` for a size that the architecture does not take, and for missing data.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if repeats < 1 or (threads is not None and threads < 1):
        raise InputError("benchmark: --repeats and --threads are whole numbers from 1")
    if strange := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"kind {strange[0]!r} is none of {', '.join(KINDS)}")
    if size == "dynamic":
        raise InputError("size: 'dynamic' is no size to time; write HxW, as 192x128")
    wish = Wish.of(run, "onnx", any("int8" in kind for kind in kinds), size, preprocessing=False)
    work = Work(run, wish, *photographs(run, root, overrides, wish, SCORED_ON), told)
    threads = threads or cores()
    with tempfile.TemporaryDirectory() as folder:
        rows = _Rows(work, Path(folder), threads, repeats)
        found = [rows.row(kind) for kind in kinds]
    found.sort(key=lambda row: (bool(row["note"]), row["p50_ms"] or 0))
    write_rows(run.path / FILE, found)
    return found


class _Rows:
    """Measures one kind after the other; files are made when a kind first needs them."""

    def __init__(self, work: Work, folder: Path, threads: int, repeats: int):
        self.work, self.folder, self.threads, self.repeats = work, folder, threads, repeats
        self.batches = list(work.batches(work.names))
        self.frames = folder / "frames.npy"
        np.save(self.frames, np.concatenate([batch.images[0].numpy() for batch in self.batches]))

    def row(self, kind: str) -> dict[str, Any]:
        """Numbers of one kind, or why there are none."""
        self.work.told(f"timing {kind}")
        empty = {"p50_ms": None, "p95_ms": None, "photographs_per_second": None, "peak_mb": None}
        empty |= {f"miou{level}": None for level in range(self.work.plan.tree.depth)}
        head = {"runtime": kind, "size": "x".join(map(str, self.work.size)), "threads": self.threads}
        try:
            return {**head, **empty, **self._measured(kind), "note": ""}
        except InputError as error:
            return {**head, **empty, "note": str(error).splitlines()[0]}

    def _measured(self, kind: str) -> dict[str, Any]:
        logits = self.folder / f"{kind}.npy"
        asked = {"kind": kind, "source": str(self._source(kind)), "frames": str(self.frames), "threads": self.threads,
                 "repeats": self.repeats, "batch": BATCH, "logits": str(logits)}  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run([sys.executable, "-m", "fastseg.inference.latency", json.dumps(asked)],
                              capture_output=True, text=True, env=env, check=False)  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
            raise InputError(f"cannot run here ({said[-1][:160]})")
        # Compilers may write to stdout before the numbers.
        numbers = json.loads(done.stdout.strip().splitlines()[-1])
        means = self._means(np.load(logits, mmap_mode="r", allow_pickle=False))
        logits.unlink()
        return {**numbers, **{f"miou{i}": None if np.isnan(v) else round(float(v), 4) for i, v in enumerate(means)}}

    def _means(self, logits: np.ndarray) -> np.ndarray:
        parts, at = [], 0
        for batch in self.batches:
            parts.append(torch.from_numpy(np.array(logits[at : at + len(batch.masks)])))
            at += len(batch.masks)
        stored = iter(parts)
        return level_means(lambda _: next(stored), self.work.plan, self.batches)

    def _source(self, kind: str) -> Path:
        if kind in TORCH:
            return self.work.run.path
        path = self.folder / {"onnxruntime": "float.onnx", "openvino": "float.xml", "int8": "quantised.onnx",
                              "openvino_int8": "quantised.xml"}[kind]  # fmt: skip
        if path.is_file():
            return path
        if path.suffix == ".xml":
            source = self._source("int8" if "int8" in kind else "onnxruntime")
            write_openvino(source, self._card("openvino", kind), path)
        elif kind == "int8":
            made, _ = self.work.quantise(self._source("onnxruntime"), self.folder, TOLERANCES["int8"])
            made.replace(path)
        else:
            write_onnx(self.work.network, self._card("onnx", kind), path, self.work.size)
        return path

    def _card(self, format: str, kind: str) -> dict[str, Any]:
        wish = replace(self.work.wish, format=format, int8="int8" in kind)
        return {**self.work.run.card, "export": wish.card}

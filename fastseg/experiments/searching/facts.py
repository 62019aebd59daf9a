"""What a trial's run folder tells: its score, the network's size and speed; and what of it need not be kept."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from fastseg.run import ENVIRONMENT, HISTORY, LAST, METRICS, TIMING, WEIGHTS


def facts_of(run: Path, metric: str) -> dict[str, Any]:
    """Of a finished run: `value`, the metric in the history's row of the kept epoch; scores at native size; numbers.

    `photographs_per_second` are those trained and validated in an epoch by its median time.
    """
    scores, found = _json(run / METRICS), _json(run / ENVIRONMENT)
    rows, seconds = _rows(run / HISTORY), [float(row["seconds"]) for row in _rows(run / TIMING)]
    kept = scores["epoch"]
    photographs = [n for n in (found.get("photographs") or {}).values() if n]
    speed = sum(photographs) / median(seconds) if photographs and seconds and median(seconds) else None
    return {
        "value": float(rows[kept - 1][metric]),
        "epoch": kept,
        "parameters": found.get("parameters"),
        "photographs_per_second": speed and float(f"{speed:.3g}"),
        "seconds": round(sum(seconds), 2),
        "peak_memory_mib": max((found.get("peak_memory_mib") or {}).values(), default=None),
        "native": {key: value for key, value in scores.items() if key.startswith("miou")},
        "interval": (scores.get("intervals") or {}).get(metric),
    }


def strip(run: Path, weights: bool = True) -> None:
    """Remove the checkpoints of a run that nobody goes on with and, unless told otherwise, its weights."""
    shutil.rmtree(run / LAST, ignore_errors=True)
    (run / ".lock").unlink(missing_ok=True)
    if weights:
        (run / WEIGHTS).unlink(missing_ok=True)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

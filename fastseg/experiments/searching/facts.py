"""What a trial's run folder tells: its score, the network's size and speed; and what of it need not be kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fastseg.run import ENVIRONMENT, HISTORY, LAST, METRICS, TIMING, WEIGHTS, read_columns, read_json


def facts_of(run: Path, metric: str) -> dict[str, Any]:
    """Of a finished run: `value`, the metric in the history's row of the kept epoch; scores at native size; numbers.

    `photographs_per_second` are those trained and validated in an epoch by its median time.
    """
    scores, found = read_json(run / METRICS), read_json(run / ENVIRONMENT)
    seconds, kept = read_columns(run / TIMING)["seconds"], scores["epoch"]
    value = read_columns(run / HISTORY)[metric][kept - 1]
    photographs = (found.get("photographs") or {}).values()
    return {
        "value": math.nan if value is None else value,
        "epoch": kept,
        **size_and_speed(found.get("parameters"), photographs, seconds),
        "peak_memory_mib": max((found.get("peak_memory_mib") or {}).values(), default=None),
        "native": {key: value for key, value in scores.items() if key.startswith("miou")},
        "interval": (scores.get("intervals") or {}).get(metric),
    }


def size_and_speed(
    parameters: int | None, photographs: Iterable[int | None], seconds: Sequence[float]
) -> dict[str, Any]:
    """Facts that a pruned trial has, too; of the photographs of an epoch, and the seconds of each."""
    count, usual = sum(n or 0 for n in photographs), median(seconds) if seconds else 0
    speed = float(f"{count / usual:.3g}") if count and usual else None
    return {"parameters": parameters, "photographs_per_second": speed, "seconds": round(sum(seconds), 2)}


def strip(run: Path, weights: bool = True) -> None:
    """Remove the checkpoints of a run that nobody goes on with and, unless told otherwise, its weights."""
    shutil.rmtree(run / LAST, ignore_errors=True)
    (run / ".lock").unlink(missing_ok=True)
    if weights:
        (run / WEIGHTS).unlink(missing_ok=True)

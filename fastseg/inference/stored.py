"""Counts of photographs on disk, so that runs can be compared without counting again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fastseg.inference.scores import Counts
from fastseg.run import WEIGHTS, Run
from fastseg.writing import whole

SCORES = "scores"


def count_marks(named: Mapping[str, Any], masks: str, weights: Path) -> dict[str, Any]:
    """What tells whether counts are still those of the same weights and files; `named` are the scores' own words."""
    keys = ("protocol", "decode", "tta", "split", "data")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {**{key: named[key] for key in keys}, "masks": masks, "weights": digest}


def write_counts(path: Path, counts: Counts, marks: Mapping[str, Any]) -> None:
    """Write counts as `.npz` under a temporary name, then rename it; `marks` say what they are of."""
    arrays = {"names": np.array(counts.names), "matrices": counts.matrices, "marks": np.array(json.dumps(dict(marks)))}
    with whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_counts(path: Path, marks: Mapping[str, Any]) -> Counts | None:
    """Counts from a file, without boundaries; None where there is none, or it is of something else than `marks`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if json.loads(str(stored["marks"])) != dict(marks):
                return None
            return Counts(stored["names"].tolist(), stored["matrices"])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None


def counts_path(run: Run, scores: Mapping[str, Any]) -> Path:
    """Where the counts behind a run's own scores lie: for those of files, where `evaluate` puts its own."""
    stem = f"{scores['split'] if scores['data'] else 'own'}-{scores['protocol']}-{scores['decode']}"
    return run.path / SCORES / f"{stem}.npz"


def keep_counts(run: Run, scores: Mapping[str, Any], counts: Counts) -> None:
    """Write what a run's own scores were counted from, so that `compare` and the report need not count again."""
    path = counts_path(run, scores)
    path.parent.mkdir(exist_ok=True)
    write_counts(path, counts, count_marks(scores, run.cfg.data.masks, run.path / WEIGHTS))


def kept_counts(run: Run, scores: Mapping[str, Any]) -> Counts | None:
    """What `keep_counts` wrote; None where it is not there, or the weights are no longer the same."""
    return read_counts(counts_path(run, scores), count_marks(scores, run.cfg.data.masks, run.path / WEIGHTS))

"""Counts of photographs on disk, so that runs can be compared without counting again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fastseg.inference.scores import Counts


def write_counts(path: Path, counts: Counts, marks: Mapping[str, Any]) -> None:
    """Write counts as `.npz` under a temporary name, then rename it; `marks` say what they are of."""
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    arrays = {"names": np.array(counts.names), "matrices": counts.matrices, "marks": np.array(json.dumps(dict(marks)))}
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def read_counts(path: Path, marks: Mapping[str, Any]) -> Counts | None:
    """Counts from a file, without boundaries; None where there is none, or it is of something else than `marks`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if json.loads(str(stored["marks"])) != dict(marks):
                return None
            return Counts(stored["names"].tolist(), stored["matrices"])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None

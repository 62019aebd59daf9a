"""The best, the median and the worst photographs of a run, small copies of which stay in its folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.hierarchy import Hierarchy
from fastseg.inference.scores import own_means
from fastseg.writing import write_json

FOLDER, INDEX = "examples", "index.json"
EACH, SIDE = 3, 400
GROUPS = ("best", "median", "worst")


@dataclass(frozen=True)
class Example:
    """A photograph (H, W, 3) uint8 with true and predicted leaf ids (H, W) uint8, its group and its own mean IoU."""

    name: str
    group: str
    score: float
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def choose(tree: Hierarchy, matrices: np.ndarray) -> list[tuple[str, int, float]]:
    """(group, place, score) of the photographs with the highest, the middle and the lowest mean IoU of their own.

    The mean is over the deepest level, as for `worst` in the scores; each photograph is chosen once.
    """
    own = own_means(tree, matrices)
    order = [int(i) for i in np.argsort(-own, kind="stable") if np.isfinite(own[i])]
    each = min(EACH, max(1, len(order) // len(GROUPS)))
    middle = (len(order) - each) // 2
    parts = (order[:each], order[middle : middle + each], order[::-1][:each])
    chosen: dict[int, str] = {}
    # The ends first: where photographs are few, there is no middle.
    for group in ("best", "worst", "median"):
        for i in parts[GROUPS.index(group)]:
            chosen.setdefault(i, group)
    return sorted(((group, i, float(own[i])) for i, group in chosen.items()), key=lambda c: (GROUPS.index(c[0]), -c[2]))


def write_examples(run: Path, examples: Sequence[Example]) -> None:
    """Write them as JPEG and PNG of leaf ids, at most 400 pixels a side, in the place of earlier ones."""
    part = run / f"{FOLDER}.part{os.getpid()}"
    part.mkdir()
    index = []
    for i, one in enumerate(examples, 1):
        high, wide = one.image.shape[:2]
        scale = min(1.0, SIDE / max(high, wide))
        size = (max(1, round(wide * scale)), max(1, round(high * scale)))
        Image.fromarray(one.image).resize(size, Image.Resampling.BOX).save(part / f"{i}.jpg", quality=85)
        for kind, ids in (("truth", one.truth), ("prediction", one.predicted)):
            Image.fromarray(ids).resize(size, Image.Resampling.NEAREST).save(part / f"{i}-{kind}.png")
        index.append({"name": one.name, "group": one.group, "score": one.score})
    write_json(part / INDEX, index)
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    part.replace(run / FOLDER)


def read_examples(run: Path) -> list[Example]:
    """What `write_examples` wrote; none where a file is missing or damaged."""
    folder, found = run / FOLDER, []
    try:
        for i, entry in enumerate(json.loads((folder / INDEX).read_text(encoding="utf-8")), 1):
            image = np.asarray(Image.open(folder / f"{i}.jpg").convert("RGB"))
            masks = [np.asarray(Image.open(folder / f"{i}-{kind}.png")) for kind in ("truth", "prediction")]
            found.append(Example(entry["name"], entry["group"], entry["score"], image, *masks))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found

"""Runs against one another, photograph by photograph: how large a difference is, and how sure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.evaluate import Trial, check_definition, scores_folder
from fastseg.inference.scores import CONFIDENCE, DRAWS, Counts, interval, nodes, number, resamplings, weighted_scores
from fastseg.inference.stored import write_counts


def compare(
    runs: Sequence[str | Path],
    root: str | Path | None = None,
    split: str | Path = "valid",
    progress: Callable[[int, int], None] | None = None,
    *,
    definition: str = "dataset",
    **choices: Any,
) -> dict[str, Any]:
    """Scores of several runs on the same photographs, and how the later ones differ from the first.

    Arguments are those of `evaluate`. What an earlier `evaluate` counted on the same files is used again, the rest is
    counted now. The result holds `runs`, what the scores are called by, for each run its `scores` (`miou0` …,
    `pixel_accuracy`, `classes`) and for each but the first its `differences` to it: `value` and a 95 % `interval` from
    resampling photographs, the same ones for both runs. Raises `InputError` for fewer than two runs, runs of other
    trees, and photographs or masks that are not the same.
    """
    check_definition(definition)
    if len(runs) < 2:
        raise InputError("compare: give two runs or more; the first is what the others are compared with")
    trials = [Trial.of(run, root, split, **choices) for run in runs]
    tree = trials[0].run.hierarchy
    for trial in trials[1:]:
        if trial.run.hierarchy != tree:
            raise InputError(f"{trial.run.path}: its class tree is not that of {trials[0].run.path}")
        if trial.names != trials[0].names:
            raise InputError(f"{trial.run.path}: its {split} ids are not those of {trials[0].run.path}; "
                             "give both one --data.root, and one --split FILE")  # fmt: skip
    counted = [_counts(trial, progress) for trial in trials]
    for trial, counts in zip(trials[1:], counted[1:], strict=True):
        differs = np.flatnonzero((counts.matrices.sum(2) != counted[0].matrices.sum(2)).any(1))
        if len(differs):
            why = "runs of other sizes can only be compared at native size" if trial.plan.protocol == "resized" else (
                "give both one --data.root")  # fmt: skip
            raise InputError(f"{trial.run.path}: {counts.names[differs[0]]} has another mask there; {why}")
    found = differences(tree, counted, definition)
    named = {"definition": definition, **trials[0].named, "images": len(trials[0].names)}
    for entry, trial in zip(found["differences"], trials[1:], strict=True):
        entry["run"] = str(trial.run.path)
    return {"runs": [str(trial.run.path) for trial in trials], **named, **found}


def differences(tree: Hierarchy, counted: Sequence[Counts], definition: str = "dataset") -> dict[str, Any]:
    """`scores` of each counts, `differences` of the later ones to the first, and the intervals' `confidence`."""
    images = len(counted[0].names)
    weights = resamplings(images) if images > 1 else np.zeros((0, images))
    points, draws = [], []
    for counts in counted:
        points.append(_values(tree, counts, definition, np.ones((1, images))))
        draws.append(_values(tree, counts, definition, weights))
    keys = [f"miou{level}" for level in range(tree.depth)] + ["pixel_accuracy"]
    names = [name for _, _, name in nodes(tree)]

    def delta(other: int, i: int) -> dict[str, Any]:
        value = number(points[other][0, i] - points[0][0, i])
        return {"value": value, "interval": interval(draws[other][:, i] - draws[0][:, i])}

    def laid_out(one: Callable[[int], Any]) -> dict[str, Any]:
        return {
            **{key: one(i) for i, key in enumerate(keys)},
            "classes": {name: one(len(keys) + i) for i, name in enumerate(names)},
        }

    return {
        "confidence": CONFIDENCE,
        "draws": DRAWS,
        "scores": [laid_out(lambda i, row=row: number(row[0, i])) for row in points],
        "differences": [laid_out(lambda i, k=k: delta(k, i)) for k in range(1, len(counted))],
    }


def _values(tree: Hierarchy, counts: Counts, definition: str, weights: np.ndarray) -> np.ndarray:
    """(weightings, columns): the means, pixel accuracy, and the IoU of every class."""
    scores = weighted_scores(tree, counts.matrices, definition, weights)
    classes = [scores.classes[level][:, node, :1] for level, node, _ in nodes(tree)]
    return np.concatenate([scores.means, scores.accuracy[:, None], *classes], 1)


def _counts(trial: Trial, progress: Callable[[int, int], None] | None) -> Counts:
    counts = trial.stored()
    if counts is None:
        folder = scores_folder(trial.run)
        counts = trial.count(progress=progress)
        write_counts(folder / trial.counts_file, counts, trial.marks)
    return counts

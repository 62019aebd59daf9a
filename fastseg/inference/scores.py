"""One confusion matrix a photograph → the scores of every class and level, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastseg.hierarchy import Hierarchy
from fastseg.inference.boundary import WIDTH

RATIOS = ("iou", "precision", "recall")
DRAWS, CONFIDENCE = 1000, 0.95
# Shares of a photograph's pixels that are people, below and above which scores are told apart.
SMALL, LARGE = 0.05, 0.2
WORST = 10


@dataclass(frozen=True)
class Counts:
    """What was counted, photograph by photograph.

    `matrices` (n, C, C) int32: pixels by true leaf (rows) and predicted leaf, without those of no class. `boundary`
    (n, nodes, 2): pixels in intersection and union of boundaries, nodes as in `Hierarchy.node_slices`; or None.
    """

    names: list[str]
    matrices: np.ndarray
    boundary: np.ndarray | None = None


@dataclass(frozen=True)
class Scores:
    """Scores under some weightings of the photographs, float64 with NaN where nothing is to be divided by.

    `means` (weightings, levels), `accuracy` (weightings,), `classes`: for each level (weightings, nodes, 3), with IoU,
    precision and recall.
    """

    means: np.ndarray
    accuracy: np.ndarray
    classes: tuple[np.ndarray, ...]


def ratios(confusion: np.ndarray) -> np.ndarray:
    """(..., n, n) counts, rows the truth → (..., n, 3) float64: IoU, precision, recall; NaN for 0 / 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    truth, guess = confusion.sum(-1), confusion.sum(-2)
    return np.stack([_divide(hits, whole) for whole in (truth + guess - hits, guess, truth)], -1)


def weighted_scores(tree: Hierarchy, matrices: np.ndarray, definition: str, weights: np.ndarray) -> Scores:
    """Scores of photographs that count `weights` (weightings, n) times: all ones, a part of them, or a resampling.

    `definition` as in `LevelIoU`; precision and recall follow it, pixel accuracy is over all pixels.
    """
    leaves = len(tree)
    total = (weights @ matrices.reshape(len(matrices), -1).astype(np.float64)).reshape(-1, leaves, leaves)
    means, classes = [], []
    for level in range(tree.depth):
        foreground = tree.foreground(level)
        if definition == "dataset":
            values = ratios(tree.fold(total, level))
            mean = _mean(values[:, foreground, 0], 1)
        else:
            each = ratios(tree.fold(matrices.astype(np.float64), level))
            there = np.isfinite(each)
            sums = np.tensordot(weights, np.where(there, each, 0), 1)
            pairs = np.tensordot(weights, there.astype(np.float64), 1)
            values = _divide(sums, pairs)
            if definition == "image":
                mean = _weighted_mean(_mean(each[:, foreground, 0], 1), weights)
            else:
                mean = _divide(sums[:, foreground, 0].sum(1), pairs[:, foreground, 0].sum(1))
        means.append(mean)
        classes.append(values)
    accuracy = _divide(np.trace(total, axis1=1, axis2=2), total.sum((1, 2)))
    return Scores(np.stack(means, 1), accuracy, tuple(classes))


def resamplings(images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(draws, images) float64: how often each photograph is drawn, with replacement, in each of a bootstrap's draws."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws).astype(np.float64)


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of a bootstrap's draws (percentile interval; Efron & Tibshirani 1993, ch. 13), None for none."""
    values = values[np.isfinite(values)]
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(values, [tail, 1 - tail]).tolist() if len(values) else None


def body_shares(tree: Hierarchy, matrices: np.ndarray) -> np.ndarray:
    """(n,) share of each photograph's labelled pixels that are not background; NaN where none is labelled."""
    truth = matrices.sum(2, dtype=np.int64)
    body = truth.sum(1) - (0 if tree.background is None else truth[:, tree.background])
    return _divide(body, truth.sum(1))


def own_means(tree: Hierarchy, matrices: np.ndarray) -> np.ndarray:
    """(n,) each photograph's own mean IoU over the deepest level; NaN where it has no class in truth or prediction."""
    return _mean(ratios(tree.fold(matrices.astype(np.float64)))[:, tree.foreground(), 0], 1)


def summary(tree: Hierarchy, counts: Counts, definition: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """All scores as plain numbers for JSON, where NaN becomes None.

    `miou0`, `miou1`, …, `pixel_accuracy`; `definition`, what `named` says (protocol, decoding, split …) and `images`;
    `classes` (name → level, iou, precision, recall); the names of those `absent`; 95 % `intervals` by resampling
    photographs (none for a single one); the means `by_size`, the share of body pixels; the `worst` ten photographs by
    their own mean over the deepest level; and `boundary` where it was counted.
    """
    scores = weighted_scores(tree, counts.matrices, definition, np.ones((1, len(counts.names))))
    classes: dict[str, dict[str, Any]] = {}
    for level, node, name in nodes(tree):
        values = (number(v) for v in scores.classes[level][0, node])
        classes[name] = {"level": level, **dict(zip(RATIOS, values, strict=True))}
    return {
        **{f"miou{level}": number(value) for level, value in enumerate(scores.means[0])},
        "pixel_accuracy": number(scores.accuracy[0]),
        "definition": definition, **named, "images": len(counts.names), "classes": classes,
        "absent": [name for name, entry in classes.items() if entry["iou"] is None],
        "intervals": _intervals(tree, counts.matrices, definition),
        "by_size": _by_size(tree, counts.matrices, definition),
        "worst": _worst(tree, counts),
        **({} if counts.boundary is None else {"boundary": _boundary(tree, counts.boundary, definition)}),
    }  # fmt: skip


def nodes(tree: Hierarchy) -> list[tuple[int, int, str]]:
    """(level, node, name) of every class; one that stands on several levels is named at the first."""
    found: dict[str, tuple[int, int, str]] = {}
    for level in range(tree.depth):
        for node, name in enumerate(tree.names(level)):
            found.setdefault(name, (level, node, name))
    return list(found.values())


def number(value: float) -> float | None:
    """A float for JSON; None for NaN."""
    return None if math.isnan(value) else float(value)


def _intervals(tree: Hierarchy, matrices: np.ndarray, definition: str) -> dict[str, Any] | None:
    if len(matrices) < 2:
        return None
    drawn = weighted_scores(tree, matrices, definition, resamplings(len(matrices)))
    return {
        "confidence": CONFIDENCE,
        "draws": DRAWS,
        **{f"miou{level}": interval(drawn.means[:, level]) for level in range(tree.depth)},
        "pixel_accuracy": interval(drawn.accuracy),
        "classes": {name: interval(drawn.classes[level][:, node, 0]) for level, node, name in nodes(tree)},
    }


def _by_size(tree: Hierarchy, matrices: np.ndarray, definition: str) -> dict[str, Any]:
    if tree.background is None:
        return {}
    shares = body_shares(tree, matrices)
    groups = {"<5%": shares < SMALL, "5-20%": (shares >= SMALL) & (shares <= LARGE), ">20%": shares > LARGE}
    found = {}
    for name, inside in groups.items():
        means = weighted_scores(tree, matrices, definition, inside[None].astype(np.float64)).means[0]
        found[name] = {
            "images": int(inside.sum()),
            **{f"miou{level}": number(value) for level, value in enumerate(means)},
        }
    return found


def _worst(tree: Hierarchy, counts: Counts) -> list[dict[str, Any]]:
    own = own_means(tree, counts.matrices)
    order = [i for i in np.argsort(own, kind="stable") if np.isfinite(own[i])][:WORST]
    return [{"id": counts.names[i], f"miou{tree.depth - 1}": float(own[i])} for i in order]


def _boundary(tree: Hierarchy, counted: np.ndarray, definition: str) -> dict[str, Any]:
    pairs = counted.astype(np.float64)
    each = _divide(pairs[..., 0], pairs[..., 1])
    whole = _divide(pairs[..., 0].sum(0), pairs[..., 1].sum(0)) if definition == "dataset" else _mean(each, 0)
    found: dict[str, Any] = {"width": WIDTH}
    for level, own in enumerate(tree.node_slices):
        foreground = tree.foreground(level)
        if definition == "dataset":
            mean = _mean(whole[own][foreground], 0)
        elif definition == "image":
            mean = _mean(_mean(each[:, own][:, foreground], 1), 0)
        else:
            mean = _mean(each[:, own][:, foreground].ravel(), 0)
        found[f"miou{level}"] = number(mean)
    found["classes"] = {name: number(whole[tree.node_slices[level]][node]) for level, node, name in nodes(tree)}
    return found


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN, NaN where all is."""
    there = np.isfinite(values)
    return _divide(np.where(there, values, 0).sum(axis), there.sum(axis))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    there = np.isfinite(values)
    return _divide(weights @ np.where(there, values, 0), weights @ there.astype(np.float64))

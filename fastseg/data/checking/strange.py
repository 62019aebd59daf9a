"""Which photographs are least like the others of their dataset, and why, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastseg.data.checking.census import percent
from fastseg.data.checking.examine import Look, foreground
from fastseg.hierarchy import Hierarchy

# From here on a measure is worth a word, in robust standard deviations.
NOTABLE = 2.5
# One measure alone cannot be stranger than this, so that two unusual things outdo one extreme.
MOST = 8.0
FEWEST_FOR_A_NORM = 8


def strangest(tree: Hierarchy, looks: Mapping[str, Look], count: int = 10) -> list[dict[str, Any]]:
    """The `count` strangest readable ids as {id, score, reasons}, the strangest first.

    Six measures of each photograph: the area of its people (as a logarithm), its aspect, brightness and contrast, how
    many classes it shows, and how far its mixture of classes is from the dataset's. Each is put in robust standard
    deviations from the median (1.48 times the median deviation, or what nine tenths of the photographs need if that is
    more); the score is the root of their summed squares. Only photographs of which some measure is notable appear.
    """
    names = [name for name, look in looks.items() if look.counts is not None and look.thumb is not None]
    if len(names) < FEWEST_FOR_A_NORM:
        return []
    measured = [_measure(looks[name], tree) for name in names]
    mixtures = np.array([mixture for _, mixture in measured])
    usual = np.median(mixtures[mixtures.sum(1) > 0], axis=0) if mixtures.any() else mixtures[0]
    values = np.array([numbers for numbers, _ in measured])
    away = np.where(mixtures.sum(1) > 0, np.abs(mixtures - usual).sum(1) / 2, np.nan)
    values = np.column_stack([values, np.where(np.isnan(away), np.nanmedian(away) if mixtures.any() else 0, away)])
    middle = np.median(values, axis=0)
    # The least spread that counts as one deviation, where most photographs agree: 1.1 times the area or aspect, 4 grey
    # values, half a class, a twentieth of the people.
    low, high = np.percentile(values, [5, 95], axis=0)
    # Of two usual kinds, such as portraits among landscapes, neither is strange: what nine of ten share counts as well.
    spread = np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), (high - low) / 3.29)
    spread = np.maximum(spread, [0.1, 0.1, 4, 4, 0.5, 0.05])
    deviations = np.clip((values - middle) / spread, -MOST, MOST)
    # To resemble the average mixture closely is not strange.
    deviations[:, 5] = np.maximum(deviations[:, 5], 0)
    scores = np.sqrt((deviations**2).sum(1))
    chosen = [i for i in np.argsort(-scores, kind="stable") if np.abs(deviations[i]).max() >= NOTABLE][:count]
    return [
        {
            "id": names[i],
            "score": round(float(scores[i]), 2),
            "reasons": _reasons(tree, looks[names[i]], deviations[i], values[i], middle, mixtures[i], usual),
        }
        for i in chosen
    ]


def _measure(look: Look, tree: Hierarchy) -> tuple[list[float], np.ndarray]:
    """(log area, log aspect, brightness, contrast, classes), and the share of each leaf among its people."""
    people = look.counts.astype(np.float64)
    if tree.background is not None:
        people[tree.background] = 0
    area = foreground(look.counts, tree.background) / max(int(look.counts.sum()), 1)
    high, wide = look.shape
    numbers = [
        np.log(max(area, 1e-5)),
        np.log(wide / high),
        look.thumb.mean(),
        look.thumb.std(),
        np.count_nonzero(people),
    ]
    return numbers, people / max(people.sum(), 1)


def _reasons(
    tree: Hierarchy,
    look: Look,
    deviation: np.ndarray,
    value: np.ndarray,
    middle: np.ndarray,
    mixture: np.ndarray,
    usual: np.ndarray,
) -> list[str]:
    """The notable measures in words, the strangest first."""
    empty = foreground(look.counts, tree.background) == 0
    leaf = int(np.abs(mixture - usual).argmax())
    words = [
        "nobody in it"
        if empty
        else f"people cover {percent(np.exp(value[0]))} of it, usually {percent(np.exp(middle[0]))}",
        f"width to height {np.exp(value[1]):.2f}, usually {np.exp(middle[1]):.2f}",
        f"{'bright' if deviation[2] > 0 else 'dark'}: mean grey {value[2]:.0f}, usually {middle[2]:.0f}",
        f"{'hard' if deviation[3] > 0 else 'little'} contrast: {value[3]:.0f} grey values, usually {middle[3]:.0f}",
        f"{value[4]:.0f} class{'' if value[4] == 1 else 'es'}, usually {middle[4]:.0f}",
        f"{'much' if mixture[leaf] > usual[leaf] else 'little'} {tree.leaves[leaf]}: {percent(mixture[leaf])} of the "
        f"people, usually {percent(usual[leaf])}",
    ]
    order = np.argsort(-np.abs(deviation), kind="stable")
    return [words[i] for i in order if abs(deviation[i]) >= NOTABLE]

"""What a dataset holds, counted: pixels and photographs of each class at each level, sizes, who appears with whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastseg.data.checking.examine import Look, foreground
from fastseg.data.checking.lists import Splits
from fastseg.hierarchy import Hierarchy

# How much of a photograph its people cover; the bounds between small, middling and large.
SMALL, LARGE = 0.05, 0.20


def census(tree: Hierarchy, looks: Mapping[str, Look], splits: Splits) -> dict[str, Any]:
    """Statistics of all masks that could be read, ready for JSON.

    `looks` holds each id once, `splits` the ids of train and valid. Pixel numbers are exact; shares are of the pixels
    that have a class (255 has none), and None where there is nothing to share.
    """
    read = {name: look for name, look in looks.items() if look.counts is not None}
    counts = np.array([look.counts for look in read.values()], np.int64).reshape(-1, len(tree))
    framed = np.array([look.framed for look in read.values()], np.int64).reshape(-1, len(tree))
    ignored = sum(look.ignored for look in read.values())
    listed = {split: set(names) for split, names in splits.items()}
    member = {split: np.array([name in names for name in read], bool) for split, names in listed.items()}
    labelled = int(counts.sum())
    return {
        "photographs": {split: len(names) for split, names in listed.items()},
        "masks_read": len(read),
        "pixels": {"labelled": labelled, "ignored": ignored, "ignored_share": _ratio(ignored, labelled + ignored)},
        "levels": [_level(tree, level, list(read), counts, framed, member) for level in range(tree.depth)],
        "cooccurrence": {"classes": list(tree.leaves), "photographs": _together(counts)},
        "sizes": _sizes([look.shape for look in read.values()]),
        "people": _people(tree, counts),
    }


def _level(
    tree: Hierarchy,
    level: int,
    names: Sequence[str],
    counts: np.ndarray,
    framed: np.ndarray,
    member: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """One entry a node, in the order of the node ids."""
    at, people = tree.level(level), set(tree.foreground(level))
    every = counts.sum(1)
    nodes = {node: counts[:, at.members(node)].sum(1) for node in range(len(at.names))}
    total, of_people = int(every.sum()), int(sum(nodes[node].sum() for node in people))
    rows = []
    for node, pixels in nodes.items():
        there = np.flatnonzero(pixels)
        fewest = there[pixels[there].argmin()] if len(there) else None
        kept = framed[:, at.members(node)].sum(1)
        rows.append({
            "name": at.names[node],
            "background": node not in people,
            "pixels": int(pixels.sum()),
            "share": _ratio(pixels.sum(), total),
            "share_of_people": _ratio(pixels.sum(), of_people) if node in people else None,
            "photographs": {"all": len(there), **{s: int((pixels[m] > 0).sum()) for s, m in member.items()}},
            "share_by_split": {s: _ratio(pixels[m].sum(), every[m].sum()) for s, m in member.items()},
            "median_share": float(np.median(pixels[there] / every[there])) if len(there) else None,
            "fewest": None if fewest is None else {"pixels": int(pixels[fewest]), "id": names[fewest]},
            "vanishes": int(((pixels > 0) & (kept == 0)).sum()),
        })  # fmt: skip
    return rows


def _together(counts: np.ndarray) -> list[list[int]]:
    """How many photographs show leaf i and leaf j; on the diagonal, leaf i."""
    there = (counts > 0).astype(np.int64)
    return (there.T @ there).tolist()


def _sizes(shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    if not shapes:
        return {"distinct": 0, "counted": []}
    high, wide = np.array(shapes).T
    counted = [{"height": h, "width": w, "photographs": n} for (h, w), n in Counter(shapes).most_common()]
    return {
        "distinct": len(counted),
        "counted": counted,
        "height": _spread(high),
        "width": _spread(wide),
        "aspect": _spread(wide / high),
    }


def _people(tree: Hierarchy, counts: np.ndarray) -> dict[str, Any]:
    every = counts.sum(1)
    shares = np.array([foreground(row, tree.background) for row in counts]) / np.maximum(every, 1)
    edges = np.linspace(0, 1, 21)
    there = shares[shares > 0]
    return {
        "none": int((shares == 0).sum()),
        "small": int(((shares > 0) & (shares < SMALL)).sum()),
        "middling": int(((shares >= SMALL) & (shares <= LARGE)).sum()),
        "large": int((shares > LARGE).sum()),
        "share": _spread(there) if len(there) else None,
        "histogram": np.histogram(there, edges)[0].tolist(),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": values.min().item(), "median": float(np.median(values)), "most": values.max().item()}


def percent(share: float | None) -> str:
    """A share for people to read; what is there is never rounded down to nothing."""
    if not share:
        return "–" if share is None else "0 %"
    return "<0.01 %" if 0 < share < 1e-4 else f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None

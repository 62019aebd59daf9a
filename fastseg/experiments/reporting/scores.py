"""Scores per class, level and body size with their intervals, and where the pixels of each class went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from fastseg.hierarchy import Hierarchy
from fastseg.pages.charts import css, heat, plain, swatch, table
from fastseg.plots import level_words

HEAD = ["", "IoU", "", "95 % interval", "precision", "recall"]


def headline(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    """The mean IoU of each level in large figures."""
    intervals = scores.get("intervals") or {}
    tiles = (
        f"<div><strong>{shown(scores[f'miou{level}'])}</strong><span>miou{level}, {escape(level_words(tree, level))}"
        f"<br><small>{span(intervals.get(f'miou{level}')) or 'no interval'}</small></span></div>"
        for level in range(tree.depth)
    )
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def scores_section(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    """Each level's mean and classes, best first, then the means by size of the people."""
    intervals, parts = scores.get("intervals") or {}, []
    for level in range(tree.depth):
        key, colours, names = f"miou{level}", tree.colours(level), tree.names(level)
        bounds = intervals.get("classes", {})
        rows = [_row(f"<b>{key}</b>", {"iou": scores[key]}, intervals.get(key), "var(--soft)")]
        # A class that stands on several levels is listed at the first.
        own = [node for node in tree.foreground(level) if scores["classes"][names[node]]["level"] == level]
        for node in sorted(own, key=lambda node: -(scores["classes"][names[node]]["iou"] or 0)):
            name = names[node]
            words = f"{swatch(colours[node])} {escape(plain(name))}"
            rows.append(_row(words, scores["classes"][name], bounds.get(name), css(colours[node])))
        parts.append(f"<h3>Level {level}</h3>{table(HEAD, rows, 'scores', f'scores of level {level}')}")
    return (
        "<section id='scores'><h2>Scores per class and level</h2><p>The bar is the IoU from 0 to 1, the line through "
        "its end the 95 % interval from drawing the photographs anew; a mean leaves background out.</p>"
        f"{''.join(parts)}{_sizes(scores, tree)}</section>"
    )


def _row(name: str, entry: Mapping[str, Any], bounds: Sequence[float] | None, colour: str) -> list[str]:
    return [name, shown(entry["iou"]), _bar(entry["iou"], bounds, colour), span(bounds),
            shown(entry.get("precision"), ""), shown(entry.get("recall"), "")]  # fmt: skip


def _bar(value: float | None, bounds: Sequence[float] | None, colour: str) -> str:
    if value is None:
        return ""
    whisker = ""
    if bounds:
        whisker = f'<u style="left:{100 * bounds[0]:.1f}%;width:{100 * (bounds[1] - bounds[0]):.1f}%"></u>'
    end = f'<i style="width:{100 * value:.1f}%;background:{colour}"></i>{whisker}'
    return f'<div class="score" aria-hidden="true">{end}</div>'


def _sizes(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    if not scores.get("by_size"):
        return ""
    means = [f"miou{level}" for level in range(tree.depth)]
    rows = [
        [escape(name.replace("-", " to ").replace("%", " %").replace("<", "under ").replace(">", "over ")),
         f"{part['images']:,}", *(f"{shown(part[key])}{_bar(part[key], None, 'var(--blue)')}" for key in means)]
        for name, part in scores["by_size"].items()
    ]  # fmt: skip
    return (
        "<h3>By size of the people</h3><p>Photographs told apart by the share of their pixels that people cover.</p>"
        f"{table(['people cover', 'photographs', *means], rows, 'scores sizes', 'scores by size of the people')}"
    )


def confusion_section(matrix: np.ndarray | None, tree: Hierarchy) -> str:
    """A leaf confusion matrix (C, C), rows the truth, at every level: percent of each true class's pixels."""
    top = "<section id='confusion'><h2>Confusion per level</h2>"
    if matrix is None:
        return f"{top}<p>What was counted is not in the run folder, or belongs to other weights.</p></section>"
    tables = []
    for level in range(tree.depth):
        counts = tree.fold(matrix.astype(np.int64), level)
        whole = counts.sum(1, keepdims=True)
        shares = np.divide(counts, whole, out=np.zeros(counts.shape), where=whole > 0)
        words = [[_percent(share) if rows else "–" for share in line] for line, rows in zip(shares, whole, strict=True)]
        names = [plain(name) for name in tree.names(level)]
        tables.append(f"<div><h3>Level {level}</h3>{heat(names, shares, words, f'confusion of level {level}')}</div>")
    return (
        f"{top}<p>Of the pixels of each true class (rows), the percentage that was predicted as each class (columns); "
        f"the diagonal is the recall.</p><div class='matrices'>{''.join(tables)}</div></section>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.005 else "<small>0</small>"


def shown(value: float | None, nothing: str = "absent") -> str:
    """A score to three places."""
    return nothing if value is None else f"{value:.3f}"


def span(bounds: Sequence[float] | None) -> str:
    """An interval in words."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""

"""Pictures: masks over photographs with a legend, and the curves of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastseg.hierarchy import Hierarchy
from fastseg.overfitting import overfitting
from fastseg.overlays import overlay
from fastseg.writing import whole

LEVEL_COLOURS = ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7")


def add_legend(figure: Figure, hierarchy: Hierarchy, level: int = -1) -> None:
    """Class names beside their colours, below the pictures of a figure."""
    names, colours = hierarchy.names(level), hierarchy.colours(level) / 255
    handles = [
        Patch(facecolor=colours[node], label=names[node].replace("_", " ")) for node in hierarchy.foreground(level)
    ]
    figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 8), frameon=False, fontsize=9)
    room = (0.25 * math.ceil(len(handles) / 8) + 0.15) / figure.get_figheight()
    figure.subplots_adjust(bottom=room)


def draw_mask(
    ax: Axes, image: np.ndarray, ids: np.ndarray, hierarchy: Hierarchy, level: int = -1, title: str = ""
) -> Axes:
    """One photograph under its mask on an axis."""
    ax.imshow(overlay(image, ids, hierarchy, level))
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()
    return ax


def results_figure(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], hierarchy: Hierarchy, level: int = -1
) -> Figure:
    """Photograph, truth and prediction side by side, one row for each (title, photograph, truth ids, predicted ids)."""
    # Portraits are drawn narrower rather than half a page high.
    heights = [min(image.shape[0] / image.shape[1], 1.0) for _, image, _, _ in rows]
    figure = Figure(figsize=(9, 3 * sum(heights) + 0.35 * len(rows) + 0.4))
    axes = figure.subplots(len(rows), 3, squeeze=False, height_ratios=heights)
    for (title, image, truth, predicted), (left, middle, right) in zip(rows, axes, strict=True):
        left.imshow(image)
        left.set_title(title, fontsize=9)
        left.set_axis_off()
        draw_mask(middle, image, truth, hierarchy, level, "truth")
        draw_mask(right, image, predicted, hierarchy, level, "prediction")
    gap = 0.35 / (3 * np.mean(heights))
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / figure.get_figheight(), wspace=0.03, hspace=gap)
    add_legend(figure, hierarchy, level)
    return figure


def grid_figure(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], hierarchy: Hierarchy, level: int = -1, columns: int = 5
) -> Figure:
    """Photographs under their masks, side by side, with a legend; a row is (title, photograph, ids)."""
    lines = math.ceil(len(rows) / columns)
    shape = np.mean([image.shape[0] / image.shape[1] for _, image, _ in rows])
    figure = Figure(figsize=(2.4 * columns, (2.4 * shape + 0.25) * lines + 0.5))
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for ax, (title, image, ids) in zip(axes, rows, strict=False):
        draw_mask(ax, image, ids, hierarchy, level, title)
    for ax in list(axes)[len(rows) :]:
        ax.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / figure.get_figheight(), wspace=0.04, hspace=0.12)
    add_legend(figure, hierarchy, level)
    return figure


def curves_figure(history: Mapping[str, Sequence[float]], hierarchy: Hierarchy, best: int | None = None) -> Figure:
    """Losses, the mean IoU of each level and the learning rate over epochs.

    `best` marks the epoch whose weights were kept; without it, the highest score of the deepest level is marked. Where
    the losses say overfitting by the rule of `fastseg.overfitting`, it stands above them in words.
    """
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    losses, scores, rates = axes = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    epochs = [int(epoch) for epoch in history["epoch"]]
    marker = {"marker": "o", "markersize": 3}
    losses.plot(epochs, history["train_loss"], label="training", color="#555555", **marker)
    losses.plot(epochs, history["valid_loss"], label="validation", color="#0072B2", **marker)
    found = overfitting(history["train_loss"], history["valid_loss"])
    if found:
        losses.axvspan(found.epoch, epochs[-1], color="#D55E00", alpha=0.1, linewidth=0)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.set_title(f"{found}".replace(": ", ":\n") if found else "Loss", fontsize=10 if found else 12)
    for level, colour in zip(range(hierarchy.depth), LEVEL_COLOURS, strict=False):
        values = history[f"miou{level}"]
        scores.plot(epochs, values, label=f"miou{level} ({level_words(hierarchy, level)})", color=colour, **marker)
    scores.set(xlabel="epoch", ylabel="mean IoU", title="Mean IoU without background, valid, resized", ylim=(0, 1))
    rates.plot(epochs, history["lr"], color="#009E73", **marker)
    rates.set(xlabel="epoch", title="Learning rate at the epoch's end", ylim=(0, None))
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    marked = highest(history[f"miou{hierarchy.depth - 1}"]) if best is None else best
    if marked is not None:
        words = f"highest: epoch {marked}" if best is None else f"kept: epoch {marked}"
        for ax in axes:
            line = ax.axvline(marked, color="#D55E00", linestyle=":", linewidth=1.2)
            line.set_label(words if ax is scores else "_")
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in (losses, scores):
        ax.legend(fontsize=8, frameon=False)
    return figure


def level_words(hierarchy: Hierarchy, level: int) -> str:
    """What a level's mean is over: its class's name, or how many there are."""
    names = [hierarchy.names(level)[node] for node in hierarchy.foreground(level)]
    return names[0] if len(names) == 1 else f"{len(names)} classes"


def highest(values: Sequence[float | None]) -> int | None:
    """The place of the highest of an epoch's values, counted from 1 and the first of equals; None where all are NaN."""
    known = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    return max(known, key=lambda i: values[i]) + 1 if known else None


def confusion_figure(confusion: np.ndarray, hierarchy: Hierarchy) -> Figure:
    """A leaf confusion matrix (C, C), rows the truth, at every level: percent of each true class's pixels."""
    sizes = [len(level.names) for level in hierarchy.levels]
    figure = Figure(figsize=(sum(0.62 * n + 1.7 for n in sizes), 0.5 * max(sizes) + 1.9), layout="constrained")
    for level, ax in enumerate(figure.subplots(1, len(sizes), squeeze=False, width_ratios=[n + 2 for n in sizes])[0]):
        counts = hierarchy.fold(confusion, level).astype(np.float64)
        whole = counts.sum(1, keepdims=True)
        shares = np.divide(100 * counts, whole, out=np.zeros_like(counts), where=whole > 0)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        names = [name.replace("_", " ") for name in hierarchy.names(level)]
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set(title=f"level {level}", xlabel="predicted", ylabel="true")
        for row, column in np.argwhere(shares >= 0.5):
            share = shares[row, column]
            ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color="wk"[int(share < 60)])
    figure.suptitle("Where the pixels of each true class went, percent", fontsize=10)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG under a temporary name, then rename it."""
    with whole(path) as part:
        figure.savefig(part, dpi=110, format="png")

"""Pictures: masks over photographs with a legend, and the curves of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

IGNORED_GREY = 160


def overlay(
    image: np.ndarray, ids: np.ndarray, hierarchy: Hierarchy, level: int = -1, alpha: float = 0.6
) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with a mask of leaf ids (H, W) laid over it in a level's colours.

    Background stays bare, pixels without a class (255) turn grey.
    """
    nodes = hierarchy.merge(ids, level)
    colours = np.full((256, 3), IGNORED_GREY, np.float32)
    opacity = np.zeros((256, 1), np.float32)
    colours[: len(hierarchy.names(level))] = hierarchy.colours(level)
    opacity[[*hierarchy.foreground(level), IGNORE_INDEX]] = alpha
    cover = opacity[nodes]
    return np.round(image * (1 - cover) + colours[nodes] * cover).astype(np.uint8)


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
    """Losses on the left, the mean IoU of each level on the right, over epochs; `best` marks the kept epoch."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [int(epoch) for epoch in history["epoch"]]
    marker = {"marker": "o", "markersize": 3}
    losses.plot(epochs, history["train_loss"], label="training", color="#555555", **marker)
    losses.plot(epochs, history["valid_loss"], label="validation", color="#0072B2", **marker)
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    for level, colour in zip(
        range(hierarchy.depth), ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7"), strict=False
    ):
        names = [hierarchy.names(level)[node] for node in hierarchy.foreground(level)]
        label = names[0] if len(names) == 1 else f"{len(names)} classes"
        scores.plot(epochs, history[f"miou{level}"], label=f"miou{level} ({label})", color=colour, **marker)
    if best is not None:
        scores.axvline(best, color="#D55E00", linestyle=":", linewidth=1.2, label=f"kept: epoch {best}")
    scores.set(xlabel="epoch", ylabel="mean IoU", title="Mean IoU without background, valid, resized", ylim=(0, 1))
    for ax in (losses, scores):
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


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
    part = path.with_suffix(".part")
    figure.savefig(part, dpi=110, format="png")
    part.replace(path)

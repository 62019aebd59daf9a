"""Colours of the tree's nodes: a hue for each branch, shades of it for what hangs there."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastseg.hierarchy import Hierarchy

# Okabe & Ito's palette (2008), which keeps its distances under the common colour deficiencies; black is background.
HUES = ((0, 114, 178), (230, 120, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233), (213, 94, 0))
# Share of the colour circle between a group's darkest and lightest shade: blue runs from indigo to sky.
HUE_TURN = 0.16


def node_colours(tree: Hierarchy, level: int = -1) -> np.ndarray:
    """(n, 3) uint8 RGB, one for each node of a level; background is black.

    Hues belong to the nodes of the first level that has more than one foreground node; everything below is a shade of
    its ancestor there, told apart by lightness and a slight turn of the hue, and a node above takes its first child's
    hue.
    """
    branch = next((d for d in range(tree.depth) if len(tree.foreground(d)) > 1), tree.depth - 1)
    groups = [tree.levels[branch].members(node) for node in tree.foreground(branch)]
    order = {
        leaf: (hue, i, len(group))
        for hue, group in enumerate(groups)
        for i, leaf in enumerate(sorted(group, key=tree.order.__getitem__))
    }
    out = np.zeros((len(tree.level(level).names), 3), np.uint8)
    for node in tree.foreground(level):
        members = [order[leaf] for leaf in tree.level(level).members(node)]
        hue = min(m[0] for m in members)
        shades = [(i + 0.5) / n for h, i, n in members if h == hue]
        out[node] = _shade(HUES[hue % len(HUES)], sum(shades) / len(shades))
    return out


def _shade(rgb: tuple[int, int, int], t: float) -> np.ndarray:
    """A hue darker (t < 0.5) or lighter (t > 0.5), turned a little on the way so that neighbours differ twice."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
    turned = np.array(colorsys.hsv_to_rgb((hue + HUE_TURN * (0.5 - t)) % 1, saturation, value)) * 255
    target, amount = (0.0, (0.5 - t) * 1.3) if t < 0.5 else (255.0, (t - 0.5) * 1.4)
    return np.round(turned * (1 - amount) + target * amount).astype(np.uint8)

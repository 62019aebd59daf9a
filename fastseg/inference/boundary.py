"""Boundary IoU: how well outlines agree, which the IoU of large parts says little of."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

WIDTH = 0.02  # of a photograph's diagonal


def boundary_counts(tree: Hierarchy, guess: np.ndarray, truth: np.ndarray, width: float = WIDTH) -> np.ndarray:
    """(nodes, 2) int64 pixels in intersection and union of the boundaries of two masks (H, W) of leaf ids, by node.

    A class's boundary is those of its pixels that another class, or the photograph's edge, comes as near to as `width`
    of the diagonal, in chessboard distance (Cheng et al., Boundary IoU, CVPR 2021, `mask_to_boundary`). Pixels whose
    truth is 255 belong to no class in either mask. Nodes are ordered as in `Hierarchy.node_slices`.
    """
    guess = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, guess).astype(np.uint8)
    reach = max(1, round(width * float(np.hypot(*truth.shape))))
    counts = np.zeros((tree.node_count, 2), np.int64)
    for level, own in enumerate(tree.node_slices):
        ours, theirs = tree.merge(guess, level), tree.merge(truth.astype(np.uint8), level)
        near, true_near = _near_others(ours, reach), _near_others(theirs, reach)
        both = near & true_near & (ours == theirs)
        size = len(tree.names(level))
        hits, mine, true = (
            np.bincount(ids[there], minlength=IGNORE_INDEX + 1)[:size]
            for ids, there in ((ours, both), (ours, near), (theirs, true_near))
        )
        counts[own] = np.stack([hits, mine + true - hits], 1)
    return counts


def _near_others(ids: np.ndarray, reach: int) -> np.ndarray:
    """Where another id or the edge lies within `reach` pixels."""
    # One look at the smallest and largest id around tells it for all classes at once.
    near = maximum_filter(ids, 2 * reach + 1, mode="nearest") != minimum_filter(ids, 2 * reach + 1, mode="nearest")
    for edge in (np.s_[:reach], np.s_[-reach:], np.s_[:, :reach], np.s_[:, -reach:]):
        near[edge] = True
    return near

"""Masks of any shape → one size, without torch, so that reading a dataset does not wait for it to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastseg.hierarchy import IGNORE_INDEX


@dataclass(frozen=True)
class MaskFraming:
    """How masks of any shape are brought to one `size` (height, width).

    Squeezed, or with `pad` kept in their aspect, in the middle of 255.
    """

    size: tuple[int, int]
    pad: bool = False

    def box(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) within the frame of a photograph of `shape` (height, width)."""
        if not self.pad:
            return 0, 0, *self.size
        scale = min(side / own for side, own in zip(self.size, shape, strict=True))
        inner = [max(1, min(side, round(own * scale))) for side, own in zip(self.size, shape, strict=True)]
        return (self.size[0] - inner[0]) // 2, (self.size[1] - inner[1]) // 2, *inner

    def mask(self, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(h, w) ids → (H, W) by nearest neighbour: no id appears that was not there, but 255 on padding."""
        top, left, high, wide = self.box(ids.shape)
        out = np.empty(self.size, ids.dtype) if out is None else out
        if self.pad:
            out[:] = IGNORE_INDEX
        inner = out[top : top + high, left : left + wide]
        np.take(ids.take(_centres(high, ids.shape[0]), 0), _centres(wide, ids.shape[1]), 1, out=inner, mode="clip")
        return out


def _centres(target: int, source: int) -> np.ndarray:
    """For each target pixel the source pixel under its centre."""
    return ((np.arange(target) + 0.5) * (source / target)).astype(np.intp)

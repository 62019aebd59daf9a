"""Masks, photographs and logits of any shape ⇄ one size, without torch, so that nobody waits for it to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fastseg.hierarchy import IGNORE_INDEX

if TYPE_CHECKING:
    from typing_extensions import Self

# Around a photograph that is padded: ImageNet's mean colour, close to nothing once normalised.
PADDING = (124, 116, 104)


@dataclass(frozen=True)
class MaskFraming:
    """How masks of any shape are brought to one `size` (height, width).

    Squeezed, or with `pad` kept in their aspect, in the middle of 255.
    """

    size: tuple[int, int]
    pad: bool = False

    @classmethod
    def whole(cls, size: Sequence[int], resize: str) -> Self:
        """How whole photographs are framed to be scored: where training saw crops, padded."""
        return cls((int(size[0]), int(size[1])), pad=resize != "squish")

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

    def undo(
        self, logits: Any, shape: Sequence[int], target: Sequence[int] | None = None, rows: slice | None = None
    ) -> Any:
        """(B, C, h, w) of frames, or of anything as coarse → (B, C, H, W) of a photograph of `shape`, bilinear.

        `target` asks for the photograph at another size than its own, `rows` for some of its rows alone, which may
        differ from the whole's in the last bits.
        """
        target = tuple(shape if target is None else target)
        if self.pad:
            top, left, high, wide = self.box(shape)
            if tuple(logits.shape[-2:]) != tuple(self.size):
                raise ValueError(f"{tuple(logits.shape[-2:])} is not the frame's size {self.size}")
            logits = logits[..., top : top + high, left : left + wide]
        if target == tuple(logits.shape[-2:]):
            return logits if rows is None else logits[..., rows, :]
        if rows is None:
            return self._enlarge(logits, target)
        first, second, share = _neighbours(target[0], logits.shape[-2], rows)
        start, stop = int(first[0]), int(second[-1]) + 1
        wide = self._enlarge(logits[..., start:stop, :], (stop - start, target[1]))
        return _between(wide, first - start, second - start, share)

    def _enlarge(self, logits: Any, target: tuple[int, int]) -> Any:
        raise NotImplementedError


class ArrayFraming(MaskFraming):
    """How photographs and logits are brought to one size and back with Pillow and NumPy alone.

    It does what `fastseg.data.frames.Framing` does to tensors; its values differ from that by rounding.
    """

    def image(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 → (3, H, W) uint8, bilinear and antialiased; channels last in memory."""
        top, left, high, wide = self.box(image.shape[:2])
        if image.shape[:2] != (high, wide):
            image = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR))
        if (high, wide) != tuple(self.size):
            out = np.empty((*self.size, 3), np.uint8)
            out[:] = PADDING
            out[top : top + high, left : left + wide] = image
            image = out
        return image.transpose(2, 0, 1)

    def _enlarge(self, logits: np.ndarray, target: tuple[int, int]) -> np.ndarray:
        # Columns first, as there are fewer rows of them; what is gathered then are whole rows.
        if target[1] != logits.shape[-1]:
            turned = np.ascontiguousarray(logits.swapaxes(-1, -2))
            logits = _between(turned, *_neighbours(target[1], logits.shape[-1])).swapaxes(-1, -2)
        if target[0] == logits.shape[-2]:
            return np.ascontiguousarray(logits)
        return _between(np.ascontiguousarray(logits), *_neighbours(target[0], logits.shape[-2]))


def _neighbours(target: int, source: int, part: slice | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target pixel the two source pixels that its centre lies between, and the second one's share."""
    places = np.arange(target, dtype=np.float32)[slice(None) if part is None else part]
    places = np.maximum((places + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5), 0)
    first = np.minimum(places.astype(np.intp), source - 1)
    return first, np.minimum(first + 1, source - 1), places - first.astype(np.float32)


def _between(values: Any, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> Any:
    """Rows between rows of (..., h, w): `first` and, as far as `share` says, `second`; NumPy or torch."""
    share = share.astype(np.float32)[:, None]
    if not isinstance(values, np.ndarray):
        share = values.new_tensor(share)
    mixed = values[..., second, :] - values[..., first, :]
    mixed *= share
    mixed += values[..., first, :]
    return mixed


def _centres(target: int, source: int) -> np.ndarray:
    """For each target pixel the source pixel under its centre."""
    return ((np.arange(target) + 0.5) * (source / target)).astype(np.intp)

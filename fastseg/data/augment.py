"""Random changes on every epoch, a batch at a time on the device, the same geometry for photographs and masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastai.torch_core import TensorImage
from fasttransform import ItemTransform
from torch import Tensor

from fastseg.data.colour import blur, boxes, jpeg, recolour
from fastseg.data.frames import PADDING
from fastseg.data.geometry import homographies, rare_pixels, warp
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy
from fastseg.settings import AugmentSettings

# What is drawn for each photograph, each at its own place, so that one setting does not change another's luck.
CHANCES = (
    "flip", "angle", "zoom", "x", "y", "tilt_x", "tilt_y", "fit", "crop", "crop_class", "crop_pixel", "crop_zoom",
    "brightness", "contrast", "saturation", "hue", "grey", "blur", "sigma", "jpeg", "quality", "erase", "erase_area",
    "erase_aspect", "erase_x", "erase_y", "erase_red", "erase_green", "erase_blue",
)  # fmt: skip
COVER_AT_MOST = 3.0  # a window of a very long photograph still shows a third of it


def draw_chances(seed: int, epoch: int, items: Sequence[int], inner: np.ndarray) -> Tensor:
    """(B, N + 2) float32: numbers in 0..1 for `CHANCES`, a function of (seed, epoch, item) alone, then `inner`.

    `inner` (B, 2) is the share of the frame's height and width that the photograph fills. An item that stands several
    times in a batch (fastai's `show_batch(unique=True)`) draws anew each time.
    """
    seen: Counter[int] = Counter()
    rows = []
    for item in items:
        rows.append(np.random.default_rng((seed, epoch, item, seen[item])).random(len(CHANCES), np.float32))
        seen[item] += 1
    return torch.from_numpy(np.concatenate([np.stack(rows), inner.astype(np.float32)], 1))


class Augmentation(ItemTransform):
    """A batch transform: photographs (B, 3, h, w) float in 0..1, ids (B, h, w)[, chances] → photographs, ids at `size`.

    It runs on training batches alone, on whatever device they are. The third element is what
    `draw_chances` made; without it, in somebody's own DataLoaders, torch's generator draws. `rarity` (leaves,) weighs
    the classes that class-aware crops look for, all foreground alike where it is None. `windows` takes a random part of
    the frame, from all of the photograph down to what fills the size.
    """

    split_idx, order = 0, 20

    def __init__(self, size: Sequence[int], settings: AugmentSettings, tree: Hierarchy,
                 rarity: Sequence[float] | None = None, windows: bool = False):  # fmt: skip
        super().__init__()
        self.size, self.numbers, self.windows = tuple(size), settings.resolved(), windows
        self.moving = windows or settings.moves()
        weights = np.ones(len(tree)) if rarity is None else np.array(rarity, np.float64)
        weights[[i for i in range(len(tree)) if i == tree.background]] = 0
        self.rarity = torch.from_numpy(weights).float()
        swapped = torch.arange(256)
        for a, b in tree.mirror:
            swapped[a], swapped[b] = b, a
        self.swapped = swapped if tree.mirror else None

    def encodes(self, batch: list[Any]):
        """Change a whole batch."""
        image, mask, *rest = batch
        x, y = image.as_subclass(Tensor), mask.as_subclass(Tensor)
        chances = rest[0] if rest else torch.cat([torch.rand(len(x), len(CHANCES)), torch.ones(len(x), 2)], 1)
        chances = chances.to(x.device, x.dtype)
        drawn = dict(zip(CHANCES, chances.unbind(1), strict=False))
        x, y = self._flip(x, y, drawn["flip"] < self.numbers.flip)
        if self.moving or tuple(x.shape[-2:]) != self.size:
            x, y = self._move(x, y, drawn, chances[:, len(CHANCES) :])
        x, y = self._erase(self._light(x, drawn), y, drawn)
        return TensorImage(x), y.as_subclass(type(mask))

    def _flip(self, x: Tensor, y: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        mirrored = y.flip(-1)
        if self.swapped is not None:
            mirrored = self.swapped.to(y.device)[mirrored.long()].to(y.dtype)
        return (
            torch.where(chosen[:, None, None, None], x.flip(-1), x),
            torch.where(chosen[:, None, None], mirrored, y),
        )

    def _move(self, x: Tensor, y: Tensor, drawn: dict[str, Tensor], inner: Tensor) -> tuple[Tensor, Tensor]:
        n = self.numbers
        low, high = n.scale
        zoom = torch.exp(math.log(low) + (math.log(high) - math.log(low)) * drawn["zoom"])
        half = inner.flip(1)
        if self.windows:
            cover = (1 / half.amin(1)).clamp(max=COVER_AT_MOST)
            zoom = zoom * cover ** drawn["fit"]
        centre = (torch.stack([drawn["x"], drawn["y"]], 1) * 2 - 1) * (half - 1 / zoom[:, None]).abs()
        if n.class_crop:
            chances = torch.stack([drawn["crop_class"], drawn["crop_pixel"]], 1)
            place, found = rare_pixels(y, self.rarity, chances, n.class_crop_pixels)
            chosen = found & (drawn["crop"] < n.class_crop)
            near, far = n.class_crop_zoom
            zoom = torch.where(chosen, near + (far - near) * drawn["crop_zoom"], zoom)
            # Around that pixel, but not over the photograph's edge where the window fits in.
            room = (half - 1 / zoom[:, None]).clamp(min=0)
            centre = torch.where(chosen[:, None], place.clamp(-room, room), centre)
        tilt = (torch.stack([drawn["tilt_x"], drawn["tilt_y"]], 1) * 2 - 1) * n.perspective
        angle = (drawn["angle"] * 2 - 1) * math.radians(n.rotate)
        matrices = homographies(centre, zoom, angle, tilt, self.size)
        return warp(x, y, matrices, self.size, torch.tensor(PADDING) / 255)

    def _light(self, x: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        n = self.numbers
        factors = [1 + (drawn[k] * 2 - 1) * getattr(n, k) for k in ("brightness", "contrast", "saturation")]
        factors[2] = torch.where(drawn["grey"] < n.grey, 0.0, factors[2])
        if n.brightness or n.contrast or n.saturation or n.hue or n.grey:
            x = recolour(x, *factors, (drawn["hue"] * 2 - 1) * n.hue)
        if (some := torch.nonzero(drawn["blur"] < n.blur).flatten()).numel():
            x[some] = blur(x[some], drawn["sigma"][some] * n.blur_sigma)
        if (some := torch.nonzero(drawn["jpeg"] < n.jpeg).flatten()).numel():
            x[some] = jpeg(x[some], n.jpeg_quality + (95 - n.jpeg_quality) * drawn["quality"][some])
        return x

    def _erase(self, x: Tensor, y: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if not self.numbers.erase:
            return x, y
        low, high = self.numbers.erase_area
        area = low + (high - low) * drawn["erase_area"]
        aspect = torch.exp((drawn["erase_aspect"] * 2 - 1) * math.log(3))
        gone = boxes(area, aspect, torch.stack([drawn["erase_x"], drawn["erase_y"]], 1), self.size)
        gone &= (drawn["erase"] < self.numbers.erase)[:, None, None]
        colour = torch.stack([drawn[f"erase_{name}"] for name in ("red", "green", "blue")], 1)[:, :, None, None]
        # Nothing of a class is seen there, so there is nothing to learn of it either.
        return torch.where(gone[:, None], colour, x), torch.where(gone, IGNORE_INDEX, y)

"""One homography for each photograph of a batch: turns, zooms, windows around rare classes, and the sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.hierarchy import IGNORE_INDEX

# Beyond this many source pixels for one target pixel the source is halved first, or fine texture would flicker.
COARSE = 1.5


def homographies(centre: Tensor, zoom: Tensor, angle: Tensor, tilt: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 3, 3) matrices that take a target's coordinates to those of its source, both from -1 to 1.

    `centre` (B, 2) is the source point (x, y) in the target's middle; `zoom` (B,) above 1 enlarges; `angle` (B,) is in
    radians; `tilt` (B, 2) is the perspective along x and y, 0 for none. `size` (height, width) keeps turns rigid in
    pixels.
    """
    high, wide = size
    one, zero = torch.ones_like(zoom), torch.zeros_like(zoom)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    moved = [(cos, -sin * (high / wide), centre[:, 0]), (sin * (wide / high), cos, centre[:, 1]), (zero, zero, one)]
    bent = [(one, zero, zero), (zero, one, zero), (tilt[:, 0], tilt[:, 1], one)]
    moved, bent = (torch.stack([torch.stack(row, 1) for row in rows], 1) for rows in (moved, bent))
    return moved @ bent


def warp(images: Tensor, masks: Tensor, matrices: Tensor, size: Sequence[int], fill: Tensor) -> tuple[Tensor, Tensor]:
    """Sample photographs (B, 3, h, w) float, bilinear, and ids (B, h, w), nearest, at `size` through homographies.

    What lies outside the source becomes `fill` (3,) in the photograph and 255 in the mask.
    """
    grid = _grid(matrices, size)
    fill = fill.to(images).view(3, 1, 1)
    shifted = images - fill
    out = F.grid_sample(shifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    step = (grid[:, :, 1:] - grid[:, :, :-1]).norm(dim=-1).mean((1, 2)) * (images.shape[-1] / 2)
    if (coarse := torch.nonzero(step > COARSE).flatten()).numel():
        half = [math.ceil(side / 2) for side in images.shape[-2:]]
        small = F.interpolate(shifted[coarse], half, mode="area")
        out[coarse] = F.grid_sample(small, grid[coarse], mode="bilinear", padding_mode="zeros", align_corners=False)
    # Ids less 255, so that the zeros which stand for 'outside' mean 255.
    ids = (masks.to(grid.dtype) - IGNORE_INDEX)[:, None]
    ids = F.grid_sample(ids, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0] + IGNORE_INDEX
    return out + fill, ids.round().to(masks.dtype)


def _grid(matrices: Tensor, size: Sequence[int]) -> Tensor:
    high, wide = size
    x = (torch.arange(wide, device=matrices.device) + 0.5) * (2 / wide) - 1
    y = (torch.arange(high, device=matrices.device) + 0.5) * (2 / high) - 1
    points = torch.stack([x.expand(high, wide), y[:, None].expand(high, wide), torch.ones(high, wide).to(x)], -1)
    found = points.view(1, -1, 3).to(matrices.dtype) @ matrices.transpose(1, 2)
    return (found[..., :2] / found[..., 2:].clamp(min=1e-3)).view(-1, high, wide, 2)


def rare_pixels(masks: Tensor, rarity: Tensor, chances: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """For each mask (B, h, w) a pixel of a class drawn by rarity: its place (B, 2) as (x, y) from -1 to 1, and whether.

    A class takes part with at least `least` pixels in the photograph, with weight `rarity` (C,); `chances` (B, 2) in
    0..1 draw the class and the pixel. Where no class takes part, the second result (B,) is False.
    """
    batch, high, wide = masks.shape
    flat = masks.reshape(batch, -1).long()
    rows = torch.arange(batch, device=masks.device)
    counts = torch.bincount((flat + 256 * rows[:, None]).flatten(), minlength=256 * batch)
    counts = counts.view(batch, 256)[:, : len(rarity)]
    weights = torch.where(counts >= least, rarity.to(masks.device), 0.0)
    total = weights.sum(1)
    below = weights.cumsum(1) <= (chances[:, 0] * total)[:, None]
    chosen = below.sum(1).clamp(max=len(rarity) - 1)
    place = (flat == chosen[:, None]).cumsum(1)
    nth = (chances[:, 1] * place[:, -1]).long().clamp(min=0) + 1
    pixel = torch.searchsorted(place, nth[:, None])[:, 0].clamp(max=high * wide - 1)
    x, y = (pixel % wide + 0.5) * (2 / wide) - 1, (pixel // wide + 0.5) * (2 / high) - 1
    return torch.stack([x, y], 1).to(chances.dtype), total > 0

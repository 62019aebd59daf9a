"""Light and colour of a batch, each photograph by its own numbers: a colour matrix, blur, JPEG's blocks, erasing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
# Table K.1 of ITU-T T.81 (JPEG), luminance.
QUANTISATION = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 under factors (B,), 1 for no change, and hue turned by `hue` (B,) of the colour circle.

    Contrast is taken about the photograph's mean grey. All four are one matrix and one offset, as each is linear.
    """
    luma = torch.tensor(LUMA, device=images.device, dtype=images.dtype)
    mean = torch.einsum("c,bchw->b", luma, images) / images[0, 0].numel()
    grey = luma.expand(3, 3)
    factor = saturation.view(-1, 1, 1)
    matrix = factor * torch.eye(3).to(grey) + (1 - factor) * grey
    matrix = matrix @ _hue_matrix(hue) * (brightness * contrast).view(-1, 1, 1)
    offset = (mean * brightness * (1 - contrast)).view(-1, 1, 1, 1)
    return (torch.einsum("bij,bjhw->bihw", matrix, images) + offset).clamp(0, 1)


def _hue_matrix(hue: Tensor) -> Tensor:
    """(B, 3, 3) rotations about the grey axis (Rodrigues' formula)."""
    angle = (hue * 2 * math.pi).view(-1, 1, 1)
    axis = torch.full((3, 3), 1 / 3).to(hue)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(hue) / math.sqrt(3)
    return angle.cos() * torch.eye(3).to(hue) + (1 - angle.cos()) * axis + angle.sin() * cross


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """(B, 3, H, W) under Gaussians of `sigma` (B,) pixels."""
    reach = max(1, math.ceil(3 * float(sigma.max())))
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    planes = images.reshape(1, -1, *images.shape[-2:])
    for shape, pad in (((-1, 1, 1, len(at)), (reach, reach, 0, 0)), ((-1, 1, len(at), 1), (0, 0, reach, reach))):
        planes = F.conv2d(F.pad(planes, pad, mode="replicate"), kernel.view(shape), groups=planes.shape[1])
    return planes.view_as(images)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 with the blocks of a JPEG of `quality` (B,) 1..100, by one table for all three channels.

    An approximation for training: luminance's table everywhere, no subsampling of colour, no coding.
    """
    high, wide = images.shape[-2:]
    padded = F.pad(images * 255 - 128, (0, -wide % 8, 0, -high % 8), mode="replicate")
    at = torch.arange(8.0, device=images.device, dtype=images.dtype)
    cosines = torch.cos((2 * at + 1) * at[:, None] * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = torch.tensor(QUANTISATION, device=images.device, dtype=images.dtype).view(8, 8)
    table = (table * scale.view(-1, 1, 1)).clamp(min=1).view(-1, 1, 1, 8, 1, 8)
    batch, _, rows, columns = padded.shape
    blocks = padded.view(batch, 3, rows // 8, 8, columns // 8, 8)
    coded = torch.einsum("ui,bchiwj,vj->bchuwv", cosines, blocks, cosines)
    coded = (coded / table).round() * table
    blocks = torch.einsum("ui,bchuwv,vj->bchiwj", cosines, coded, cosines)
    return ((blocks.reshape(padded.shape)[..., :high, :wide] + 128) / 255).clamp(0, 1)


def boxes(area: Tensor, aspect: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) bool of one rectangle each: its share `area` (B,) of the picture, its width by its height, its place.

    `place` (B, 2) in 0..1 moves it from one edge to the other, across and down.
    """
    high, wide = size
    tall, broad = (area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)
    y = (torch.arange(high, device=area.device) + 0.5) / high
    x = (torch.arange(wide, device=area.device) + 0.5) / wide
    top, left = (place[:, 1] * (1 - tall))[:, None], (place[:, 0] * (1 - broad))[:, None]
    down, across = (y >= top) & (y < top + tall[:, None]), (x >= left) & (x < left + broad[:, None])
    return down[:, :, None] & across[:, None, :]

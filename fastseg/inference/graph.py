"""What is exported: a network that gives a mask's logits alone, and one that takes photographs as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastseg.data.framing import PADDING, MaskFraming


class Logits(nn.Module):
    """A network (N, 3, h, w) → logits (N, C, h, w), without those of an auxiliary head."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logits of normalised photographs."""
        found = self.network(image)
        return found if isinstance(found, Tensor) else found[0]


class Photographs(nn.Module):
    """A network from a photograph (H, W, 3) uint8 of any size to its leaf ids (H, W) uint8 and their probability.

    Framing, normalisation, enlarging and the choice of the largest leaf are those of `evaluate` at native size. They
    are written with products and look-ups whose sizes follow from the photograph's, since no runtime but torch has all
    of its operators for them: resizing is linear, a matrix for each axis.
    """

    def __init__(self, network: nn.Module, card: Mapping[str, Any]):
        super().__init__()
        self.network = Logits(network)
        self.framing = MaskFraming.whole(card["size"], card["resize"])
        self.leaves, self.softmax = len(card["classes"]), card.get("head", "leaves") == "leaves"
        for name, values in (("mean", card["mean"]), ("std", card["std"])):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("colour", torch.tensor(PADDING, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, photograph: Tensor) -> tuple[Tensor, Tensor]:
        """(H, W) ids and (H, W) float32, the probability of the leaf that is chosen."""
        rows, columns = (torch.arange(side, device=photograph.device) for side in photograph.shape[:2])
        boxes = _boxes(self.framing, rows, columns)
        down, across = (
            _shrinking(side, own, box) for side, own, box in zip(self.framing.size, (rows, columns), boxes, strict=True)
        )
        # Rounded after each axis, first along rows, as 8-bit resizing does it.
        frame = _rounded(down @ _rounded(photograph.permute(2, 0, 1).float() @ across.T))
        if self.framing.pad:
            within = down.sum(1, keepdim=True) * across.sum(1)
            frame = frame + (1 - within) * self.colour
        logits = self.network(((frame - self.mean) / self.std)[None])[0, : self.leaves]
        for dim, (own, box) in enumerate(zip((rows, columns), boxes, strict=True), 1):
            logits = _enlarged(logits, dim, own, box)
        best, ids = logits.max(0)
        return ids.to(torch.uint8), 1 / (logits - best).exp().sum(0) if self.softmax else best.sigmoid()


def _boxes(framing: MaskFraming, rows: Tensor, columns: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """For each axis the first pixel and the number of pixels of a photograph within its frame, as `MaskFraming.box`."""
    own = torch.stack([rows[-1], columns[-1]]).double() + 1
    sides = torch.tensor(framing.size, dtype=torch.float64, device=rows.device)
    inner = sides
    if framing.pad:
        inner = torch.minimum((own * (sides / own).min()).round().clamp(min=1), sides)
    start = ((sides - inner) / 2).floor()
    return (start[0], inner[0]), (start[1], inner[1])


def _shrinking(side: int, own: Tensor, box: tuple[Tensor, Tensor]) -> Tensor:
    """(side, len(own)) float32: what each pixel of a photograph weighs in each of the frame, bilinear, antialiased.

    Pillow's triangle, as wide as a pixel of the frame; rows outside the box are zero.
    """
    start, inner = box
    place = torch.arange(side, device=own.device).double() - start
    scale = (own[-1] + 1) / inner
    distance = (own + 0.5) - (place[:, None] + 0.5) * scale
    weights = (1 - distance.abs() / scale.clamp(min=1)).clamp(min=0)
    inside = ((place >= 0) & (place < inner)).double()[:, None]
    return (inside * weights / weights.sum(1, keepdim=True).clamp(min=1e-9)).float()


def _enlarged(logits: Tensor, dim: int, own: Tensor, box: tuple[Tensor, Tensor]) -> Tensor:
    """Logits with one axis brought from the frame's box to the photograph's own pixels, bilinear, edges repeated."""
    start, inner = box
    place = torch.minimum(((own + 0.5) * (inner / (own[-1] + 1)) - 0.5).clamp(min=0), inner - 1)
    low = place.floor()
    high = torch.minimum(low + 1, inner - 1)
    share = (place - low).float().view([-1 if i == dim else 1 for i in range(3)])
    near, far = (logits.index_select(dim, (start + at).long()) for at in (low, high))
    return near + (far - near) * share


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)

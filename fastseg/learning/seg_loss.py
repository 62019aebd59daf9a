"""What all losses share: what fastai asks of a loss beside its value, and which logits of a head one reads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fastseg.hierarchy import IGNORE_INDEX

Reduction = Literal["mean", "sum", "none"]


class SegLoss(nn.Module):
    """Base of the losses over logits (B, C, ...) and leaf ids (B, ...).

    `reduction` may be set at any time: `mean` gives the loss that is minimised, `none` one value for each photograph,
    (B,), and `sum` their sum. Half precision is raised to float32, float64 stays. A batch without any pixel to count
    gives 0 with a gradient. Plain and typed tensors are taken alike. `leaves` is the number of leading channels that
    are the leaves' logits, for a head that has others behind them; none: all.
    """

    head: Literal["leaves", "nodes"] = "leaves"

    def __init__(self, reduction: Reduction = "mean", ignore_index: int = IGNORE_INDEX, leaves: int | None = None):
        super().__init__()
        self.reduction, self.ignore_index, self.leaves = reduction, ignore_index, leaves

    def activation(self, logits: Tensor) -> Tensor:
        """Logits → probabilities of the leaves, (B, C, ...)."""
        return logits[:, : self.leaves].softmax(1)

    def decodes(self, scores: Tensor) -> Tensor:
        """Logits, or what `activation` makes of them → leaf ids (B, ...)."""
        return scores[:, : self.leaves].argmax(1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, ...) logits and (B, ...) leaf ids → a scalar, or (B,) where `reduction` is `none`.

        Raises `ValueError` for shapes that do not belong together, and for too few channels.
        """
        logits, target = logits.as_subclass(Tensor), target.as_subclass(Tensor).long()
        if logits.dim() < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(
                f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; (B, C, ...) and (B, ...)"
            )
        logits = self.own_logits(logits)
        # autocast would take sums and products back to half precision behind our backs.
        with torch.autocast(logits.device.type, enabled=False):
            if logits.dtype in (torch.float16, torch.bfloat16):
                logits = logits.float()
            if self.reduction == "mean":
                return self.batch_loss(logits, target)
            each = self.photograph_losses(logits, target)
            return each.sum() if self.reduction == "sum" else each

    def own_logits(self, logits: Tensor) -> Tensor:
        """The channels that this loss reads."""
        if self.leaves and logits.shape[1] < self.leaves:
            raise ValueError(f"logits have {logits.shape[1]} channels, the classes are {self.leaves}")
        return logits[:, : self.leaves]

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar that is minimised."""
        raise NotImplementedError

    def photograph_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B,): the loss of each photograph as if it were a batch of its own."""
        return torch.stack([self.batch_loss(x[None], y[None]) for x, y in zip(logits, target, strict=True)])

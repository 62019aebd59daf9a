"""Losses of how a class's pixels overlap with the truth's: IoU, Dice, Tversky and Lovász, at any levels of a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.learning.seg_loss import SegLoss


class OverlapLoss(SegLoss):
    """Base of the losses over softmax probabilities p and one-hot targets y of whole classes, at any levels of a tree.

    A loss for each class over the pixels of the batch (or, with `per_image`, of each photograph, then averaged over
    those that hold any class), averaged over classes; with several levels, the weighted mean over levels of the loss
    on that level's marginal probabilities.

    `levels` maps level → weight, or lists levels of equal weight (default: the leaves alone), and needs `hierarchy`.
    `background` counts it as a class. `classes` averages over those present in the masks, or all; without any class
    the loss is 0. Raises `InputError` for levels the tree has not, and weights below 0 or all 0.
    """

    def __init__(self, hierarchy: Hierarchy | None = None, levels: Mapping[int, float] | Sequence[int] | None = None,
                 per_image: bool = False, background: bool = False, classes: Literal["present", "all"] = "present",
                 **kwargs: Any):  # fmt: skip
        super().__init__(**{"leaves": None if hierarchy is None else len(hierarchy), **kwargs})
        name = type(self).__name__
        if levels and hierarchy is None:
            raise InputError(f"{name}: levels need a hierarchy")
        if classes not in ("present", "all"):
            raise InputError(f"{name}: classes {classes!r} is neither 'present' nor 'all'")
        chosen = levels if isinstance(levels, Mapping) else dict.fromkeys(levels or (), 1.0)
        self.hierarchy, self.levels = hierarchy, dict(chosen or {-1: 1.0})
        for level in chosen:
            hierarchy.level(level)
        if min(self.levels.values()) < 0 or not sum(self.levels.values()) > 0:
            raise InputError(f"{name}: the levels' weights must not be negative, nor all 0")
        self.per_image, self.background, self.classes = per_image, background, classes

    def class_losses(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        """(B, K, P) probabilities and targets, both 0 on ignored pixels → (K,) over dims (0, 2), (B, K) over (2,)."""
        raise NotImplementedError

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Over the batch as one picture, or the mean over its photographs that hold any class."""
        values, counted = self._per_group(logits, target, one_group=not self.per_image)
        return values.sum() / counted.sum().clamp(min=1)

    def photograph_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B,): each photograph by itself."""
        return self._per_group(logits, target, one_group=False)[0]

    def _per_group(self, logits: Tensor, target: Tensor, one_group: bool) -> tuple[Tensor, Tensor]:
        """Loss of each group of pixels (one for the batch or one a photograph), and whether it holds any class."""
        valid, leaves = (target != self.ignore_index).unsqueeze(1), logits.shape[1]
        probs = logits.softmax(1) * valid
        ids = torch.arange(leaves, device=target.device).view(1, -1, *[1] * (target.dim() - 1))
        onehot = ((target.unsqueeze(1) == ids) & valid).to(probs.dtype)
        losses, counted = 0, 0
        for level, weight in self.levels.items():
            p, y = (
                (probs, onehot)
                if self.hierarchy is None
                else (self.hierarchy.marginals(probs, level), self.hierarchy.marginals(onehot, level))
            )
            keep = self._classes(level, leaves)
            value, any_class = self._level(p[:, keep].flatten(2), y[:, keep].flatten(2), one_group)
            losses, counted = losses + weight * value, counted + weight * any_class
        total = sum(self.levels.values())
        return losses / total, counted / total

    def _level(self, p: Tensor, y: Tensor, one_group: bool) -> tuple[Tensor, Tensor]:
        over = (0, 2) if one_group else (2,)
        loss = self.class_losses(p, y, over)
        present = (y.sum(over) > 0) if self.classes == "present" else torch.ones_like(loss, dtype=torch.bool)
        count = present.sum(-1)
        mean = (loss * present).sum(-1) / count.clamp(min=1)
        return mean.reshape(-1), (count > 0).to(p.dtype).reshape(-1)

    def _classes(self, level: int, leaves: int) -> list[int]:
        if self.hierarchy is None:
            return list(range(0 if self.background else 1, leaves))
        return list(range(len(self.hierarchy.names(level)))) if self.background else self.hierarchy.foreground(level)


class TverskyLoss(OverlapLoss):
    """1 − (TP + s) / (TP + α·FP + β·FN + s) for each class (Salehi et al. 2017), otherwise as `OverlapLoss`.

    TP = Σ p·y, FP = Σ p·(1 − y), FN = Σ (1 − p)·y; `smooth` (s) is in pixels. β above α asks rather for missed pixels
    than for false ones. smp's `TverskyLoss` and `DiceLoss` count absent classes as perfect, and know neither single
    photographs nor levels.
    """

    def __init__(self, hierarchy: Hierarchy | None = None, levels: Mapping[int, float] | Sequence[int] | None = None,
                 per_image: bool = False, background: bool = False, classes: Literal["present", "all"] = "present",
                 smooth: float = 1e-3, alpha: float = 0.3, beta: float = 0.7, **kwargs: Any):  # fmt: skip
        super().__init__(hierarchy, levels, per_image, background, classes, **kwargs)
        if min(alpha, beta) < 0:
            raise InputError(f"{type(self).__name__}: alpha {alpha} and beta {beta} must not be negative")
        self.smooth, self.alpha, self.beta = smooth, alpha, beta

    def class_losses(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        """By sums over pixels."""
        both, ps, ys = (p * y).sum(over), p.sum(over), y.sum(over)
        return 1 - (both + self.smooth) / (both + self.alpha * (ps - both) + self.beta * (ys - both) + self.smooth)


class IoULoss(TverskyLoss):
    """Soft Jaccard loss: 1 − (Σ p·y + s) / (Σ p + Σ y − Σ p·y + s) for each class, otherwise as `OverlapLoss`.

    The differentiable twin of the mean IoUs that are scored (Rahman & Wang 2016, eq. 3–5); Tversky with α = β = 1.
    """

    def __init__(self, hierarchy: Hierarchy | None = None, levels: Mapping[int, float] | Sequence[int] | None = None,
                 per_image: bool = False, background: bool = False, classes: Literal["present", "all"] = "present",
                 smooth: float = 1e-3, **kwargs: Any):  # fmt: skip
        super().__init__(hierarchy, levels, per_image, background, classes, smooth, 1.0, 1.0, **kwargs)


class DiceLoss(TverskyLoss):
    """1 − (2·Σ p·y + 2s) / (Σ p + Σ y + 2s) for each class (Milletari et al. 2016), otherwise as `OverlapLoss`.

    Tversky with α = β = ½.
    """

    def __init__(self, hierarchy: Hierarchy | None = None, levels: Mapping[int, float] | Sequence[int] | None = None,
                 per_image: bool = False, background: bool = False, classes: Literal["present", "all"] = "present",
                 smooth: float = 1e-3, **kwargs: Any):  # fmt: skip
        super().__init__(hierarchy, levels, per_image, background, classes, smooth, 0.5, 0.5, **kwargs)


class LovaszLoss(OverlapLoss):
    """Lovász-Softmax: the convex extension of 1 − IoU to errors |y − p| (Berman et al., CVPR 2018, alg. 1).

    For each class the errors m, sorted from the largest, times the growth of 1 − IoU as their pixels turn wrong one
    after the other; otherwise as `OverlapLoss`. smp's `LovaszLoss` breaks on a photograph without any class, always
    counts background, and takes the growth as a difference of nearly equal float32 numbers.
    """

    def class_losses(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        """By sorting; ignored pixels have error 0 and belong to no class, so they come last and add nothing."""
        if over == (0, 2):
            p, y = (values.transpose(0, 1).flatten(1) for values in (p, y))
        errors, order = (y - p).abs().sort(-1, descending=True)
        truth = y.gather(-1, order)
        return (errors * _jaccard_growth(truth)).sum(-1)


def _jaccard_growth(truth: Tensor) -> Tensor:
    """(..., P) 0 / 1 in the order of errors → by how much 1 − IoU grows as each pixel turns wrong.

    With I and U intersection and union afterwards: 1 / U for a pixel of the class, I / (U · (U − 1)) for another.
    """
    size = truth.sum(-1, keepdim=True)
    missed = truth.cumsum(-1)
    union = size + torch.arange(1, truth.shape[-1] + 1, device=truth.device, dtype=truth.dtype) - missed
    growth = torch.where(truth > 0, 1 / union, (size - missed) / (union * (union - 1).clamp(min=1)))
    # Of an absent class the first false pixel takes the IoU from 1 to 0.
    growth[..., :1] += size == 0
    return growth

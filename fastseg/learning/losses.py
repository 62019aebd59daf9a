"""Everything minimised: fastai loss objects over logits (B, C, ...) and leaf ids (B, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy
from fastseg.settings import CrossEntropySettings, Settings

Reduction = Literal["mean", "sum", "none"]


class SegLoss(nn.Module):
    """Base of the losses: what fastai asks of one beside its value.

    `reduction` may be set at any time: `mean` gives the loss that is minimised, `none` one value for each photograph,
    (B,), and `sum` their sum. Half precision is raised to float32. A batch without any pixel to count gives 0 with a
    gradient. Plain and typed tensors are taken alike.
    """

    def __init__(self, reduction: Reduction = "mean", ignore_index: int = IGNORE_INDEX):
        super().__init__()
        self.reduction, self.ignore_index = reduction, ignore_index

    def activation(self, logits: Tensor) -> Tensor:
        """Logits → probabilities of the leaves."""
        return logits.softmax(1)

    def decodes(self, scores: Tensor) -> Tensor:
        """Logits or probabilities → leaf ids."""
        return scores.argmax(1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C, ...) logits and (B, ...) leaf ids → a scalar, or (B,) where `reduction` is `none`."""
        logits, target = _plain(logits), _plain(target).long()
        if logits.dim() < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(
                f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; (B, C, ...) and (B, ...)"
            )
        # autocast would take sums and products back to half precision behind our backs.
        with torch.autocast(logits.device.type, enabled=False):
            if logits.dtype in (torch.float16, torch.bfloat16):
                logits = logits.float()
            if self.reduction == "mean":
                return self.batch_loss(logits, target)
            each = self.photograph_losses(logits, target)
            return each.sum() if self.reduction == "sum" else each

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The scalar that is minimised."""
        raise NotImplementedError

    def photograph_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B,): the loss of each photograph as if it were a batch of its own."""
        return torch.stack([self.batch_loss(x[None], y[None]) for x, y in zip(logits, target, strict=True)])


class CrossEntropy(SegLoss):
    """Pixel-wise cross-entropy: the weighted mean of −log p(target) over all pixels that have a class."""

    def __init__(self, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum over pixels divided by the sum of their class weights, which for all-ignored masks would be 0 / 0."""
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        total = F.cross_entropy(
            logits,
            target,
            weights,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        valid = target != self.ignore_index
        count = valid.sum() if weights is None else weights[target[valid]].sum()
        return total / count.clamp(min=torch.finfo(logits.dtype).tiny)


class IoULoss(SegLoss):
    """Soft Jaccard loss over softmax probabilities p and one-hot targets y, at any levels of a class tree.

    For each class 1 − (Σ p·y + s) / (Σ p + Σ y − Σ p·y + s), summed over the pixels of the batch (or of each
    photograph, then averaged), averaged over classes; with several levels, the weighted mean over levels of the loss on
    that level's marginal probabilities. It is the differentiable twin of the mean IoUs that are scored (Rahman & Wang
    2016, eq. 3–5).

    `levels` maps level → weight, or lists levels of equal weight (default: the leaves alone), and needs `hierarchy`.
    `classes` averages over those present in the masks, or all. Without any class the loss is 0. `smooth` (s) is in
    pixels.
    """

    def __init__(self, hierarchy: Hierarchy | None = None, levels: Mapping[int, float] | Sequence[int] | None = None,
                 per_image: bool = False, background: bool = False, classes: Literal["present", "all"] = "present",
                 smooth: float = 1e-3, **kwargs):  # fmt: skip
        super().__init__(**kwargs)
        if levels and hierarchy is None:
            raise InputError("IoULoss: levels need a hierarchy")
        if classes not in ("present", "all"):
            raise InputError(f"IoULoss: classes {classes!r} is neither 'present' nor 'all'")
        chosen = levels if isinstance(levels, Mapping) else dict.fromkeys(levels or (), 1.0)
        self.hierarchy, self.levels = hierarchy, dict(chosen or {-1: 1.0})
        for level in chosen:
            hierarchy.level(level)
        if min(self.levels.values()) < 0 or not sum(self.levels.values()) > 0:
            raise InputError("IoULoss: the levels' weights must not be negative, nor all 0")
        self.per_image, self.background, self.classes, self.smooth = per_image, background, classes, smooth

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Over the batch as one picture, or the mean over its photographs that hold any class."""
        values, counted = self._per_group(logits, target, one_group=not self.per_image)
        return values.sum() / counted.sum().clamp(min=1)

    def photograph_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B,): each photograph by itself."""
        return self._per_group(logits, target, one_group=False)[0]

    def _per_group(self, logits: Tensor, target: Tensor, one_group: bool) -> tuple[Tensor, Tensor]:
        """Loss of each group of pixels (one for the batch or one a photograph), and whether it holds any class."""
        valid = target != self.ignore_index
        leaves = logits.shape[1]
        probs = logits.softmax(1) * valid.unsqueeze(1)
        onehot = F.one_hot(torch.where(valid, target, leaves), leaves + 1)[..., :leaves].movedim(-1, 1).to(probs.dtype)
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
        both, ps, ys = (p * y).sum(over), p.sum(over), y.sum(over)
        loss = 1 - (both + self.smooth) / (ps + ys - both + self.smooth)
        present = (ys > 0) if self.classes == "present" else torch.ones_like(ys, dtype=torch.bool)
        count = present.sum(-1)
        mean = (loss * present).sum(-1) / count.clamp(min=1)
        return mean.reshape(-1), (count > 0).to(p.dtype).reshape(-1)

    def _classes(self, level: int, leaves: int) -> list[int]:
        if self.hierarchy is None:
            return list(range(0 if self.background else 1, leaves))
        return list(range(len(self.hierarchy.names(level)))) if self.background else self.hierarchy.foreground(level)


class SumLoss(SegLoss):
    """Weighted sum of named losses; `values` holds each part's last value, unweighted, for logging."""

    def __init__(self, parts: Mapping[str, tuple[float, SegLoss]], **kwargs):
        self._reduction: Reduction = "mean"
        super().__init__(**kwargs)
        self.parts = nn.ModuleDict({name: loss for name, (_, loss) in parts.items()})
        self.weights = {name: float(weight) for name, (weight, _) in parts.items()}
        self.values: dict[str, Tensor] = {}
        self.reduction = self._reduction

    @property
    def reduction(self) -> Reduction:
        """Shared by all parts."""
        return self._reduction

    @reduction.setter
    def reduction(self, value: Reduction) -> None:
        self._reduction = value
        for part in self._modules.get("parts", {}).values():
            part.reduction = value

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum over parts of weight × loss, reduced as each part is."""
        values = {name: part(logits, target) for name, part in self.parts.items()}
        self.values = {name: value.detach() for name, value in values.items()}
        return sum(self.weights[name] * value for name, value in values.items())


def build_loss(cfg: Settings) -> SegLoss:
    """The loss object of a configuration's `loss:` list."""
    tree = cfg.classes()
    parts: dict[str, tuple[float, SegLoss]] = {}
    for settings in cfg.loss:
        args = settings.model_dump(exclude={"name", "weight"})
        loss = CrossEntropy(**args) if isinstance(settings, CrossEntropySettings) else IoULoss(tree, **args)
        taken = sum(name.split("-")[0] == settings.name for name in parts)
        parts[f"{settings.name}-{taken + 1}" if taken else settings.name] = (settings.weight, loss)
    (weight, only), *others = parts.values()
    return only if not others and weight == 1 else SumLoss(parts)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)

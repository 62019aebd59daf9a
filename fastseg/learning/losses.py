"""Everything minimised: losses of single pixels, their weighted sum, and the losses that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.learning.balance import class_weights
from fastseg.learning.overlap import DiceLoss, IoULoss, LovaszLoss, TverskyLoss
from fastseg.learning.seg_loss import Reduction, SegLoss
from fastseg.learning.tree_losses import LevelCELoss, TreeMinLoss
from fastseg.loss_settings import LossSettings
from fastseg.settings import Settings

# What `loss:` names, and whether it is built on the class tree or on the number of its leaves.
KINDS: dict[str, type[SegLoss]] = {"iou": IoULoss, "dice": DiceLoss, "tversky": TverskyLoss, "lovasz": LovaszLoss,
                                   "level_ce": LevelCELoss, "tree_min": TreeMinLoss}  # fmt: skip


class CrossEntropy(SegLoss):
    """Pixel-wise cross-entropy: the weighted mean of −log p(target) over all pixels that have a class.

    Σ w_t · (−log p_t) / Σ w_t for softmax probabilities p and truths t; with `label_smoothing` ε the target is 1 − ε
    at the truth plus ε / C everywhere. `class_weights` is one number a leaf, or none.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("class_weights", _as_buffer(class_weights), persistent=False)
        self.label_smoothing = label_smoothing

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum over pixels divided by the sum of their class weights, which for all-ignored masks would be 0 / 0."""
        total = F.cross_entropy(
            logits,
            target,
            None if self.class_weights is None else self.class_weights.to(logits.dtype),
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        weights = _pixel_weights(self.class_weights, target, self.ignore_index, logits.dtype)
        return total / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)


class FocalLoss(SegLoss):
    """Cross-entropy that turns away from pixels already right (Lin et al. 2017, eq. 5, for softmax probabilities).

    Σ α_t · (1 − p_t)^γ · (−log p_t) / Σ α_t over all pixels that have a class; γ = 0 is `CrossEntropy`. `alpha` is one
    number a leaf, or none. smp's `FocalLoss` is the mean of one-against-all losses on sigmoids, another loss that does
    not fit a softmax head.
    """

    def __init__(self, gamma: float = 2.0, alpha: Sequence[float] | None = None, **kwargs):
        super().__init__(**kwargs)
        if gamma < 0:
            raise InputError(f"FocalLoss: gamma {gamma} is below 0")
        self.register_buffer("alpha", _as_buffer(alpha), persistent=False)
        self.gamma = gamma

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum over pixels divided by the sum of their alphas."""
        each = F.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="none")
        # Kept off 0, where a power below 1 has no slope.
        missed = (-torch.expm1(-each)).clamp(min=torch.finfo(logits.dtype).tiny)
        weights = _pixel_weights(self.alpha, target, self.ignore_index, logits.dtype)
        total = (weights * missed**self.gamma * each).sum()
        return total / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)


class SumLoss(SegLoss):
    """Weighted sum of named losses; `values` holds each part's last value, unweighted, for logging.

    Parts may read one head together: the leaves' logits are its first channels. Probabilities and ids come from the
    part that knows the whole head.
    """

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

    def activation(self, logits: Tensor) -> Tensor:
        """Logits → probabilities of the leaves, (B, C, ...)."""
        return self._reader.activation(logits)

    def decodes(self, scores: Tensor) -> Tensor:
        """Logits, or what `activation` makes of them → leaf ids (B, ...)."""
        return self._reader.decodes(scores)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum over parts of weight × loss, reduced as each part is."""
        values = {name: part(logits, target) for name, part in self.parts.items()}
        self.values = {name: value.detach() for name, value in values.items()}
        return sum(self.weights[name] * value for name, value in values.items())

    @property
    def _reader(self) -> SegLoss:
        parts = list(self.parts.values())
        return next((part for part in parts if part.head == "nodes"), parts[0])


def build_loss(cfg: Settings, counts: np.ndarray | None = None) -> SegLoss:
    """The loss object of a configuration's `loss:` list.

    `counts` are the training masks' pixels of each leaf; `InputError` where a loss is weighted by them and they are
    not given.
    """
    tree = cfg.classes()
    parts: dict[str, tuple[float, SegLoss]] = {}
    for settings in cfg.loss:
        loss = _build(settings, tree, counts)
        taken = sum(name.split("-")[0] == settings.name for name in parts)
        parts[f"{settings.name}-{taken + 1}" if taken else settings.name] = (settings.weight, loss)
    (weight, only), *others = parts.values()
    return only if not others and weight == 1 else SumLoss(parts)


def _build(settings: LossSettings, tree: Hierarchy, counts: np.ndarray | None) -> SegLoss:
    args = settings.model_dump(exclude={"name", "weight", "class_beta"})
    if settings.name in KINDS:
        return KINDS[settings.name](tree, **args)
    key = "class_weights" if settings.name == "cross_entropy" else "alpha"
    if settings.counted:
        if counts is None:
            raise InputError(f"loss: {settings.name}'s {key}: {args[key]} counts the configured data's training masks; "
                             "with DataLoaders of your own set dls.pixel_counts, or give the numbers")  # fmt: skip
        args[key] = class_weights(counts, args[key], settings.class_beta)
    return (CrossEntropy if settings.name == "cross_entropy" else FocalLoss)(**args, leaves=len(tree))


def _as_buffer(weights: Sequence[float] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)


def _pixel_weights(weights: Tensor | None, target: Tensor, ignore_index: int, dtype: torch.dtype) -> Tensor:
    """(B, ...): each pixel's weight by its class; 0 where it has none."""
    valid = target != ignore_index
    return valid.to(dtype) if weights is None else weights.to(dtype)[torch.where(valid, target, 0)] * valid

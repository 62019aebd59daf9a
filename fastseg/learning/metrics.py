"""Everything scored: one confusion matrix over the leaves, folded to the IoUs of every level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from fastai.learner import Learner
from fastai.learner import Metric as FastaiMetric
from torch import Tensor
from torchmetrics import Metric

from fastseg.decoding import Decode, Head, check_decoding
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

Definition = Literal["dataset", "image", "image_class"]
DEFINITIONS = ("dataset", "image", "image_class")


def confusion_matrix(ids: Tensor, target: Tensor, leaves: int, per_image: bool = False) -> Tensor:
    """Pixel counts (leaves, leaves), int64, rows the truth, columns the prediction; (B, ...) of them with `per_image`.

    `ids` and `target` are integer tensors of one shape (B, ...); pixels whose target is 255 are left out. Raises
    `InputError` for other ids outside 0..leaves-1.
    """
    if ids.shape != target.shape:
        raise InputError(f"predictions are {tuple(ids.shape)}, targets {tuple(target.shape)}; they must have one shape")
    if not ids.numel():
        return ids.new_zeros((*ids.shape[:1], leaves, leaves) if per_image else (leaves, leaves), dtype=torch.int64)
    _check(ids, leaves - 1, leaves, "prediction")
    _check(target, IGNORE_INDEX, leaves, "target")
    # Bytes are the fastest integers to check and to count, and in bytes 255 + 1 wraps around to a row 0 of its own.
    rows = target.to(torch.uint8, copy=True).add_(1)
    _check(rows, leaves, leaves, "target", shift=1)
    size = (leaves + 1) * leaves
    dtype = next(d for d in (torch.uint8, torch.int16, torch.int32) if size <= torch.iinfo(d).max)
    codes = rows.to(dtype).mul_(leaves).add_(ids.to(dtype))
    if not per_image:
        return torch.bincount(codes.flatten(), minlength=size)[:size].view(leaves + 1, leaves)[1:]
    images = codes.shape[0]
    offsets = torch.arange(images, device=codes.device)[:, None] * size
    counts = torch.bincount((codes.flatten(1).long() + offsets).flatten(), minlength=images * size)
    return counts.view(images, leaves + 1, leaves)[:, 1:]


def _check(ids: Tensor, highest: int, leaves: int, what: str, shift: int = 0) -> None:
    if ids.is_floating_point():
        raise InputError(f"{what}s are {ids.dtype}; class ids are whole numbers")
    low, high = (int(v) for v in ids.aminmax())
    if low < 0 or high > highest:
        raise InputError(f"{what}: id {(low if low < 0 else high) - shift} is not in the tree (0 to {leaves - 1})")


def iou(confusion: Tensor) -> Tensor:
    """(..., n, n) counts → (..., n) float64 IoUs; NaN for a class in neither truth nor prediction."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    union = confusion.sum(-1) + confusion.sum(-2) - hits
    return hits / union.where(union > 0, torch.nan)


class LevelIoU(Metric):
    """IoUs at every level of a class tree, background excluded from the means, from one pass over the pixels.

    `definition`: `dataset` (one confusion matrix over all images), `image` (mean over photographs of the mean IoU over
    the classes in mask or prediction) or `image_class` (mean over all such photograph–class pairs, as
    `torchmetrics.segmentation.MeanIoU` has it). `compute()` gives `miou0`, `miou1`, … and `pixel_accuracy`; with
    `per_class` also `iouLEVEL_NAME` of every foreground class. A class that is nowhere is NaN and in no mean. `decode`
    (leaf, top_down or path) and `head` (leaves or nodes) say how logits become leaf ids: `Hierarchy.decode`.

    States are sums, so that processes add up. Iterating gives fastai metrics, one for each column:
    `Learner(..., metrics=LevelIoU(tree))`.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(
        self,
        hierarchy: Hierarchy,
        definition: Definition = "dataset",
        per_class: bool = False,
        decode: Decode = "leaf",
        head: Head = "leaves",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if definition not in DEFINITIONS:
            raise InputError(f"definition {definition!r} is none of {', '.join(DEFINITIONS)}")
        check_decoding(decode, head)
        self.hierarchy, self.definition, self.per_class = hierarchy, definition, per_class
        self.decode, self.head = decode, head
        leaves, depth = len(hierarchy), hierarchy.depth
        self.add_state("confusion", torch.zeros(leaves, leaves, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("image_sum", "image_count"):
            self.add_state(name, torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")
        for level in range(depth):
            for name in ("pair_sum", "pair_count"):
                zeros = torch.zeros(len(hierarchy.names(level)), dtype=torch.float64)
                self.add_state(f"{name}{level}", zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch: `preds` are (B, C, ...) logits or (B, ...) integer leaf ids, `target` (B, ...) leaf ids."""
        preds, target = preds.detach().as_subclass(Tensor), target.as_subclass(Tensor)
        ids = self.hierarchy.decode(preds, self.decode, head=self.head) if preds.is_floating_point() else preds
        counts = confusion_matrix(ids, target, len(self.hierarchy), per_image=self.definition != "dataset")
        if self.definition != "dataset":
            self._update_images(counts)
            counts = counts.sum(0)
        self.confusion += counts.to(self.confusion.device)

    def _update_images(self, counts: Tensor) -> None:
        for level in range(self.hierarchy.depth):
            ious = iou(self.hierarchy.fold(counts, level).to(self.image_sum.device))
            pairs = ~ious.isnan()
            getattr(self, f"pair_sum{level}").add_(ious.nan_to_num(0).sum(0))
            getattr(self, f"pair_count{level}").add_(pairs.sum(0))
            means = ious[:, self.hierarchy.foreground(level)].nanmean(1)
            self.image_sum[level] += means.nansum()
            self.image_count[level] += (~means.isnan()).sum()

    def class_iou(self, level: int = -1) -> Tensor:
        """(n,) IoU of each node of a level, background included, under the metric's definition."""
        if self.definition == "dataset":
            return iou(self.hierarchy.fold(self.confusion, level))
        level = range(self.hierarchy.depth)[level]
        return getattr(self, f"pair_sum{level}") / getattr(self, f"pair_count{level}")

    def mean_iou(self, level: int = -1) -> Tensor:
        """The mean IoU of a level without background; NaN where it has no class at all."""
        foreground = self.hierarchy.foreground(level)
        level = range(self.hierarchy.depth)[level]
        if self.definition == "dataset":
            return self.class_iou(level)[foreground].nanmean()
        if self.definition == "image":
            return self.image_sum[level] / self.image_count[level]
        pairs = (
            getattr(self, f"pair_sum{level}")[foreground].sum(),
            getattr(self, f"pair_count{level}")[foreground].sum(),
        )
        return pairs[0] / pairs[1]

    def compute(self) -> dict[str, Tensor]:
        """The scores by name, float64 scalars."""
        tree = self.hierarchy
        values = [self.mean_iou(level) for level in range(tree.depth)]
        values.append(self.confusion.diagonal().sum().double() / self.confusion.sum())
        if self.per_class:
            values += [self.class_iou(level)[node] for level in range(tree.depth) for node in tree.foreground(level)]
        return dict(zip(self.score_names, values, strict=True))

    @property
    def score_names(self) -> list[str]:
        """What `compute` gives, in its order."""
        tree = self.hierarchy
        means = [f"miou{level}" for level in range(tree.depth)]
        classes = [(level, node) for level in range(tree.depth) for node in tree.foreground(level)]
        named = [f"iou{level}_{tree.names(level)[node]}" for level, node in classes]
        return [*means, "pixel_accuracy", *(named if self.per_class else [])]

    def columns(self, accuracy: bool = False) -> list[Any]:
        """fastai metrics, one for each score: the means of all levels, classes if `per_class`, accuracy if asked."""
        names = [name for name in self.score_names if accuracy or name != "pixel_accuracy"]
        return [ScoreColumn(self, name, leads=i == 0) for i, name in enumerate(names)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns())


class ScoreColumn(FastaiMetric):
    """One score of a shared `LevelIoU` as a fastai metric: a float that trackers can monitor.

    The first column of a set leads: it alone counts the batches.
    """

    def __init__(self, scores: LevelIoU, column: str, leads: bool):
        self.scores, self.column, self.leads = scores, column, leads

    def reset(self) -> None:
        """Forget all counts."""
        if self.leads:
            self.scores.reset()

    def accumulate(self, learn: Learner) -> None:
        """Count the learner's batch."""
        if self.leads:
            if self.scores.confusion.device.type != learn.pred.device.type == "cuda":
                self.scores.to(learn.pred.device)
            self.scores.update(learn.pred, learn.y)

    @property
    def value(self) -> float:
        """The score over all batches since the reset; NaN before any."""
        return float(self.scores.compute()[self.column]) if self.scores.update_called else math.nan

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column


class LossPart(FastaiMetric):
    """The mean value of one part of a `SumLoss` over the validation photographs, before its weight."""

    def __init__(self, part: str):
        self.part = part

    def reset(self) -> None:
        """Forget all batches."""
        self.total, self.count = 0.0, 0

    def accumulate(self, learn: Learner) -> None:
        """Add the learner's batch."""
        values = getattr(learn.loss_func, "values", {})
        if self.part in values:
            size = len(learn.y)
            self.total += float(values[self.part].mean()) * size
            self.count += size

    @property
    def value(self) -> float:
        """The mean."""
        return self.total / self.count if self.count else math.nan

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part

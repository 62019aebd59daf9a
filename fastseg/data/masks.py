"""Masks as fastai's types, which show themselves in the tree's colours, at any of its levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from fastai.data.block import TransformBlock
from fastai.data.core import show_batch, show_results
from fastai.data.transforms import IntToFloatTensor
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision import learner  # noqa: F401  its show_results must be there first, or it would win over ours
from fastai.vision.core import PILMask
from fastai.vision.data import get_grid
from fasttransform import Transform
from PIL import Image

from fastseg.hierarchy import Hierarchy
from fastseg.plots import add_legend, draw_mask


class PartMask(TensorMask):
    """Leaf ids of one photograph or a batch, which know their class tree once decoded for showing."""

    def show(self, ctx: Any = None, level: int = -1, **kwargs: Any) -> Any:
        """Draw the ids in the colours of a level."""
        tree = getattr(self, "tree", None)
        if tree is None:
            return super().show(ctx=ctx, **kwargs)
        return draw_mask(ctx or get_grid(1)[0], np.zeros((*self.shape, 3), np.uint8), _array(self), tree, level)


class PILPartMask(PILMask):
    """The mask as a picture, before it is a tensor."""

    _tensor_cls = PartMask

    @classmethod
    def create(cls, source: Image.Image) -> PILPartMask:
        """An 8-bit picture of ids as this type (fastai's own `create` would make a `PILMask`)."""
        return cls(source)


class AddTree(Transform):
    """Give a decoded mask its class tree; `c` tells fastai's `get_c` the number of leaves."""

    def __init__(self, tree: Hierarchy):
        self.tree, self.c = tree, len(tree)

    def decodes(self, mask: PartMask):
        mask.tree = self.tree
        return mask


def PartMaskBlock(tree: Hierarchy) -> TransformBlock:
    """A `TransformBlock` for masks of a class tree."""
    return TransformBlock(type_tfms=PILPartMask.create, item_tfms=AddTree(tree), batch_tfms=IntToFloatTensor)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().as_subclass(torch.Tensor).numpy().astype(np.uint8)


def _picture(image: TensorImage) -> np.ndarray:
    scaled = image * 255 if image.is_floating_point() else image
    return _array(scaled.clamp(0, 255)).transpose(1, 2, 0)


@show_batch.dispatch
def _show_batch(
    x: TensorImage, y: PartMask, samples, ctxs=None, max_n=9, nrows=None, ncols=None, figsize=None, level=-1, **kwargs
):
    """Photographs under their masks, with a legend; `level` chooses the tree's level."""
    count = min(len(samples), max_n)
    axes = ctxs or get_grid(count, nrows=nrows, ncols=ncols, figsize=figsize)
    tree = samples[0][1].tree
    for (image, mask), ax in zip(samples, axes, strict=False):
        draw_mask(ax, _picture(image), _array(mask), tree, level)
    add_legend(axes[0].figure, tree, level)
    return axes


@show_results.dispatch
def _show_results(
    x: TensorImage,
    y: PartMask,
    samples,
    outs,
    ctxs=None,
    max_n=6,
    nrows=None,
    ncols=None,
    figsize=None,
    level=-1,
    **kwargs,
):
    """Truth and prediction side by side, with a legend; `level` chooses the tree's level."""
    count = min(len(samples), max_n)
    if nrows is None and ncols is None:
        ncols = min(3, math.isqrt(count - 1) + 1)
    axes = ctxs or get_grid(count, nrows=nrows, ncols=ncols, figsize=figsize, double=True)
    tree = samples[0][1].tree
    for i, ((image, mask), (guess, *_)) in enumerate(zip(samples[:count], outs[:count], strict=True)):
        draw_mask(axes[2 * i], _picture(image), _array(mask), tree, level, "truth")
        draw_mask(axes[2 * i + 1], _picture(image), _array(guess), tree, level, "prediction")
    add_legend(axes[0].figure, tree, level)
    return axes

"""Files → fastai DataLoaders whose batches show themselves in the tree's colours, at any of its levels."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL, show_batch, show_results
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision import learner  # noqa: F401  its show_results must be there first, or it would win over ours
from fastai.vision.core import PILImage, PILMask
from fastai.vision.data import ImageBlock, get_grid
from fasttransform import Transform
from PIL import Image

from fastseg.data.augment import Augmentation, draw_chances
from fastseg.data.cache import cached_reader, on_device
from fastseg.data.files import Files, GetImage, GetMask, JoinedFiles, open_files
from fastseg.data.frames import FrameReader, Framing, count_pixels, scoring_frame
from fastseg.data.machine import reading_workers
from fastseg.data.pipeline import Pipeline
from fastseg.data.progress import progress_line
from fastseg.data.sample import embedded_sample
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.plots import add_legend, draw_mask
from fastseg.settings import Settings

# Frames of training photographs by the network's size, where they are zoomed, and where windows are cut from them.
ZOOM_MARGIN, CROP_MARGIN = 1.25, 1.5
Stats = tuple[Sequence[float], Sequence[float]]


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


class ToFrame(Transform):
    """Bring photograph and mask, as pictures, to a frame's size."""

    order = 1

    def __init__(self, framing: Framing):
        self.framing = framing

    def encodes(self, image: PILImage):
        frame = self.framing.image(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        return PILImage.create(frame.permute(1, 2, 0).numpy())

    def encodes(self, mask: PILPartMask):  # noqa: F811  fasttransform picks one by the argument's type
        return PILPartMask.create(Image.fromarray(self.framing.mask(np.array(mask))))


class PartDL(TfmdDL):
    """A fastai DataLoader that reads whole batches where it has a `reader`, and item by item where it has none.

    `reader` takes item numbers and returns photographs (B, 3, H, W) and ids (B, H, W), both uint8, and the
    photographs' own shapes. Without one (a test set made by `test_dl`), items go through fastai's pipeline. With a
    `seed`, batches carry what `Augmentation` needs, drawn for (seed, epoch, item); `epoch` is set from outside.
    """

    epoch = 0

    def __init__(self, dataset: Any = None, reader: Any = None, seed: int | None = None, pipeline: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(dataset, **kwargs)
        self.reader, self.seed, self.pipeline = reader, seed, pipeline

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple[torch.Tensor, ...]]:
        """Batches of the numbered items, in a worker or in the main process."""
        if self.reader is None:
            yield from super().create_batches(samps)
            return
        for items in self.chunkify(samps):
            items = list(items)
            images, masks, shapes = self.reader(items)
            if self.pipeline is not None:
                images, masks = self.pipeline(images, masks, (self.seed, self.epoch), items)
            batch = TensorImage(images), PartMask(masks)
            if self.seed is None:
                yield batch
            else:
                framing = self.reader.framing
                inner = np.array([framing.box(shape)[2:] for shape in shapes]) / framing.size
                yield *batch, draw_chances(self.seed, self.epoch, items, inner)

    def new(self, dataset: Any = None, cls: Any = None, **kwargs: Any) -> PartDL:
        """A copy with some settings changed; another dataset is read item by item."""
        own = {}
        if dataset is None or dataset is self.dataset:
            own = {"reader": self.reader, "seed": self.seed, "pipeline": self.pipeline}
        copy = super().new(dataset, cls, **{**own, **kwargs})
        copy.epoch = self.epoch
        return copy


def PartMaskBlock(tree: Hierarchy) -> TransformBlock:
    """A `TransformBlock` for masks of a class tree."""
    return TransformBlock(type_tfms=PILPartMask.create, item_tfms=AddTree(tree), batch_tfms=IntToFloatTensor)


def seg_dataloaders(cfg: Settings, stats: Stats | None = None) -> DataLoaders:
    """Training and validation DataLoaders of a configuration.

    Batches are (B, 3, H, W) float images in 0..1, normalised where `stats` (mean, std) are given, and (B, H, W) int64
    leaf ids. `seg_learner` adds the encoder's statistics by itself. Raises `InputError` for what ids and headers tell:
    missing or mismatched files, an empty part, fewer training photographs than a batch.
    """
    tree, files = cfg.classes(), dataset_files(cfg)
    train = _limited(files, cfg.data.train_ids, cfg.data.limit, "data.limit")
    valid = _limited(files, cfg.data.valid_ids, cfg.data.limit_valid, "data.limit_valid")
    if not valid:
        raise InputError(f"{files.root / cfg.data.valid_ids}: no ids to validate on; write at least one")
    if len(train) < cfg.train.batch_size:
        raise InputError(
            f"{len(train)} training photographs are fewer than one batch of {cfg.train.batch_size}, so "
            f"nothing would be learned; set train.batch_size to {max(len(train), 1)} or less, or add more"
        )
    files.check(train + valid)
    exact = scoring_frame(cfg.data.size, cfg.data.resize)
    roots = [part.root for part in files.parts.values()]
    changed = cfg.augment.active() or cfg.data.resize == "crop"
    block = DataBlock(
        blocks=(ImageBlock, PartMaskBlock(tree)),
        dl_type=PartDL,
        getters=[GetImage(roots, cfg.data.images, cfg.data.masks), GetMask(roots, cfg.data.masks, len(tree))],
        splitter=_SplitAt(len(train)),
        item_tfms=ToFrame(exact),
        batch_tfms=[
            *([_augmentation(cfg, files, train)] if changed else []),
            *([] if stats is None else [Normalize.from_stats(*stats)]),
        ],
    )
    workers = reading_workers(bool(cfg.data.cache)) if cfg.data.workers is None else cfg.data.workers
    dls = block.dataloaders(train + valid, path=files.root, bs=cfg.train.batch_size, num_workers=workers)
    readers = [
        FrameReader(files, train, len(tree), training_frame(cfg)),
        FrameReader(files, valid, len(tree), exact),
    ]
    if cfg.data.cache:
        readers = [cached_reader(reader, progress_line("filling the cache")) for reader in readers]
    if cfg.data.cache == "device":
        readers = on_device(readers, dls.device)
    dls.train.reader, dls.valid.reader = readers
    if changed:
        dls.train.seed = cfg.train.seed
    if cfg.augment.albumentations:
        dls.train.seed, dls.train.pipeline = cfg.train.seed, Pipeline(cfg.augment.albumentations, tree)
    dls.tree, dls.vocab, dls.c, dls.settings = tree, list(tree.leaves), len(tree), (cfg.data, cfg.augment)
    return dls


def training_frame(cfg: Settings) -> Framing:
    """How training photographs are framed: a little above the network's size where they are then zoomed or cropped."""
    exact = scoring_frame(cfg.data.size, cfg.data.resize)
    above = CROP_MARGIN if cfg.data.resize == "crop" else ZOOM_MARGIN if cfg.augment.moves() else 1.0
    return Framing((round(exact.size[0] * above), round(exact.size[1] * above)), exact.pad)


def _augmentation(cfg: Settings, files: Files | JoinedFiles, names: Sequence[str]) -> Augmentation:
    tree, rarity = cfg.classes(), None
    if cfg.augment.resolved().class_crop:
        counts = count_pixels(files, names, len(tree), progress_line("counting the classes' pixels"))
        rarity = 1 / np.maximum(counts, 1)
    return Augmentation(cfg.data.size, cfg.augment, tree, rarity, windows=cfg.data.resize == "crop")


def dataset_files(cfg: Settings) -> Files | JoinedFiles:
    """The dataset's folder or folders; where none is configured, the embedded sample, drawn on first use."""
    sample, root = cfg.data.sample, cfg.data.root
    if root is None:
        root = embedded_sample(
            sample.train, sample.valid, sample.size, sample.seed, progress_line("drawing the sample")
        )
    return open_files(root, cfg.data.images, cfg.data.masks)


class _SplitAt:
    """Splitter: the first n items train, the rest validate (an id may stand in both)."""

    def __init__(self, n: int):
        self.n = n

    def __call__(self, items: Sequence[Any]) -> tuple[list[int], list[int]]:
        return list(range(self.n)), list(range(self.n, len(items)))


def _limited(files: Files | JoinedFiles, list_name: str, limit: int | None, key: str) -> list[str]:
    names = files.ids(list_name)
    if limit is not None and limit > len(names):
        print(f"{key}: {limit} is more than the {len(names)} ids of {list_name}; taking all", file=sys.stderr)
    return names[:limit]


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

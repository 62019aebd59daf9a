"""Files → fastai DataLoaders whose batches show themselves in the tree's colours, at any of its levels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.block import DataBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Normalize
from fastai.torch_core import TensorImage
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock
from fasttransform import Transform
from PIL import Image

from fastseg.data.augment import Augmentation, draw_chances
from fastseg.data.cache import cached_reader, on_device
from fastseg.data.check import quick_check
from fastseg.data.files import Files, GetImage, GetMask, JoinedFiles, dataset_files
from fastseg.data.frames import FrameReader, Framing, count_pixels
from fastseg.data.machine import reading_workers
from fastseg.data.masks import PartMask, PartMaskBlock, PILPartMask
from fastseg.data.pictures import read_mask
from fastseg.data.pipeline import Pipeline
from fastseg.data.progress import progress_line
from fastseg.errors import InputError
from fastseg.plots import grid_figure, save_figure
from fastseg.settings import Settings

# Frames of training photographs by the network's size, where they are zoomed, and where windows are cut from them.
ZOOM_MARGIN, CROP_MARGIN = 1.25, 1.5
MOST_LOOKED_AT = 64  # photographs among which one is chosen to be shown
Stats = tuple[Sequence[float], Sequence[float]]


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
            if self.seed is None:
                images, masks, _ = self.reader(list(items))
                yield TensorImage(images), PartMask(masks)
            else:
                yield augmentable(self.reader, list(items), self.seed, self.epoch, self.pipeline)

    def new(self, dataset: Any = None, cls: Any = None, **kwargs: Any) -> PartDL:
        """A copy with some settings changed; another dataset is read item by item."""
        own = {}
        if dataset is None or dataset is self.dataset:
            own = {"reader": self.reader, "seed": self.seed, "pipeline": self.pipeline}
        copy = super().new(dataset, cls, **{**own, **kwargs})
        copy.epoch = self.epoch
        return copy


def augmentable(
    reader: Any, items: Sequence[int], seed: int, epoch: int, pipeline: Pipeline | None = None
) -> tuple[TensorImage, PartMask, torch.Tensor]:
    """A batch of frames, through `pipeline` where there is one, with what `Augmentation` draws by for (seed, epoch)."""
    images, masks, shapes = reader(items)
    if pipeline is not None:
        images, masks = pipeline(images, masks, (seed, epoch), items)
    inner = np.array([reader.framing.box(shape)[2:] for shape in shapes]) / reader.framing.size
    return TensorImage(images), PartMask(masks), draw_chances(seed, epoch, items, inner)


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
    leaks = quick_check(cfg, files, train, valid)
    exact = Framing.whole(cfg.data.size, cfg.data.resize)
    roots = [part.root for part in files.parts.values()]
    changed = cfg.augment.active() or cfg.data.resize == "crop"
    counts = _crop_counts(cfg, files, train)
    block = DataBlock(
        blocks=(ImageBlock, PartMaskBlock(tree)),
        dl_type=PartDL,
        getters=[GetImage(roots, cfg.data.images, cfg.data.masks), GetMask(roots, cfg.data.masks, len(tree))],
        splitter=_SplitAt(len(train)),
        item_tfms=ToFrame(exact),
        batch_tfms=[
            *([_augmentation(cfg, counts)] if changed else []),
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
    dls.tree, dls.vocab, dls.c = tree, list(tree.leaves), len(tree)
    dls.settings, dls.leaks, dls.pixel_counts = (cfg.data, cfg.augment), leaks, counts
    return dls


def training_counts(cfg: Settings, dls: DataLoaders) -> np.ndarray | None:
    """(leaves,) pixels of each leaf in the training masks, counted once and kept as `dls.pixel_counts`.

    None for DataLoaders of one's own that bring no such counts.
    """
    counts = getattr(dls, "pixel_counts", None)
    if counts is None and getattr(dls, "settings", None) == (cfg.data, cfg.augment):
        files = dataset_files(cfg)
        dls.pixel_counts = counts = _count(files, files.ids(cfg.data.train_ids, cfg.data.limit), cfg)
    return counts


def training_frame(cfg: Settings) -> Framing:
    """How training photographs are framed: a little above the network's size where they are then zoomed or cropped."""
    exact = Framing.whole(cfg.data.size, cfg.data.resize)
    above = CROP_MARGIN if cfg.data.resize == "crop" else ZOOM_MARGIN if cfg.augment.moves() else 1.0
    return Framing((round(exact.size[0] * above), round(exact.size[1] * above)), exact.pad)


def _crop_counts(cfg: Settings, files: Files | JoinedFiles, names: Sequence[str]) -> np.ndarray | None:
    """Pixels of each leaf where crops are aimed by their rarity, else None."""
    wanted = (cfg.augment.active() or cfg.data.resize == "crop") and cfg.augment.resolved().class_crop
    return _count(files, names, cfg) if wanted else None


def _count(files: Files | JoinedFiles, names: Sequence[str], cfg: Settings) -> np.ndarray:
    return count_pixels(files, names, len(cfg.classes()), progress_line("counting the classes' pixels"))


def _augmentation(cfg: Settings, counts: np.ndarray | None) -> Augmentation:
    rarity = None if counts is None else 1 / np.maximum(counts, 1)
    return Augmentation(cfg.data.size, cfg.augment, cfg.classes(), rarity, windows=cfg.data.resize == "crop")


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
    return names if limit is None else files.ids(list_name, limit)


def augmented_draws(cfg: Settings, name: str, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """One photograph as training would see it in `count` epochs: (n, H, W, 3) uint8 and (n, H, W) uint8 leaf ids.

    Raises `InputError` where the configuration changes nothing.
    """
    if not (cfg.augment.active() or cfg.data.resize == "crop"):
        raise InputError("augment: nothing is changed; set augment.preset to another one, or a number of its own")
    files, tree = dataset_files(cfg), cfg.classes()
    change = _augmentation(cfg, _crop_counts(cfg, files, files.ids(cfg.data.train_ids, cfg.data.limit)))
    reader = FrameReader(files, [name], len(tree), training_frame(cfg))
    pipeline = Pipeline(cfg.augment.albumentations, tree) if cfg.augment.albumentations else None
    batches = []
    for epoch in range(count):
        *batch, chances = augmentable(reader, [0], cfg.train.seed, epoch, pipeline)
        batches.append(change((batch[0].float() / 255, batch[1].long(), chances), split_idx=0))
    images, masks = (
        torch.cat([part.as_subclass(torch.Tensor) for part in parts]) for parts in zip(*batches, strict=True)
    )
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy(), masks.byte().numpy()


def draw_augmentation(cfg: Settings, path: str | Path, name: str | None = None, count: int = 20) -> Path:
    """Write a picture of one photograph, under its mask, as `count` epochs of training would see it; returns its path.

    `name` is an id; without one, the id of the list's beginning whose mask has most classes.
    """
    files, path = dataset_files(cfg), Path(path).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent} to write it into")
    if name is None:
        names = files.ids(cfg.data.train_ids, MOST_LOOKED_AT)
        if not names:
            raise InputError(f"{files.root / cfg.data.train_ids}: no ids, so no photograph to draw; write at least one")
        name = max(names, key=lambda one: len(np.unique(read_mask(files.mask(one), len(cfg.classes())))))
    rows = [(str(epoch + 1), *pair) for epoch, pair in enumerate(zip(*augmented_draws(cfg, name, count), strict=True))]
    save_figure(grid_figure(rows, cfg.classes()), path)
    return path

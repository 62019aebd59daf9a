"""Photographs of a dataset → leaf ids and counts, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastseg.data.files import Files, JoinedFiles
from fastseg.data.frames import decode_image
from fastseg.data.machine import reading_workers
from fastseg.data.pictures import read_mask
from fastseg.inference.boundary import boundary_counts
from fastseg.inference.plan import Plan
from fastseg.inference.scores import Counts
from fastseg.learning.metrics import confusion_matrix
from fastseg.learning.model import mask_logits
from fastseg.settings import Settings

FEW = 64  # photographs that are read sooner than workers start


@dataclass(frozen=True)
class Batch:
    """Photographs as the network sees them, normalised (B, 3, h, w), once for each frame size; their masks (H, W) at
    the size that is scored, and their own sizes."""

    images: list[Tensor]
    masks: list[Tensor]
    shapes: list[tuple[int, int]]


class _Photographs(Dataset):
    """Items: frames (3, h, w) uint8, (H, W) uint8 ids at the size that is scored, and the photograph's own size."""

    def __init__(self, files: Files | JoinedFiles, names: Sequence[str], plan: Plan):
        self.files, self.names, self.plan = files, names, plan

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[list[Tensor], Tensor, tuple[int, int]]:
        ids = read_mask(self.files.mask(self.names[i]), len(self.plan.tree))
        image = decode_image(self.files.image(self.names[i]), ids.shape)
        frames = [framing.image(image) for framing in self.plan.framings]
        return frames, torch.from_numpy(self.plan.mask(ids)), ids.shape


def photograph_batches(
    files: Files | JoinedFiles,
    names: Sequence[str],
    plan: Plan,
    stats: tuple[Sequence[float], Sequence[float]],
    cfg: Settings,
) -> Iterator[Batch]:
    """Photographs of ids in batches, normalised by `stats` (mean, std)."""
    workers = reading_workers() if cfg.data.workers is None else cfg.data.workers
    loader = DataLoader(
        _Photographs(files, names, plan),
        cfg.train.batch_size,
        num_workers=workers if len(names) > FEW else 0,
        collate_fn=_collate,
    )
    centre, spread = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in stats)
    for frames, masks, shapes in loader:
        yield Batch([(images.float() - centre) / spread for images in frames], masks, shapes)


def _collate(items: Sequence[tuple[list[Tensor], Tensor, tuple[int, int]]]) -> tuple[list[Any], ...]:
    frames, masks, shapes = zip(*items, strict=True)
    return [torch.stack(same) for same in zip(*frames, strict=True)], list(masks), list(shapes)


@torch.inference_mode()
def count(
    model: nn.Module,
    plan: Plan,
    batches: Iterable[Batch],
    names: Sequence[str] | None = None,
    boundary: bool = False,
    seen: Callable[[int], None] | None = None,
) -> Counts:
    """Count what a network makes of photographs, one by one; only one batch of logits is in memory at a time.

    Without `names` they are called `photograph 1` and so on. `seen` hears how many are done.
    """
    matrices, outlines, leaves = [], [], len(plan.tree)
    network = mask_logits(model.eval())
    for batch in batches:
        for ids, mask in zip(plan.predict(network, batch.images, batch.shapes), batch.masks, strict=True):
            matrices.append(confusion_matrix(ids, mask.to(ids.device), leaves).to("cpu", torch.int32).numpy())
            if boundary:
                outlines.append(boundary_counts(plan.tree, ids.cpu().numpy(), mask.cpu().numpy()).astype(np.int32))
        if seen:
            seen(len(matrices))
    names = [f"photograph {i + 1}" for i in range(len(matrices))] if names is None else list(names)
    return Counts(names, np.stack(matrices), np.stack(outlines) if boundary else None)


@torch.inference_mode()
def predicted(model: nn.Module, plan: Plan, batches: Iterable[Batch]) -> list[np.ndarray]:
    """(H, W) uint8 leaf ids of photographs at the size that is scored."""
    network = mask_logits(model.eval())
    found = (plan.predict(network, batch.images, batch.shapes) for batch in batches)
    return [ids.cpu().numpy() for batch in found for ids in batch]

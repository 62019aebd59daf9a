"""Photographs → network → leaf ids: frames in batches, logits brought to the size that is scored, decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastseg.data.files import Files, JoinedFiles
from fastseg.data.frames import Framing, decode_image, scoring_frame
from fastseg.data.machine import reading_workers
from fastseg.data.pictures import read_mask
from fastseg.decoding import Decode, Head, check_decoding
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.boundary import boundary_counts
from fastseg.inference.scores import Counts
from fastseg.inference.tta import Tta, average, mirrored_channels
from fastseg.learning.metrics import confusion_matrix
from fastseg.settings import ModelSettings, Settings

Protocol = Literal["native", "resized"]
PROTOCOLS = ("native", "resized")
FEW = 64  # photographs that are read sooner than workers start


@dataclass(frozen=True)
class Batch:
    """Photographs as the network sees them, normalised (B, 3, h, w), once for each frame size; their masks (H, W) at
    the size that is scored, and their own sizes."""

    images: list[Tensor]
    masks: list[Tensor]
    shapes: list[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """How photographs reach a network, and how its logits become leaf ids at the size that is scored.

    `framing` is the network's own, `framings` those that it looks through: more than one with test-time augmentation.
    Without a framing, batches are scored as they are.
    """

    tree: Hierarchy
    framing: Framing | None = None
    framings: tuple[Framing, ...] = ()
    tta: Tta | None = None
    protocol: Protocol = "native"
    decode: Decode = "leaf"
    head: Head = "leaves"

    @classmethod
    def of_card(
        cls,
        card: Mapping[str, Any],
        protocol: Protocol = "native",
        decode: Decode = "leaf",
        tta: Tta | str | None = None,
    ) -> Plan:
        """For the network that a `model.json` describes. Raises `InputError` for a choice that there is not."""
        if protocol not in PROTOCOLS:
            raise InputError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        tree, head = Hierarchy(card["hierarchy"], card["mirror"]), card.get("head", "leaves")
        check_decoding(decode, head)
        framing = scoring_frame(card["size"], card["resize"])
        tta = Tta.parse(tta) if isinstance(tta, str) else tta
        framings = tta.framings(framing, ModelSettings(**card["model"], weights="none")) if tta else (framing,)
        if tta and tta.flip:
            mirrored_channels(tree, head)
        return cls(tree, framing, framings, tta, protocol, decode, head)

    def target(self, shape: Sequence[int]) -> tuple[int, int]:
        """The size at which a photograph of `shape` is scored."""
        whole = self.framing is None or self.protocol == "native"
        high, wide = shape if whole else self.framing.box(shape)[2:]
        return int(high), int(wide)

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """(H, W) ids of a photograph at the size at which it is scored; the padding of a frame is left out."""
        if self.framing is None or self.protocol == "native":
            return ids
        top, left, high, wide = self.framing.box(ids.shape)
        return np.ascontiguousarray(self.framing.mask(ids)[top : top + high, left : left + wide])

    def predict(self, model: nn.Module, images: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """(H, W) leaf ids of each photograph of a batch at the size that is scored, on the network's device."""
        views = list(self._views(model, images))
        for i, shape in enumerate(shapes):
            target = self.target(shape)
            looks = [
                logits[i : i + 1] if framing is None else framing.undo(logits[i : i + 1], shape, target)
                for framing, logits in views
            ]
            yield self.tree.decode(average(looks, self.head), self.decode, head=self.head)[0]

    def _views(self, model: nn.Module, images: Sequence[Tensor]) -> Iterator[tuple[Framing | None, Tensor]]:
        device = next(model.parameters()).device
        flip = mirrored_channels(self.tree, self.head) if self.tta and self.tta.flip else None
        for framing, batch in zip(self.framings or [None], images, strict=True):
            batch = batch.to(device)
            # Planes behind one another, as from them the logits are enlarged and compared twice as fast.
            yield framing, _logits(model, batch).float().contiguous()
            if flip is not None:
                yield framing, _logits(model, batch.flip(-1))[:, flip].float().flip(-1).contiguous()


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    """The mask's logits, without those of an auxiliary head."""
    found = model(images)
    return found if isinstance(found, Tensor) else found[0]


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
    model.eval()
    for batch in batches:
        for ids, mask in zip(plan.predict(model, batch.images, batch.shapes), batch.masks, strict=True):
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
    model.eval()
    found = (plan.predict(model, batch.images, batch.shapes) for batch in batches)
    return [ids.cpu().numpy() for batch in found for ids in batch]

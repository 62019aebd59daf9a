"""Proof of an exported file: run on photographs by its own runtime, beside PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastseg.data.files import Files, JoinedFiles
from fastseg.data.frames import decode_image
from fastseg.data.pictures import read_mask
from fastseg.errors import InputError
from fastseg.inference.backends import Backend, open_backend
from fastseg.inference.passes import Batch
from fastseg.inference.plan import Network, Plan
from fastseg.inference.scores import weighted_scores
from fastseg.learning.metrics import confusion_matrix
from fastseg.learning.model import mask_logits
from fastseg.settings import ModelSettings, fitting_size

EQUAL = 0.999  # share of pixels that a float32 file has in common with PyTorch


@dataclass
class Tally:
    """What two ways of seeing the same photographs have in common, photograph by photograph."""

    plan: Plan
    equal: int = 0
    pixels: int = 0
    difference: float = 0.0
    before: list[np.ndarray] = field(default_factory=list)
    after: list[np.ndarray] = field(default_factory=list)

    def add(self, reference: Tensor, ids: Tensor, mask: Tensor) -> None:
        """Ids (H, W) of PyTorch and of the file, and the truth."""
        self.equal += int((reference == ids).sum())
        self.pixels += ids.numel()
        for matrices, found in ((self.before, reference), (self.after, ids)):
            matrices.append(confusion_matrix(found, mask, len(self.plan.tree)).numpy())

    def differ(self, reference: Tensor, values: Tensor) -> None:
        """Scores of PyTorch and of the file, of which only the largest difference is kept."""
        self.difference = max(self.difference, float((reference - values).abs().max()))

    def as_json(self) -> dict[str, Any]:
        """The numbers that are written beside a file; mean IoUs by the `dataset` definition, at native size."""
        before, after = (self._means(matrices) for matrices in (self.before, self.after))
        lost = [100 * (b - a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
        return {
            "photographs": len(self.before),
            "equal_pixels": round(self.equal / max(self.pixels, 1), 6),
            "largest_difference": float(f"{self.difference:.3g}"),
            "before": {f"miou{level}": value for level, value in enumerate(before)},
            "after": {f"miou{level}": value for level, value in enumerate(after)},
            "lost_points": round(max([0.0, *lost]), 3),
        }

    def _means(self, matrices: list[np.ndarray]) -> list[float | None]:
        return [None if np.isnan(value) else round(float(value), 5) for value in matrix_means(self.plan, matrices)]


@torch.inference_mode()
def compare_logits(network: nn.Module, backend: Backend, plan: Plan, batches: Iterable[Batch]) -> Tally:
    """A file without preprocessing beside the network, on the same batches."""
    tally, reference = Tally(plan), mask_logits(network)
    for batch in batches:
        ours = reference(batch.images[0])
        theirs = torch.from_numpy(np.array(backend.logits(batch.images[0].numpy())))
        if theirs.shape != ours.shape:
            raise InputError(f"{backend.name} gives logits of {tuple(theirs.shape)}, PyTorch {tuple(ours.shape)}")
        tally.differ(ours, theirs)
        ids = [plan.predict(lambda _, found=found: found, batch.images, batch.shapes) for found in (ours, theirs)]
        for a, b, mask in zip(*ids, batch.masks, strict=True):
            tally.add(a, b, mask)
    return tally


@torch.inference_mode()
def compare_photographs(
    network: nn.Module, backend: Backend, plan: Plan, batches: Iterable[Batch], files: Files | JoinedFiles,
    names: Iterable[str],
) -> Tally:  # fmt: skip
    """A file with preprocessing, which sees the photographs themselves, beside the network: ids and confidences."""
    tally, reference, names = Tally(plan), mask_logits(network), iter(names)
    for batch in batches:
        views = plan.views(reference, batch.images)
        for i, (shape, mask) in enumerate(zip(batch.shapes, batch.masks, strict=True)):
            scores = plan.scores(views, i, shape)[:, : len(plan.tree)]
            ours = scores.softmax(1) if plan.head == "leaves" else scores.sigmoid()
            ids, confidence = backend.ids(photograph(files, next(names)))
            if ids.shape != tuple(shape):
                raise InputError(f"{backend.name} gives a mask of {ids.shape} for a photograph of {tuple(shape)}")
            tally.differ(ours.amax(1)[0], torch.from_numpy(np.array(confidence)))
            tally.add(plan.tree.decode(scores if plan.head == "leaves" else plan.scores(views, i, shape),
                                       head=plan.head)[0], torch.from_numpy(np.array(ids)), mask)  # fmt: skip
    return tally


def matrix_means(plan: Plan, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """(levels,) float64 mean IoUs, `dataset` definition, of confusion matrices of photographs; NaN where all absent."""
    ones = np.ones((1, len(matrices)))
    return np.ravel(weighted_scores(plan.tree, np.stack(matrices), "dataset", ones).means)


@torch.inference_mode()
def level_means(network: Network, plan: Plan, batches: Iterable[Batch]) -> np.ndarray:
    """(levels,) mean IoUs of what gives logits, at the size that is scored."""
    return matrix_means(plan, [
        confusion_matrix(ids, mask, len(plan.tree)).numpy()
        for batch in batches
        for ids, mask in zip(plan.predict(network, batch.images, batch.shapes), batch.masks, strict=True)
    ])  # fmt: skip


def photograph(files: Files | JoinedFiles, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of an id, turned as its mask."""
    shape = read_mask(files.mask(name)).shape
    return np.ascontiguousarray(decode_image(files.image(name), shape).permute(1, 2, 0).numpy())


@torch.inference_mode()
def other_size(network: nn.Module, path: Path, model: ModelSettings, size: tuple[int, int]) -> dict[str, Any]:
    """What a file for any size does at sizes other than the one it was traced at.

    Raises `InputError` where its runtime fails there, or where it does not give PyTorch's logits.
    """
    backend, reference, found = open_backend(path), mask_logits(network), []
    for count, high, wide in ((1, 1.5, 1.0), (3, 0.75, 2.0)):
        other = fitting_size((round(size[0] * high), round(size[1] * wide)), model)
        images = torch.rand(count, 3, *other, generator=torch.Generator().manual_seed(0)) * 4 - 2
        ours = reference(images)
        try:
            theirs = torch.from_numpy(np.array(backend.logits(images.numpy())))
        except Exception as error:
            raise _fixed(model, other, f"{backend.name} fails: {' '.join(str(error).split())[:160]}") from None
        if theirs.shape != ours.shape or float((theirs - ours).abs().max()) > 1e-2 * float(ours.abs().max()):
            raise _fixed(model, other, f"{backend.name} gives something else than PyTorch")
        found.append(list(other))
    return {"sizes": found}


def _fixed(model: ModelSettings, size: tuple[int, int], why: str) -> InputError:
    return InputError(f"{model.arch}: exported for any size, it does not work at {size[0]}x{size[1]} ({why}); "
                      "give --size HxW")  # fmt: skip


def verdict(proof: dict[str, Any], tolerance: float, least_equal: float | None) -> str | None:
    """Why a file is not to be used, or None."""
    if least_equal is not None and proof["equal_pixels"] < least_equal:
        return f"its masks agree with PyTorch's on {proof['equal_pixels']:.2%} of pixels, less than {least_equal:.1%}"
    if proof["lost_points"] > tolerance:
        return f"it loses {proof['lost_points']:.2f} points of mean IoU, more than the tolerance of {tolerance:g}"
    return None

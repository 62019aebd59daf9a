"""A pipeline that somebody serialised with albumentations, applied to photograph and mask of each frame."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy

# Transforms that exchange left and right, without knowing that some classes would have to change places.
MIRRORING = ("HorizontalFlip", "D4", "SquareSymmetry", "Transpose")


class Pipeline:
    """Frames (B, 3, H, W) uint8 and ids (B, H, W) uint8 → the same through an albumentations pipeline.

    What it draws is a function of (seed, epoch, item). Frames keep their size; ids must stay within the tree. Raises
    `InputError` without the package, for a file that is no pipeline, for one that mirrors where the tree has mirror
    pairs, and for one that changes the size.
    """

    def __init__(self, file: str | Path, tree: Hierarchy):
        self.file, self.tree = Path(file).expanduser(), tree
        self.content = _read(self.file)
        if tree.mirror and (found := [name for name in MIRRORING if name in _names(self.content)]):
            raise InputError(
                f"augment.albumentations: {self.file}: {found[0]} would leave {tree.leaves[tree.mirror[0][0]]!r} on "
                "the wrong side; take it out and set augment.flip, which exchanges the pairs of `mirror`"
            )
        self.transform = self._build()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "transform": None}

    def __call__(
        self, images: Tensor, masks: Tensor, seeds: Sequence[int], items: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Each frame by its own luck."""
        self.transform = self.transform or self._build()
        for row, item in enumerate(items):
            self.transform.set_random_seed(int(np.random.SeedSequence((*seeds, item)).generate_state(1)[0]))
            frame = np.ascontiguousarray(images[row].permute(1, 2, 0).numpy())
            out = self.transform(image=frame, mask=masks[row].numpy().copy())
            self._check(out, frame.shape)
            images[row] = torch.from_numpy(np.ascontiguousarray(out["image"])).permute(2, 0, 1)
            masks[row] = torch.from_numpy(np.ascontiguousarray(out["mask"]))
        return images, masks

    def _check(self, out: dict[str, Any], shape: tuple[int, ...]) -> None:
        image, mask = np.asarray(out["image"]), np.asarray(out["mask"])
        if image.shape != shape or image.dtype != np.uint8:
            raise InputError(
                f"augment.albumentations: {self.file}: gives {image.dtype} {image.shape} of {shape} uint8; end it with "
                "a resize to the size it was given, and leave normalising and tensors to fastseg"
            )
        outside = (mask >= len(self.tree)) & (mask != 255)
        if outside.any():
            raise InputError(
                f"augment.albumentations: {self.file}: makes the class id {int(mask[outside][0])}; let masks be "
                "sampled by nearest neighbour and filled with 255 (mask_interpolation: 0, fill_mask: 255)"
            )

    def _build(self) -> Any:
        # Otherwise it would ask the network for a newer version of itself.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        try:
            import albumentations
        except ImportError:
            raise InputError(
                "augment.albumentations: the package is not installed; pip install 'fastseg-parts[albumentations]'"
            ) from None
        try:
            return albumentations.from_dict(self.content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"augment.albumentations: {self.file}: not a pipeline that this albumentations "
                f"({albumentations.__version__}) reads ({type(error).__name__}: {said})"
            ) from None


def _read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"augment.albumentations: {file}: {error.strerror}; name a .yaml or .json file") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"augment.albumentations: {file}: not YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or "transform" not in content:
        raise InputError(
            f"augment.albumentations: {file}: no pipeline in it; write one by albumentations.save(transform, "
            f"{file.name!r}, data_format='yaml')"
        )
    return content


def _names(content: Any) -> set[str]:
    """The names of all transforms in a serialised pipeline, however deep."""
    if isinstance(content, dict):
        own = {str(content.get("__class_fullname__", "")).rpartition(".")[2]}
        return own.union(*(_names(value) for value in content.values()))
    return set().union(*map(_names, content)) if isinstance(content, list) else set()

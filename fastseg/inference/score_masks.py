"""Masks that any program wrote, scored by the same ruler as a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastseg.config import load_config
from fastseg.data.check import quick_check
from fastseg.data.files import MASK_SUFFIXES
from fastseg.data.pictures import mask_shape, read_mask
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX
from fastseg.inference.boundary import boundary_counts
from fastseg.inference.evaluate import check_definition, other_data, split_files
from fastseg.inference.scores import Counts, summary
from fastseg.learning.metrics import confusion_matrix


def evaluate_masks(
    folder: str | Path,
    root: str | Path | None = None,
    split: str | Path = "valid",
    progress: Callable[[int, int], None] | None = None,
    *,
    config: str | Path | None = None,
    definition: str = "dataset",
    boundary: bool = False,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores of predicted masks `folder/ID.png` (or `.npy`) of leaf ids, as high and wide as the photographs.

    `config`, a preset or file, has the tree (default: Pascal-part's); `root`, `split`, `definition`, `boundary` and
    `overrides` are those of `evaluate`, and so is what is returned, where `decode` is None. Raises `InputError` for a
    mask that is missing, has another size, or leaves a pixel without a class of the tree.
    """
    check_definition(definition)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"--masks: no folder {folder}; give the one that holds a mask for each id")
    cfg = other_data(load_config(config), root, overrides)
    tree, (files, names) = cfg.classes(), split_files(cfg, split)
    quick_check(cfg, files, [], names)
    guesses = _find(folder, names)
    matrices, outlines = [], []
    for done, name in enumerate(names, 1):
        truth = read_mask(files.mask(name), len(tree))
        ids = _read(guesses[name], len(tree), truth.shape)
        counts = confusion_matrix(torch.from_numpy(ids), torch.from_numpy(truth), len(tree))
        matrices.append(counts.to(torch.int32).numpy())
        if boundary:
            outlines.append(boundary_counts(tree, ids, truth).astype(np.int32))
        if progress:
            progress(done, len(names))
    counted = Counts(names, np.stack(matrices), np.stack(outlines) if boundary else None)
    folders = [str(part.root.resolve()) for part in files.parts.values()]
    named = {"protocol": "native", "decode": None, "tta": None, "split": str(split), "data": folders,
             "masks": str(folder.resolve())}  # fmt: skip
    return summary(tree, counted, definition, named)


def _find(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The mask file of each id, before any of them is read."""
    found, missing = {}, []
    for name in names:
        paths = [path for suffix in MASK_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
        if paths:
            found[name] = paths[0]
        else:
            missing.append(name)
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no mask {folder / missing[0]}.png or .npy{more}; every id needs one")
    return found


def _read(path: Path, leaves: int, shape: tuple[int, int]) -> np.ndarray:
    if (own := mask_shape(path)) != shape:
        raise InputError(
            f"{path}: {own[0]}x{own[1]} (height x width), but the photograph is {shape[0]}x{shape[1]}; "
            "write masks at the photographs' own size"
        )
    ids = read_mask(path, leaves)
    if nowhere := int((ids == IGNORE_INDEX).sum()):
        raise InputError(f"{path}: {nowhere} pixels are 255, no class; a prediction names one for every pixel")
    return ids

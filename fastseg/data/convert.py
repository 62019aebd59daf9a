"""Pascal-Part's original `.mat` annotations → the folder layout that everything else reads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastseg.data.conversion import Folders, Recipe, convert_files
from fastseg.data.protocol import Protocol, load_protocol
from fastseg.data.summary import Summary
from fastseg.errors import InputError


def paint(annotation: dict, protocol: Protocol) -> np.ndarray:
    """Paint the mask of one annotation: later objects over earlier ones, in each object later parts over earlier ones.

    `annotation` is what `scipy.io.loadmat` returns, with or without `squeeze_me` and `struct_as_record`.
    Returns (H, W) uint8 leaf ids; (0, 0) where there is no object. `InputError` for a structure not Pascal-Part's, for
    masks of unequal shapes, and for a part of a class of the protocol that no rule names.
    Source: mat2map.m of the Pascal-Part release (Chen et al., CVPR 2014): later objects can occlude earlier ones.
    """
    if "anno" not in annotation:
        raise InputError("no `anno` struct: is this a file of Annotations_Part?")
    objects = [item for anno in _elements(annotation["anno"]) for item in _elements(_get(anno, "objects"))]
    canvas = np.zeros(np.shape(_get(objects[0], "mask")) if objects else (0, 0), np.uint8)
    for item in objects:
        kind = _text(_get(item, "class"))
        for part in _elements(_get(item, "parts")):
            name, mask = _text(_get(part, "part_name")), np.asarray(_get(part, "mask"))
            if mask.ndim != 2 or mask.shape != canvas.shape:
                raise InputError(f"part '{name}' of a {kind} has a mask of shape {mask.shape}, not {canvas.shape}")
            rules = protocol.rules.get(kind)
            if rules is not None and name not in rules:
                raise InputError(f"part '{name}' of a {kind} is in no rule of protocol {protocol.name}: list it there")
            canvas[mask > 0] = 0 if rules is None else rules[name]
    return canvas


def _elements(struct: object) -> np.ndarray:
    # MATLAB's struct arrays come as (1, n), (0, 0), (n,) or a bare element, depending on n and on loadmat's options.
    return np.ravel(np.asarray(struct))


def _get(element: object, name: str) -> object:
    try:
        return element[name] if isinstance(element, np.void) else getattr(element, name)
    except (AttributeError, ValueError):
        raise InputError(f"no field `{name}` where Pascal-Part has one") from None


def _text(value: object) -> str:
    return str(np.ravel(value)[0])


def convert(
    annotations: Folders,
    images: Folders,
    out: str | Path,
    protocol: str | Path = "person6",
    train_ids: str | Path | None = None,
    valid_ids: str | Path | None = None,
    valid_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Paint each `.mat` of `annotations` that shows a part of the protocol, and write the layout into `out`.

    Masks are (H, W) uint8 `.npy`. Folders, id files, the split, reruns, damaged files and errors are as
    `fastseg.data.conversion.convert_files` says.
    """
    rules = load_protocol(protocol)
    recipe = Recipe(rules.name, rules.leaves, rules.digest, partial(_painted, protocol=rules), ".mat", ".npy")
    return convert_files(
        recipe, annotations, images, out, train_ids, valid_ids, valid_fraction, seed, workers, progress
    )


def _painted(file: Path, protocol: Protocol) -> np.ndarray:
    from scipy.io import loadmat

    return paint(loadmat(file, appendmat=False, variable_names=["anno"]), protocol)

"""One photograph with its mask, read whole once: its faults, and the numbers that all else is counted from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.files import Files, JoinedFiles
from fastseg.data.framing import MaskFraming
from fastseg.data.pictures import exif_shapes, open_image, read_image, read_mask
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX

THUMB = 32


@dataclass
class Look:
    """What was seen of one id; None where its file could not be read."""

    name: str
    image: Path | None = None
    mask: Path | None = None
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # (kind, path, message)
    shape: tuple[int, int] | None = None  # height, width of the mask
    counts: np.ndarray | None = None  # (leaves,) int64 pixels of each leaf
    framed: np.ndarray | None = None  # (leaves,) the same once brought to the configured size
    ignored: int = 0  # pixels of 255
    digest: bytes = b""  # equal for equal pixels, whatever the file's format
    thumb: np.ndarray | None = None  # (32, 32) uint8 grey


def examine(name: str, files: Files | JoinedFiles, leaves: int, framing: MaskFraming) -> Look:
    """Read photograph and mask of an id; what is wrong goes to `faults`, and nothing is raised."""
    look = Look(name)
    try:
        look.mask = files.mask(name)
        ids = read_mask(look.mask, leaves)
        look.shape = ids.shape
        whole = np.bincount(ids.ravel(), minlength=256)
        look.counts, look.ignored = whole[:leaves], int(whole[IGNORE_INDEX])
        look.framed = np.bincount(framing.mask(ids).ravel(), minlength=256)[:leaves]
    except Exception as error:  # A damaged file can make a decoder raise anything, and must not stop the others.
        look.faults.append(_fault(error, look.mask, "mask"))
    try:
        look.image = files.image(name)
        _exif(look)
        image = read_image(look.image, look.shape)
        content = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
        content.update(np.ascontiguousarray(image))
        look.digest = content.digest()
        look.thumb = np.asarray(image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX))
    except Exception as error:
        look.faults.append(_fault(error, look.image, "photograph"))
    return look


def foreground(counts: np.ndarray, background: int | None) -> int:
    """Pixels of all leaves but background."""
    return int(counts.sum()) - (0 if background is None else int(counts[background]))


def _fault(error: Exception, path: Path | None, what: str) -> tuple[str, str, str]:
    if isinstance(error, InputError) and error.kind:
        return error.kind, str(path or ""), str(error)
    said = " ".join(str(error).split())[:120]
    return f"unreadable {what}", str(path or ""), f"{path}: not a readable {what} ({type(error).__name__}: {said})"


def _exif(look: Look) -> None:
    with open_image(look.image) as opened:
        stored, turned = exif_shapes(opened)
    if stored == turned or look.shape not in (stored, turned):
        return
    fits = "as EXIF turns it" if look.shape == turned else "as stored, without its EXIF rotation"
    look.faults.append((
        "shapes differ by EXIF rotation", str(look.image),
        f"{look.image}: {stored[0]}x{stored[1]} stored, {turned[0]}x{turned[1]} by EXIF; its mask fits it {fits}, "
        "and so it is read; turn the pixels and take the EXIF mark out to be safe",
    ))  # fmt: skip

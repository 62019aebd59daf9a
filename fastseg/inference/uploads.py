"""Photographs from strangers: what is no photograph, or too large to open, is refused before it is decoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from fastseg.data.pictures import READ_ERRORS, to_rgb
from fastseg.errors import InputError

# What cameras, phones and screens write. Others of Pillow's readers are seldom used, and some start other programs.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What a page takes: bytes and pixels of a photograph, people waiting, and seconds that files are kept for."""

    file_bytes: int = 20 * MEGA
    pixels: int = 30 * MEGA
    queue: int = 20
    keep_seconds: int = 1800

    def __str__(self) -> str:
        many = "s" * (self.pixels != MEGA)
        return f"up to {self.file_bytes / MEGA:g} MB and {self.pixels / MEGA:g} megapixel{many}"


def read_upload(path: str | Path, limits: Limits) -> Image.Image:
    """A photograph in RGB, upright by its EXIF orientation; of several frames the first.

    Raises `InputError` for a file that is none, breaks off, or is over a limit; by its header, before memory is taken.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError("the photograph is no longer here: files are deleted after a while; send it again") from None
    if size > limits.file_bytes:
        raise InputError(f"the file has {size / MEGA:.1f} MB; photographs {limits} are taken: make it smaller")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is far above ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_readable())
    except Image.DecompressionBombError:
        raise InputError(f"the picture is far too large to open; photographs {limits} are taken") from None
    except (UnidentifiedImageError, *READ_ERRORS):
        raise InputError("this is not a photograph that can be read; send a JPEG, PNG, WebP, TIFF or BMP") from None
    with image:
        # Not its EXIF orientation, for which Pillow decodes a PNG.
        wide, high = image.size
        if high * wide > limits.pixels:
            raise InputError(f"the picture has {wide:,} × {high:,} pixels; photographs {limits} are taken: "
                             "make it smaller")  # fmt: skip
        try:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
        except (*READ_ERRORS, MemoryError):
            raise InputError("the photograph breaks off or is damaged; send another copy of it") from None


def _readable() -> list[str]:
    """Those of the formats that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]

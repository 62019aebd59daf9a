"""One photograph or mask read from its file: any PIL mode, EXIF turns, `.npy` and `.png` ids."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX

ORIENTATION_TAG = 0x0112
# What `np.save` writes before bytes in C order: read by this, a mask takes a third of `np.load`'s time.
NPY_BYTES = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \} *\n", re.DOTALL
)
# Pillow spreads the values of 2- and 4-bit grey over 0..255; a mask's ids are the values as stored.
GREY_STEPS = {"L;2": 85, "L;4": 17}
READ_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def open_image(path: Path, what: str = "photograph") -> Image.Image:
    """A photograph (or a mask, as `what` then says) with its header read. Raises `InputError` where it is none."""
    try:
        return Image.open(path)
    except (UnidentifiedImageError, *READ_ERRORS) as error:
        raise InputError(
            f"{path}: not a readable {what} ({_short(error)}); replace it or take out its id", f"unreadable {what}"
        ) from None


def read_image(path: Path, shape: tuple[int, int] | None = None) -> Image.Image:
    """A photograph of any PIL mode as RGB, 8 bits.

    EXIF orientation is honoured, but where `shape` (height, width of its mask) fits only the photograph as stored.
    Raises `InputError` for an unreadable file, or where neither way fits `shape`.
    """
    with open_image(path) as image:
        turn = True if shape is None else fitting_turn(image, shape, path)
        try:
            image.load()
        except READ_ERRORS as error:
            raise InputError(
                f"{path}: the photograph breaks off ({_short(error)}); replace it or take out its id",
                "truncated photograph",
            ) from None
        return upright_rgb(image) if turn else to_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as RGB, 8 bits, turned as its EXIF orientation says."""
    return to_rgb(ImageOps.exif_transpose(image))


def fitting_turn(image: Image.Image, shape: tuple[int, int], path: Path) -> bool:
    """Whether EXIF orientation is to be applied so that the photograph has `shape` (height, width)."""
    stored, turned = exif_shapes(image)
    if shape not in (turned, stored):
        raise InputError(
            f"{path}: {turned[0]}x{turned[1]} (height x width), but its mask is {shape[0]}x{shape[1]}; "
            "they must have one size",
            "shapes differ",
        )
    return shape == turned


def exif_shapes(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of a photograph as it is stored, and as its EXIF orientation shows it."""
    stored = image.size[::-1]
    return stored, stored[::-1] if image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8) else stored


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode → RGB; 16-bit grey is scaled, where Pillow alone would clip it."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        scale = 255.0 if values.max() <= 1 and image.mode == "F" else 1.0 if values.max() <= 255 else 1 / 257
        image = Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    # Pillow takes these by a step between alone: palettes with transparency, and grey multiplied by its alpha.
    step = {"P": "RGBA", "La": "LA"}.get(image.mode)
    return (image.convert(step) if step else image).convert("RGB")


def mask_shape(path: Path) -> tuple[int, int]:
    """(height, width) of a mask file from its header. Raises `InputError` where it cannot hold class ids."""
    if path.suffix == ".npy":
        return _npy(path, mmap_mode="r").shape
    with _open_png(path) as image:
        return image.size[::-1]


def read_mask(path: Path, leaves: int | None = None) -> np.ndarray:
    """(H, W) uint8 leaf ids of a `.npy` (any integer dtype) or 8-bit / palette `.png` file, as stored.

    Raises `InputError` for other content, and with `leaves` for an id that is neither below it nor 255.
    """
    if path.suffix == ".npy":
        ids = _npy_bytes(path)
        ids = _npy(path) if ids is None else ids
    else:
        with _open_png(path) as image:
            try:
                ids = np.array(image) // GREY_STEPS.get(image.tile[0][3] if image.tile else "", 1)
            except READ_ERRORS as error:
                raise InputError(
                    f"{path}: the mask breaks off ({_short(error)}); replace it", "truncated mask"
                ) from None
    if ids.dtype == np.uint8 and ids.max(initial=0) < (leaves or IGNORE_INDEX):
        return ids
    outside = (ids < 0) | (ids > IGNORE_INDEX)
    if leaves is not None:
        outside |= (ids >= leaves) & (ids != IGNORE_INDEX)
    if outside.any():
        known = f"0 to {leaves - 1}" if leaves else "0 to 254"
        raise InputError(
            f"{path}: class id {int(ids[outside][0])} is not in the tree ({known}, or 255 for no class); "
            "mend the mask or the hierarchy",
            "id outside the tree",
        )
    return ids.astype(np.uint8)


def _npy_bytes(path: Path) -> np.ndarray | None:
    content = np.fromfile(path, np.uint8)
    header = NPY_BYTES.match(content[:256].tobytes())
    shape = (int(header[1]), int(header[2])) if header else (0, 0)
    if not shape[0] * shape[1] or len(content) - header.end() != shape[0] * shape[1]:
        return None
    return content[header.end() :].reshape(shape)


def _npy(path: Path, **kwargs: str) -> np.ndarray:
    try:
        ids = np.load(path, allow_pickle=False, **kwargs)
    except READ_ERRORS as error:
        why, kind = _npy_fault(path, error)
        raise InputError(f"{path}: not a readable .npy array of numbers ({why}); replace it", kind) from None
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or ids.ndim != 2 or not ids.size:
        shape, dtype = getattr(ids, "shape", ()), getattr(ids, "dtype", None)
        kind = "float mask" if dtype is not None and dtype.kind in "fc" else "not a mask"
        kind = "RGB mask" if len(shape) == 3 and shape[2] in (3, 4) else kind
        raise InputError(
            f"{path}: an array of {dtype or '?'} {shape or '?'}; a mask is a 2-D array of whole numbers", kind
        )
    return ids


def _npy_fault(path: Path, error: Exception) -> tuple[str, str]:
    """Why NumPy refused a file, in words, and the kind of fault; NumPy takes whatever it does not know for a pickle."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError:
        return _short(error), "unreadable mask"
    if start.startswith(b"\x80") or re.match(rb"\x93NUMPY.*'\|O", start, re.DOTALL):
        return "Python objects, which would need unpickling", "pickled mask"
    if start.startswith(b"\x93NUMPY"):
        return "it breaks off", "truncated mask"
    return "it does not begin like one", "unreadable mask"


def _open_png(path: Path) -> Image.Image:
    image = open_image(path, "mask")
    if image.mode not in ("L", "P", "1"):
        raise InputError(
            f"{path}: mode {image.mode}; a mask is an 8-bit grey or palette picture of class ids",
            "RGB mask" if image.mode in ("RGB", "RGBA", "LA", "CMYK", "YCbCr") else "not a mask",
        )
    return image


def _short(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known picture format"
    return " ".join(str(error).split())[:120] or type(error).__name__

"""The folder layout: ids, photographs and masks, read as the network and the scores need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff")
MASK_SUFFIXES = (".npy", ".png", ".PNG")
ORIENTATION_TAG = 0x0112
READ_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Files:
    """A dataset's folder: `root/images/ID.jpg` and `root/masks/ID.npy` (or `.png`)."""

    root: Path
    images: str = "JPEGImages"
    masks: str = "gt_masks"

    def image(self, name: str) -> Path:
        """The photograph of an id. Raises `InputError` where there is none."""
        return self._find(name, self.images, IMAGE_SUFFIXES, "photograph")

    def mask(self, name: str) -> Path:
        """The mask of an id. Raises `InputError` where there is none."""
        return self._find(name, self.masks, MASK_SUFFIXES, "mask")

    def ids(self, list_name: str, limit: int | None = None) -> list[str]:
        """Ids of a list under root, the first `limit` of them."""
        if not self.root.is_dir():
            raise InputError(
                f"data.root: no folder {self.root}; give the one that holds {self.images}/ and {self.masks}/"
            )
        return read_ids(self.root / list_name)[:limit]

    def check(self, names: Sequence[str]) -> None:
        """Open every header: both files are there, readable, and of one size. Raises `InputError` naming the first."""
        # One by one: in threads, NumPy's reading of .npy headers trips over CPython 3.11's parser.
        faults = [fault for fault in map(self._fault, dict.fromkeys(names)) if fault]
        if faults:
            more = f" ({len(faults) - 1} more ids have faults)" if len(faults) > 1 else ""
            raise InputError(faults[0] + more)

    def _fault(self, name: str) -> str | None:
        try:
            image, mask = self.image(name), self.mask(name)
            with open_image(image) as opened:
                fitting_turn(opened, mask_shape(mask), image)
        except InputError as error:
            return str(error)
        return None

    def _find(self, name: str, folder: str, suffixes: Sequence[str], what: str) -> Path:
        for suffix in suffixes:
            if (path := self.root / folder / f"{name}{suffix}").is_file():
                return path
        where = self.root / folder
        if not where.is_dir():
            raise InputError(
                f"no folder {where} for the {what}s; mend data.root or data.{'images' if 'photo' in what else 'masks'}"
            )
        raise InputError(f"{name}: no {what} {where / name}{suffixes[0]}; add it or take the id out of the id lists")


def read_ids(path: Path) -> list[str]:
    """Ids of a text file, one a line; blank lines, surrounding spaces, CRLF and an image suffix do not matter."""
    if not path.is_file():
        raise InputError(f"no id file {path}; write one id a line, or name another in data.train_ids / data.valid_ids")
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return [name.removesuffix(Path(name).suffix) if name.endswith(IMAGE_SUFFIXES) else name for name in names if name]


def open_image(path: Path) -> Image.Image:
    """A photograph with its header read. Raises `InputError` where it is none."""
    try:
        return Image.open(path)
    except (UnidentifiedImageError, *READ_ERRORS) as error:
        raise InputError(
            f"{path}: not a readable photograph ({_short(error)}); replace it or take out its id"
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
                f"{path}: the photograph breaks off ({_short(error)}); replace it or take out its id"
            ) from None
        return to_rgb(ImageOps.exif_transpose(image) if turn else image)


def fitting_turn(image: Image.Image, shape: tuple[int, int], path: Path) -> bool:
    """Whether EXIF orientation is to be applied so that the photograph has `shape` (height, width)."""
    wide, high = image.size
    stored = (high, wide)
    turned = stored[::-1] if image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8) else stored
    if shape not in (turned, stored):
        raise InputError(
            f"{path}: {turned[0]}x{turned[1]} (height x width), but its mask is {shape[0]}x{shape[1]}; "
            "they must have one size"
        )
    return shape == turned


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode → RGB; 16-bit grey is scaled, where Pillow alone would clip it."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        scale = 255.0 if values.max() <= 1 and image.mode == "F" else 1.0 if values.max() <= 255 else 1 / 257
        image = Image.fromarray(np.clip(values * scale, 0, 255).round().astype(np.uint8))
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def mask_shape(path: Path) -> tuple[int, int]:
    """(height, width) of a mask file from its header. Raises `InputError` where it cannot hold class ids."""
    if path.suffix == ".npy":
        return _npy(path).shape
    with _open_png(path) as image:
        return image.size[::-1]


def read_mask(path: Path, leaves: int | None = None) -> np.ndarray:
    """(H, W) uint8 leaf ids of a `.npy` (any integer dtype) or 8-bit / palette `.png` file, as stored.

    Raises `InputError` for other content, and with `leaves` for an id that is neither below it nor 255.
    """
    if path.suffix == ".npy":
        ids = np.array(_npy(path))
    else:
        with _open_png(path) as image:
            try:
                ids = np.array(image)
            except READ_ERRORS as error:
                raise InputError(f"{path}: the mask breaks off ({_short(error)}); replace it") from None
    outside = (ids < 0) | (ids > IGNORE_INDEX)
    if leaves is not None:
        outside |= (ids >= leaves) & (ids != IGNORE_INDEX)
    if outside.any():
        known = f"0 to {leaves - 1}" if leaves else "0 to 254"
        raise InputError(
            f"{path}: class id {int(ids[outside][0])} is not in the tree ({known}, or 255 for no class); "
            "mend the mask or the hierarchy"
        )
    return ids.astype(np.uint8)


def resize_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A photograph squeezed to `size` (height, width), bilinear and antialiased."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def resize_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask of ids brought to `size` (height, width) by nearest neighbour: no id appears that was not there."""
    return mask.resize(size[::-1], Image.Resampling.NEAREST)


class GetImage:
    """DataBlock getter: id (or a photograph's own path) → RGB `PIL.Image`, turned as its mask needs."""

    def __init__(self, root: str | Path, images: str = "JPEGImages", masks: str = "gt_masks"):
        self.files = Files(Path(root), images, masks)

    def __call__(self, name: str | Path) -> Image.Image:
        # A file's own path is what `learn.predict` is asked with; there is no mask to look at then.
        if Path(name).suffix and Path(name).is_file():
            return read_image(Path(name))
        return read_image(self.files.image(name), mask_shape(self.files.mask(name)))


class GetMask:
    """DataBlock getter: id → 8-bit `PIL.Image` of leaf ids; with `leaves`, only 0..leaves-1 and 255 are taken."""

    def __init__(self, root: str | Path, masks: str = "gt_masks", leaves: int | None = None):
        self.files, self.leaves = Files(Path(root), masks=masks), leaves

    def __call__(self, name: str) -> Image.Image:
        return Image.fromarray(read_mask(self.files.mask(name), self.leaves))


def _npy(path: Path) -> np.ndarray:
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except READ_ERRORS as error:
        kind = type(error).__name__
        raise InputError(f"{path}: not a readable .npy array of numbers ({kind}); replace it") from None
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or ids.ndim != 2:
        shape, kind = getattr(ids, "shape", "?"), getattr(ids, "dtype", "?")
        raise InputError(f"{path}: an array of {kind} {shape}; a mask is a 2-D array of whole numbers")
    return ids


def _open_png(path: Path) -> Image.Image:
    image = open_image(path)
    if image.mode not in ("L", "P", "1"):
        raise InputError(f"{path}: mode {image.mode}; a mask is an 8-bit grey or palette picture of class ids")
    return image


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__

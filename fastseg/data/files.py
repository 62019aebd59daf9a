"""The folder layout: ids, and the photograph and mask of each, of one dataset or of several trained on together."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from PIL import Image, ImageOps

from fastseg.data.pictures import fitting_turn, mask_shape, open_image, read_image, read_mask, to_rgb
from fastseg.data.progress import progress_line
from fastseg.data.sample import embedded_sample
from fastseg.errors import InputError
from fastseg.settings import Settings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff")
MASK_SUFFIXES = (".npy", ".png", ".PNG")
Roots = str | Path | Sequence[str | Path]


class _Layout:
    """What one folder and several have in common."""

    def image(self, name: str) -> Path:
        """The photograph of an id. Raises `InputError` where there is none."""
        raise NotImplementedError

    def mask(self, name: str) -> Path:
        """The mask of an id. Raises `InputError` where there is none."""
        raise NotImplementedError

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


@dataclass(frozen=True)
class Files(_Layout):
    """A dataset's folder: `root/images/ID.jpg` and `root/masks/ID.npy` (or `.png`)."""

    root: Path
    images: str = "JPEGImages"
    masks: str = "gt_masks"

    @property
    def parts(self) -> dict[str, Files]:
        """What goes before an id → the folder it is in: here nothing."""
        return {"": self}

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

    def _find(self, name: str, folder: str, suffixes: Sequence[str], what: str) -> Path:
        for suffix in suffixes:
            if (path := self.root / folder / f"{name}{suffix}").is_file():
                return path
        where = self.root / folder
        if not where.is_dir():
            raise InputError(
                f"no folder {where} for the {what}s; mend data.root or data.{'images' if 'photo' in what else 'masks'}"
            )
        other = next(iter(sorted(where.glob(f"{glob.escape(name)}.*"))), None) if "\0" not in name else None
        beside = f" ({other.name} is not read: the name must end in {', '.join(suffixes)})" if other else ""
        raise InputError(
            f"{name}: no {what} {where / name}{suffixes[0]}{beside}; add it or take the id out of the id lists",
            f"id without {what}",
        )


@dataclass(frozen=True)
class JoinedFiles(_Layout):
    """Several datasets as one: an id is `PREFIX/ID`, where the prefix stands for a folder."""

    parts: dict[str, Files]

    @property
    def root(self) -> Path:
        """The first folder."""
        return next(iter(self.parts.values())).root

    def image(self, name: str) -> Path:
        """The photograph of an id. Raises `InputError` where there is none."""
        files, own = self._split(name)
        return files.image(own)

    def mask(self, name: str) -> Path:
        """The mask of an id. Raises `InputError` where there is none."""
        files, own = self._split(name)
        return files.mask(own)

    def ids(self, list_name: str, limit: int | None = None) -> list[str]:
        """Ids of the lists of that name, one folder after the other; with a limit the folders take turns."""
        lists = [[f"{prefix}/{name}" for name in files.ids(list_name)] for prefix, files in self.parts.items()]
        if limit is None:
            return list(chain.from_iterable(lists))
        return [name for turn in zip_longest(*lists) for name in turn if name is not None][:limit]

    def _split(self, name: str) -> tuple[Files, str]:
        prefix, _, own = str(name).partition("/")
        if prefix not in self.parts:
            raise InputError(f"{name}: begins with none of the datasets {', '.join(self.parts)}")
        return self.parts[prefix], own


def open_files(root: Roots, images: str = "JPEGImages", masks: str = "gt_masks") -> Files | JoinedFiles:
    """The layout under one folder, or under several, whose ids then begin with the folder's name."""
    if isinstance(root, (str, Path)):
        return Files(Path(root).expanduser(), images, masks)
    parts: dict[str, Files] = {}
    for folder in (Path(one).expanduser() for one in root):
        name = folder.resolve().name
        prefix = next(p for n in range(len(parts) + 1) if (p := name if n == 0 else f"{name}-{n + 1}") not in parts)
        parts[prefix] = Files(folder, images, masks)
    return JoinedFiles(parts) if len(parts) > 1 else next(iter(parts.values()))


def read_ids(path: Path) -> list[str]:
    """Ids of a text file, one a line; blank lines, surrounding spaces, CRLF and an image suffix do not matter."""
    if not path.is_file():
        raise InputError(f"no id file {path}; write one id a line, or name another in data.train_ids / data.valid_ids")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; write one id a line") from None
    return [name.removesuffix(Path(name).suffix) if name.endswith(IMAGE_SUFFIXES) else name for name in names if name]


def dataset_files(cfg: Settings) -> Files | JoinedFiles:
    """The dataset's folder or folders; where none is configured, the embedded sample, drawn on first use."""
    sample, root = cfg.data.sample, cfg.data.root
    if root is None:
        root = embedded_sample(
            sample.train, sample.valid, sample.size, sample.seed, progress_line("drawing the sample")
        )
    return open_files(root, cfg.data.images, cfg.data.masks)


class GetImage:
    """DataBlock getter: id (or a photograph's own path) → RGB `PIL.Image`, turned as its mask needs."""

    def __init__(self, root: Roots, images: str = "JPEGImages", masks: str = "gt_masks"):
        self.files = open_files(root, images, masks)

    def __call__(self, name: str | Path | Image.Image) -> Image.Image:
        # `learn.predict` is asked with a picture, or with a file's own path; there is no mask to look at then.
        if isinstance(name, Image.Image):
            return to_rgb(ImageOps.exif_transpose(name))
        if Path(name).suffix and Path(name).is_file():
            return read_image(Path(name))
        if str(name).endswith(IMAGE_SUFFIXES):
            raise InputError(f"{name}: no such photograph")
        return read_image(self.files.image(name), mask_shape(self.files.mask(name)))


class GetMask:
    """DataBlock getter: id → 8-bit `PIL.Image` of leaf ids; with `leaves`, only 0..leaves-1 and 255 are taken."""

    def __init__(self, root: Roots, masks: str = "gt_masks", leaves: int | None = None):
        self.files, self.leaves = open_files(root, masks=masks), leaves

    def __call__(self, name: str) -> Image.Image:
        return Image.fromarray(read_mask(self.files.mask(name), self.leaves))

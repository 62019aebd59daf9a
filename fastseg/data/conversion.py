"""What the converters share: files and photographs found, masks written by a pool of processes, ids split."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.machine import map_in_processes
from fastseg.data.pictures import fitting_turn, open_image, read_mask
from fastseg.data.summary import Summary
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

PHOTOGRAPHS = (".jpg", ".jpeg", ".png")
Folders = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Recipe:
    """How one kind of annotation becomes masks."""

    name: str
    leaves: tuple[str, ...]
    digest: str  # of all that decides a mask's pixels
    read: Callable[[Path], np.ndarray]  # annotation file → (H, W) uint8 leaf ids and 255
    source: str  # suffix of the annotation files
    target: str  # suffix of the masks: .npy or .png
    blank: int | None = 0  # masks of nothing but this id and 255 are skipped
    tree: Hierarchy | None = None  # where there is one, `tree.yaml` is written

    def shows(self, mask: np.ndarray) -> bool:
        """Whether a mask is worth writing."""
        return bool(np.any(mask != IGNORE_INDEX if self.blank is None else ~np.isin(mask, (self.blank, IGNORE_INDEX))))


def convert_files(
    recipe: Recipe,
    annotations: Folders,
    images: Folders,
    out: str | Path,
    train_ids: str | Path | None = None,
    valid_ids: str | Path | None = None,
    valid_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Convert the annotation files of one or several folders by a recipe, and write the layout into `out`.

    Two id files (one id a line) name the parts, and what stands in neither is left alone; of one, the rest is the other
    part; without any, a hash of (seed, id) draws `valid_fraction`. Masks of an earlier run by the same recipe are kept,
    those of another are removed and redone; the id lists come last. `progress(done, total)` is called after each file.
    A file that cannot be converted goes to `Summary.damaged` and the rest goes on; folders and settings that cannot
    work are an `InputError`.
    """
    out = Path(out)
    if not 0 <= valid_fraction < 1:
        raise InputError(f"the valid fraction is {valid_fraction}: it must be at least 0 and less than 1")
    sources, photos = listed(annotations, (recipe.source,)), listed(images, PHOTOGRAPHS)
    train, valid = _read_ids(train_ids, "train", sources), _read_ids(valid_ids, "valid", sources)
    found = len(sources)
    if train is not None and valid is not None:
        if both := sorted(train & valid):
            raise InputError(f"{both[0]} is in {train_ids} and in {valid_ids}: take it out of one of them")
        sources = {name: file for name, file in sources.items() if name in train | valid}
    _prepare(out, recipe)
    # In a folder of masks and photographs alike, a mask must not pass for its own photograph.
    photos = {name: photo for name, photo in photos.items() if photo != sources.get(name)}
    absent = _folders(images)[0]
    pairs = [(file, photos.get(name, absent / f"{name}.jpg")) for name, file in sources.items()]
    summary, totals, ids = Summary(recipe.name, {}, unlisted=found - len(sources)), np.zeros(256, np.int64), []
    results = map_in_processes(partial(_convert_one, recipe=recipe, out=out), pairs, workers)
    for done, (name, (state, detail)) in enumerate(zip(sources, results, strict=True), 1):
        if state == "damaged":
            summary.damaged.append((str(sources[name]), detail))
        elif state == "skipped":
            summary.skipped.append(name)
        else:
            ids.append(name)
            totals += detail
            summary.kept += state == "kept"
        if progress is not None:
            progress(done, len(sources))
    summary.pixels = dict(zip(recipe.leaves, totals[: len(recipe.leaves)].tolist(), strict=True))
    summary.written, summary.ignored = len(ids) - summary.kept, int(totals[IGNORE_INDEX])
    _write_lists(out, recipe, summary, ids, train, valid if train or valid else _drawn(ids, valid_fraction, seed))
    return summary


def _write_lists(
    out: Path, recipe: Recipe, summary: Summary, ids: list[str], train: set[str] | None, valid: set[str] | None
) -> None:
    parts = [
        [name for name in ids if (name in own if own is not None else name not in other)]
        for own, other in ((train, valid), (valid, train))
    ]
    summary.train, summary.valid = map(len, parts)
    summary.train_missing = sorted((train or set()).difference(ids))
    summary.valid_missing = sorted((valid or set()).difference(ids))
    write(out / "classes.txt", "".join(f"{i}: {leaf}\n" for i, leaf in enumerate(recipe.leaves)).encode())
    if recipe.tree is not None:
        use = f"# {recipe.name}. Train with: fastseg train --config DIR/tree.yaml --data.root DIR\n"
        write(out / "tree.yaml", (use + recipe.tree.to_yaml()).encode())
    for file, names in zip(("train_id.txt", "val_id.txt"), parts, strict=True):
        write(out / file, "".join(f"{name}\n" for name in names).encode())


def _folders(folders: Folders) -> list[Path]:
    return [Path(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]


def listed(folders: Folders, suffixes: Sequence[str]) -> dict[str, Path]:
    """Id → file over one or several folders, in the order of the ids; of one id's files the earlier suffix wins.

    Raises `InputError` for a folder without such files, and for an id that two folders have.
    """
    files: dict[str, Path] = {}
    for folder in _folders(folders):
        # macOS leaves '._ID.mat' beside unpacked files; they are no annotations.
        here = [file for file in folder.glob("*") if file.suffix.lower() in suffixes and file.name[0] != "."]
        if not here:
            names = " or ".join(suffixes)
            what = f"has no {names} file" if folder.is_dir() else "is no folder"
            hint = "; label maps need a protocol of theirs" if ".mat" in suffixes and any(folder.glob("*.png")) else ""
            raise InputError(f"{folder} {what}: give the folder that holds the {names} files themselves{hint}")
        own = {file.stem: file for file in sorted(here, key=lambda f: (-suffixes.index(f.suffix.lower()), f.name))}
        for name in sorted(own.keys() & files.keys())[:1]:
            raise InputError(f"{files[name]} and {own[name]} have one id: give folders whose ids differ")
        files |= own
    return dict(sorted(files.items()))


def _read_ids(file: str | Path | None, part: str, known: Iterable[str]) -> set[str] | None:
    if file is None:
        return None
    try:
        ids = set(Path(file).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the {part} ids from {file}: {error}") from None
    if not ids.intersection(known):
        raise InputError(f"{file}: none of its {len(ids)} ids has an annotation: one id a line, without .mat or .jpg")
    return ids


def _drawn(ids: list[str], fraction: float, seed: int) -> set[str]:
    # Ordered by a hash of (seed, id), so that a few ids more or less leave the others where they were.
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(order[: min(max(round(fraction * len(ids)), 1 if fraction else 0), max(len(ids) - 1, 0))])


def _prepare(out: Path, recipe: Recipe) -> None:
    """Make the folders, and clear away another recipe's masks before the record claims that all are of this one."""
    record, masks = out / "convert.json", out / "gt_masks"
    there = [*(out / name for name in ("train_id.txt", "val_id.txt", "classes.txt", "tree.yaml")), *masks.glob("*")]
    there = [file for file in there if file.is_file()]
    try:
        digest = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        digest = None
    if digest is None and there:
        raise InputError(f"{out} has files that convert did not write, such as {there[0].name}: give another folder")
    for file in there if digest != recipe.digest else []:
        file.unlink()
    try:
        for folder in (masks, out / "JPEGImages"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None
    write(record, json.dumps({"protocol": recipe.name, "sha256": recipe.digest}, indent=1).encode())


def _convert_one(pair: tuple[Path, Path], recipe: Recipe, out: Path) -> tuple[str, object]:
    """One annotation: ("written" or "kept", pixels of each id), ("skipped", None) or ("damaged", the reason)."""
    source, photo = pair
    target = out / "gt_masks" / f"{source.stem}{recipe.target}"
    mask, state = _mask_there(source, photo, target, recipe), "kept"
    if mask is None:
        state = "written"
        target.unlink(missing_ok=True)
        try:
            mask = recipe.read(source)
            if not recipe.shows(mask):
                return "skipped", None
            _check_size(mask, photo)
        except Exception as error:  # A damaged file can make its reader raise anything, and must not stop the others.
            what = "" if isinstance(error, InputError) else f"cannot be read: {type(error).__name__}: "
            return "damaged", what + " ".join(str(error).removeprefix(f"{source}: ").split())
    write(out / "JPEGImages" / photo.name, photo.read_bytes())
    if state == "written":
        buffer = io.BytesIO()
        if recipe.target == ".npy":
            np.save(buffer, mask)
        else:
            Image.fromarray(mask).save(buffer, "PNG")
        write(target, buffer.getvalue())
    return state, np.bincount(mask.ravel(), minlength=256)


def _check_size(mask: np.ndarray, photo: Path) -> None:
    if not photo.is_file():
        raise InputError(f"there is no photograph {photo}, nor one of its id that ends in .jpeg or .png")
    with open_image(photo) as image:
        fitting_turn(image, mask.shape, photo)


def _mask_there(source: Path, photo: Path, target: Path, recipe: Recipe) -> np.ndarray | None:
    try:
        if target.stat().st_mtime < source.stat().st_mtime:
            return None
        mask = read_mask(target, len(recipe.leaves))
        _check_size(mask, photo)
    except (OSError, InputError):  # no mask yet, half a mask, or no photograph: converting will tell
        return None
    return mask if recipe.shows(mask) else None


def write(path: Path, content: bytes) -> None:
    """Write a whole file or none; one that has this content is left as it is. Raises `InputError` where it cannot."""
    # One temporary name per file, so that what a killed run leaves behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None

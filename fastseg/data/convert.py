"""Pascal-Part's original `.mat` annotations → the folder layout that everything else reads."""

import filecmp
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from fastseg.data.protocol import Protocol, load_protocol
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


@dataclass
class Summary:
    """What `convert` did; `table()` is its text."""

    protocol: str
    pixels: dict[str, int]  # leaf → pixels, over written and kept masks
    written: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)  # ids without a pixel of the protocol's leaves
    damaged: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    train: int = 0
    valid: int = 0
    valid_missing: list[str] = field(default_factory=list)  # asked for by `valid_ids`, and not converted

    def table(self) -> str:
        """Give the counts, the damaged files with their reasons, and the pixels of each leaf, as plain text."""
        names = ", ".join(self.skipped[:5]) + (" …" if len(self.skipped) > 5 else "")
        missing = f"and {len(self.valid_missing)} ids asked for, but not converted" if self.valid_missing else ""
        rows = [
            ("written", self.written, ""),
            ("kept", self.kept, ""),
            ("skipped", len(self.skipped), names and f"no part of the protocol: {names}"),
            ("damaged", len(self.damaged), "".join(f"\n  {file}: {reason}" for file, reason in self.damaged)),
            ("train", self.train, ""),
            ("valid", self.valid, missing),
        ]
        width, total = max(map(len, self.pixels)), max(sum(self.pixels.values()), 1)
        return "\n".join(
            [
                f"protocol {self.protocol}",
                *(f"{name:<9}{count:>8,}  {note}".rstrip() for name, count, note in rows),
                f" id {'leaf':<{width}} {'pixels':>14}   share",
                *(
                    f"{i:>3} {leaf:<{width}} {self.pixels[leaf]:>14,} {self.pixels[leaf] / total:>7.2%}"
                    for i, leaf in enumerate(self.pixels)
                ),
            ]
        )


def convert(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    protocol: str | Path = "person6",
    valid_ids: str | Path | None = None,
    valid_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Paint each `.mat` of the folder `annotations` that shows a part of the protocol, and write the layout into `out`.

    `valid_ids` is a file with one id a line; without it a hash of (seed, id) draws `valid_fraction`. Masks of an
    earlier run under the same protocol are kept, those of another are removed and redone; the id lists come last.
    `progress(done, total)` is called after each file. A file that cannot be converted goes to `Summary.damaged` and the
    rest goes on; folders and settings that cannot work are an `InputError`.
    """
    out, rules = Path(out), load_protocol(protocol)
    if not 0 <= valid_fraction < 1:
        raise InputError(f"the valid fraction is {valid_fraction}: it must be at least 0 and less than 1")
    files = _listed(Path(annotations), ".mat")
    _listed(Path(images), ".jpg")
    wanted = None if valid_ids is None else _read_ids(Path(valid_ids), {file.stem for file in files})
    _prepare(out, rules)
    summary, totals, ids = Summary(rules.name, {}), np.zeros(len(rules.leaves), np.int64), []
    results = _run(partial(_convert_one, images=Path(images), out=out, protocol=rules), files, workers)
    for done, (file, (state, detail)) in enumerate(zip(files, results, strict=True), 1):
        if state == "damaged":
            summary.damaged.append((str(file), detail))
        elif state == "skipped":
            summary.skipped.append(file.stem)
        else:
            ids.append(file.stem)
            totals += detail
            summary.kept += state == "kept"
        if progress is not None:
            progress(done, len(files))
    valid = _drawn(ids, valid_fraction, seed) if wanted is None else wanted.intersection(ids)
    summary.pixels = dict(zip(rules.leaves, totals.tolist(), strict=True))
    summary.written, summary.valid_missing = len(ids) - summary.kept, sorted((wanted or set()) - valid)
    summary.train, summary.valid = len(ids) - len(valid), len(valid)
    _write(out / "classes.txt", "".join(f"{i}: {leaf}\n" for i, leaf in enumerate(rules.leaves)).encode())
    _write(out / "train_id.txt", "".join(f"{name}\n" for name in ids if name not in valid).encode())
    _write(out / "val_id.txt", "".join(f"{name}\n" for name in ids if name in valid).encode())
    return summary


def _listed(folder: Path, suffix: str) -> list[Path]:
    # macOS leaves '._ID.mat' beside unpacked files; they are no annotations.
    files = [file for file in folder.glob(f"*{suffix}") if not file.name.startswith(".")]
    if not files:
        what = f"has no {suffix} file" if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {what}: give the folder that holds the {suffix} files themselves")
    return sorted(files, key=lambda file: file.stem)


def _read_ids(file: Path, known: set[str]) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the valid ids from {file}: {error}") from None
    if not ids & known:
        raise InputError(f"{file}: none of its {len(ids)} ids has an annotation: one id a line, without .mat or .jpg")
    return ids


def _drawn(ids: list[str], fraction: float, seed: int) -> set[str]:
    # Ordered by a hash of (seed, id), so that a few ids more or less leave the others where they were.
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(order[: min(max(round(fraction * len(ids)), 1 if fraction else 0), max(len(ids) - 1, 0))])


def _prepare(out: Path, protocol: Protocol) -> None:
    """Make the folders, and clear away another protocol's masks before the record claims that all are of this one."""
    record, masks = out / "convert.json", out / "gt_masks"
    there = [out / "train_id.txt", out / "val_id.txt", out / "classes.txt", *masks.glob("*")]
    there = [file for file in there if file.is_file()]
    try:
        digest = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        digest = None
    if digest is None and there:
        raise InputError(f"{out} has files that convert did not write, such as {there[0].name}: give another folder")
    for file in there if digest != protocol.digest else []:
        file.unlink()
    try:
        for folder in (masks, out / "JPEGImages"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None
    _write(record, json.dumps({"protocol": protocol.name, "sha256": protocol.digest}, indent=1).encode())


def _run(function: Callable, files: list[Path], workers: int | None) -> Iterator:
    if workers is None:
        # A process takes longer to start than sixteen files to paint.
        workers = min(os.cpu_count() or 1, 8, len(files) // 16)
    if workers < 2:
        yield from map(function, files)
    else:
        with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
            yield from pool.map(function, files, chunksize=8)


def _end_with_parent() -> None:
    # Workers of a killed process would wait for work for ever, and hold its terminal or pipe open.
    parent = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _convert_one(file: Path, images: Path, out: Path, protocol: Protocol) -> tuple[str, object]:
    """One annotation: ("written" or "kept", pixels of each leaf), ("skipped", None) or ("damaged", the reason)."""
    from scipy.io import loadmat

    photo, target = images / f"{file.stem}.jpg", out / "gt_masks" / f"{file.stem}.npy"
    mask, state = _mask_there(file, photo, target, protocol), "kept"
    if mask is None:
        state = "written"
        target.unlink(missing_ok=True)
        try:
            mask = paint(loadmat(file, appendmat=False, variable_names=["anno"]), protocol)
            if mask.any() and mask.shape != (shape := _photo_shape(photo)):
                raise InputError(f"its masks are {mask.shape} (high, wide) and {photo} is {shape}")
        except Exception as error:  # A damaged file can make scipy raise anything, and it must not stop the others.
            what = "" if isinstance(error, InputError) else f"cannot be read: {type(error).__name__}: "
            return "damaged", what + " ".join(str(error).split())
        if not mask.any():
            return "skipped", None
    copy = out / "JPEGImages" / photo.name
    if not copy.is_file() or not filecmp.cmp(photo, copy, shallow=False):
        _write(copy, photo.read_bytes())
    if state == "written":
        buffer = io.BytesIO()
        np.save(buffer, mask)
        _write(target, buffer.getvalue())
    return state, np.bincount(mask.ravel(), minlength=len(protocol.leaves))


def _photo_shape(photo: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(photo) as image:
            return image.height, image.width
    except OSError as error:
        raise InputError(f"its photograph {photo} cannot be read: {error.strerror or error}") from None


def _mask_there(file: Path, photo: Path, target: Path, protocol: Protocol) -> np.ndarray | None:
    try:
        mask = np.load(target, allow_pickle=False) if target.stat().st_mtime >= file.stat().st_mtime else np.zeros(0)
        good = mask.dtype == np.uint8 and mask.shape == _photo_shape(photo)
    except (OSError, ValueError, EOFError):  # no mask yet, half a mask, or no photograph: painting will tell
        return None
    return mask if good and 0 < mask.max() < len(protocol.leaves) else None


def _write(path: Path, content: bytes) -> None:
    # One temporary name per file, so that what a killed run leaves behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None

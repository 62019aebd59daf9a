"""Pascal-Part's original `.mat` annotations → the folder layout that everything else reads."""

import filecmp
import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from ..errors import InputError

PROTOCOLS = Path(__file__).parent / "protocols"


@dataclass(frozen=True)
class Protocol:
    """Which part of which class paints which leaf."""

    name: str
    leaves: tuple[str, ...]
    rules: dict[str, dict[str, int]]  # class -> name or pattern of a part -> leaf id
    other_classes: str = "erase"

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a mask, so that masks of another protocol are told apart and comments are free."""
        content = [self.leaves, list(self.rules.items()), self.other_classes]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def leaf(self, class_name: str, part: str) -> int:
        """The id that a part paints: 0 for another class; an `InputError` for a part that its class does not list."""
        rules = self.rules.get(class_name)
        if rules is None:
            return 0
        if part in rules:
            return rules[part]
        for pattern, leaf in rules.items():
            if fnmatchcase(part, pattern):
                return leaf
        raise InputError(f"part '{part}' of class '{class_name}' is in no rule of protocol '{self.name}': "
                         f"list it there under a leaf")


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Read a protocol by its name (`person6`) or from a `.yaml` file; `InputError` says what is wrong with a bad one."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROTOCOLS / f"{name_or_path}.yaml"
        known = sorted(file.stem for file in PROTOCOLS.glob("*.yaml"))
        if str(name_or_path) not in known:
            raise InputError(f"unknown protocol '{name_or_path}': known are {', '.join(known)}, or give a .yaml file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read protocol {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not {"leaves", "classes"} <= set(content) <= {"leaves", "classes", "other_classes"}:
        raise InputError(f"protocol {path} needs the keys leaves and classes, may have other_classes, and no more")
    leaves, classes = content["leaves"], content["classes"]
    if not isinstance(leaves, dict) or not 2 <= len(leaves) <= 256 or list(leaves) != list(range(len(leaves))):
        raise InputError(f"protocol {path}: leaves must be 'id: name' with the ids 0, 1, 2 … in order, 0 the background")
    names = tuple(leaves.values())
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"protocol {path}: the names of leaves must be different words (quote yes, no, on, off)")
    if not isinstance(classes, dict) or not classes:
        raise InputError(f"protocol {path}: classes must be 'class: {{leaf: [parts]}}'")
    other = content.get("other_classes", "erase")
    if other not in ("erase", "ignore"):
        raise InputError(f"protocol {path}: other_classes is '{other}', it can be erase or ignore")
    return Protocol(path.stem, names, {str(key): _rules(path, key, value, names) for key, value in classes.items()}, other)


def _rules(path: Path, class_name: str, leaf_parts: object, leaves: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(leaf_parts, dict):
        raise InputError(f"protocol {path}: class '{class_name}' must be '{{leaf: [parts]}}'")
    rules = {}
    for leaf, parts in leaf_parts.items():
        if leaf not in leaves:
            raise InputError(f"protocol {path}: class '{class_name}' paints '{leaf}', which is not one of {', '.join(leaves)}")
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise InputError(f"protocol {path}: {class_name}.{leaf} must be a list of names (quote yes, no, on, off)")
        for part in parts:
            if part in rules:
                raise InputError(f"protocol {path}: part '{part}' of class '{class_name}' is listed twice: keep one")
            rules[part] = leaves.index(leaf)
    return rules


def paint(annotation: dict, protocol: Protocol) -> np.ndarray:
    """The mask of one annotation: objects in file order, within each its parts in file order, later over earlier.

    `annotation` is what `scipy.io.loadmat` returns, with or without `squeeze_me` and `struct_as_record`.
    Returns (H, W) uint8 leaf ids; (0, 0) where there is no object. `InputError` for a structure that is not Pascal-Part's,
    for parts of unequal shapes and for a part that no rule names. An object without parts paints and erases nothing.
    Source: Chen et al., "Detect What You Can", CVPR 2014 (its mat2map.m: later objects occlude earlier ones).
    """
    if "anno" not in annotation:
        raise InputError("no `anno` struct: is this a file of Annotations_Part?")
    objects = [item for anno in _elements(annotation["anno"]) for item in _elements(_get(anno, "objects"))]
    canvas = np.zeros(np.shape(_get(objects[0], "mask")) if objects else (0, 0), np.uint8)
    if canvas.ndim != 2:
        raise InputError(f"the object's mask has {canvas.ndim} dimensions instead of 2")
    for item in objects:
        class_name = _text(_get(item, "class"))
        if protocol.other_classes == "ignore" and class_name not in protocol.rules:
            continue
        for part in _elements(_get(item, "parts")):
            name, mask = _text(_get(part, "part_name")), np.asarray(_get(part, "mask"))
            if mask.shape != canvas.shape:
                raise InputError(f"the mask of part '{name}' of class '{class_name}' is {_size(mask.shape)}, "
                                 f"that of the first object {_size(canvas.shape)}")
            canvas[mask > 0] = protocol.leaf(class_name, name)
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


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) + (" (high × wide)" if len(shape) == 2 else "")


@dataclass
class Summary:
    """What `convert` did; `table()` is its text."""

    protocol: str
    pixels: dict[str, int]  # leaf -> pixels, over written and kept masks
    written: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)  # ids without a pixel of the protocol's leaves
    damaged: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    train: int = 0
    valid: int = 0
    valid_missing: list[str] = field(default_factory=list)  # ids of the valid_ids file that were not converted

    def table(self) -> str:
        """A plain-text table: counts, the damaged files by name, pixels of each leaf."""
        rows = [("written", self.written, ""), ("kept", self.kept, "were there already"),
                ("skipped", len(self.skipped), _some("no part of the protocol", self.skipped)),
                ("damaged", len(self.damaged), ""), ("train", self.train, ""), ("valid", self.valid, "")]
        if self.valid_missing:
            rows.append(("not valid", len(self.valid_missing), _some("asked for, not converted", self.valid_missing)))
        lines = [f"protocol   {self.protocol}"]
        lines += [f"{name:<10}{count:>8}  {note if count else ''}".rstrip() for name, count, note in rows]
        lines += [f"  {file}: {reason}" for file, reason in self.damaged]
        total = max(sum(self.pixels.values()), 1)
        width = max(map(len, self.pixels))
        lines.append(f"{'id':>3}  {'leaf':<{width}}  {'pixels':>13}   share")
        lines += [f"{i:>3}  {leaf:<{width}}  {count:>13,}  {count / total:6.2%}"
                  for i, (leaf, count) in enumerate(self.pixels.items())]
        return "\n".join(lines)


def _some(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def convert(annotations, images, out, protocol="person6", valid_ids=None, valid_fraction=0.2, seed=0, workers=None,
            progress=None) -> Summary:
    """Paint every `.mat` of a folder that shows a part of the protocol and write the layout into `out`.

    `valid_ids` names a file with one id a line; else the fraction is drawn by a hash of (seed, id). Masks that an earlier
    run wrote under the same protocol are kept; those of another protocol are removed and painted anew. The id lists come
    last: a folder that has them is complete. `progress(done, total)` is called after each file. A file that cannot be
    converted is named in `Summary.damaged` and the rest goes on; `InputError` for folders and settings that cannot work.
    """
    annotations, images, out = Path(annotations), Path(images), Path(out)
    rules = load_protocol(protocol)
    if not 0 <= valid_fraction < 1:
        raise InputError(f"the valid fraction is {valid_fraction}: it must be at least 0 and less than 1")
    files = _listed(annotations, ".mat", "annotations")
    _listed(images, ".jpg", "photographs")
    wanted = None if valid_ids is None else _read_ids(Path(valid_ids), {file.stem for file in files})
    _prepare(out, rules)
    summary, totals, ids = Summary(rules.name, {}), np.zeros(len(rules.leaves), np.int64), []
    results = _run(files, partial(_convert_one, images=images, out=out, protocol=rules), workers)
    for done, (file, (state, detail)) in enumerate(zip(files, results, strict=True), 1):
        if state == "damaged":
            summary.damaged.append((str(file), detail))
        elif state == "skipped":
            summary.skipped.append(file.stem)
        else:
            setattr(summary, state, getattr(summary, state) + 1)
            totals += detail
            ids.append(file.stem)
        if progress is not None:
            progress(done, len(files))
    summary.pixels = dict(zip(rules.leaves, totals.tolist(), strict=True))
    valid = _drawn(ids, valid_fraction, seed) if wanted is None else wanted.intersection(ids)
    summary.valid_missing = sorted((wanted or set()) - valid)
    summary.valid, summary.train = len(valid), len(ids) - len(valid)
    _write(out / "classes.txt", "".join(f"{i}: {leaf}\n" for i, leaf in enumerate(rules.leaves)).encode())
    _write(out / "train_id.txt", "".join(f"{name}\n" for name in ids if name not in valid).encode())
    _write(out / "val_id.txt", "".join(f"{name}\n" for name in ids if name in valid).encode())
    return summary


def _listed(folder: Path, suffix: str, what: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give the one that holds the {what}")
    # macOS leaves '._ID.mat' beside unpacked files; they are no annotations.
    files = sorted(file for file in folder.glob(f"*{suffix}") if not file.name.startswith("."))
    if not files:
        raise InputError(f"no {suffix} file in {folder}: give the folder that holds the {what} themselves")
    return files


def _read_ids(file: Path, known: set[str]) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the valid ids from {file}: {error}") from None
    if not ids & known:
        raise InputError(f"none of the {len(ids)} ids in {file} names an annotation: one id a line, without .mat or .jpg")
    return ids


def _drawn(ids: list[str], fraction: float, seed: int) -> set[str]:
    if fraction == 0 or len(ids) < 2:
        return set()
    # Order by a hash of (seed, id): an id more or less in the set moves no other ids about.
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(order[:min(max(round(fraction * len(ids)), 1), len(ids) - 1)])


def _prepare(out: Path, protocol: Protocol) -> None:
    """Make the folders, and clear away the masks of another protocol before the record says they are of this one."""
    record, masks = out / "convert.json", out / "gt_masks"
    lists = [out / name for name in ("train_id.txt", "val_id.txt", "classes.txt")]
    try:
        digest = json.loads(record.read_text(encoding="utf-8"))["sha256"] if record.is_file() else None
    except (OSError, ValueError, TypeError, KeyError):
        digest = None
    if digest is None and (any(masks.glob("*")) or any(file.exists() for file in lists)):
        raise InputError(f"{out} holds masks or id lists that convert did not write: give another folder for the result")
    if digest is not None and digest != protocol.digest:
        for file in [*lists, *masks.glob("*.npy")]:
            file.unlink(missing_ok=True)
    try:
        masks.mkdir(parents=True, exist_ok=True)
        (out / "JPEGImages").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None
    _write(record, json.dumps({"protocol": protocol.name, "sha256": protocol.digest}, indent=1).encode())


def _run(files: list[Path], function, workers: int | None) -> Iterator:
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(cores, 8, len(files) // 16)  # a process costs more to start than sixteen files to paint
    if workers < 2:
        yield from map(function, files)
        return
    pool = ProcessPoolExecutor(workers)
    try:
        yield from pool.map(function, files, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _convert_one(file: Path, images: Path, out: Path, protocol: Protocol) -> tuple[str, object]:
    """One annotation: ("written" or "kept", pixels of each leaf), ("skipped", None) or ("damaged", the reason)."""
    photo, target = images / f"{file.stem}.jpg", out / "gt_masks" / f"{file.stem}.npy"
    mask, state = _mask_there(file, photo, target, protocol), "kept"
    if mask is None:
        state = "written"
        target.unlink(missing_ok=True)
        try:
            mask = paint(_load(file), protocol)
            if mask.any() and mask.shape != _photo_shape(photo):
                raise InputError(f"the masks are {_size(mask.shape)}, {photo} is {_size(_photo_shape(photo))}")
        except InputError as error:
            return "damaged", str(error)
        except Exception as error:  # A damaged file can make scipy raise anything, and it must not stop the others.
            return "damaged", f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
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


def _load(file: Path) -> dict:
    from scipy.io import loadmat

    return loadmat(file, appendmat=False, variable_names=["anno"])


def _photo_shape(photo: Path) -> tuple[int, int]:
    from PIL import Image

    if not photo.is_file():
        raise InputError(f"no photograph {photo}")
    try:
        with Image.open(photo) as image:
            return image.height, image.width
    except OSError as error:
        raise InputError(f"the photograph {photo} cannot be read ({error})") from None


def _mask_there(file: Path, photo: Path, target: Path, protocol: Protocol) -> np.ndarray | None:
    try:
        if target.stat().st_mtime < file.stat().st_mtime:
            return None
        mask = np.load(target, allow_pickle=False)
        good = mask.dtype == np.uint8 and mask.shape == _photo_shape(photo)
    except (OSError, ValueError, EOFError):  # no mask yet, half a mask, no photograph: do it anew, or say why not
        return None
    return mask if good and mask.any() and mask.max() < len(protocol.leaves) else None


def _write(path: Path, content: bytes) -> None:
    # Under one temporary name per file, so that what a killed run leaves is overwritten by the next.
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None

"""A memory-mapped copy of a dataset's frames, made once and shared by all runs of the same settings."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastseg.data.conversion import write
from fastseg.data.files import Files, JoinedFiles
from fastseg.data.frames import FrameReader, Framing
from fastseg.data.machine import cores, free_memory
from fastseg.data.sample import cache_folder
from fastseg.errors import InputError

FORMAT = 1
CHUNK = 16  # photographs a worker hands over at once
KEEP_EVERY = 2048  # photographs after which what is done is written down
DISK_SHARE, MEMORY_SHARE = 0.9, 0.4  # of what is free
Progress = Callable[[int, int], None]


class CachedReader:
    """Frames of numbered ids, gathered from arrays that the system maps into memory."""

    def __init__(self, folder: Path, framing: Framing, rows: np.ndarray, shapes: np.ndarray):
        self.folder, self.framing, self.rows, self.shapes = folder, framing, rows, shapes
        self._arrays: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked maps the files itself instead of being sent their content.
        return {**self.__dict__, "_arrays": None}

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Photographs (rows, H, W, 3) and ids (rows, H, W), uint8, read only."""
        if self._arrays is None:
            count = int(self.rows.max()) + 1
            self._arrays = tuple(np.memmap(file, np.uint8, "r", shape=(count, *shape))
                                 for file, shape in _files(self.folder, self.framing))  # fmt: skip
        return self._arrays

    def __call__(self, items: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """As `FrameReader`: photographs (B, 3, H, W), laid out channels last, ids (B, H, W), both uint8, and shapes."""
        rows = self.rows[items]
        images, masks = (np.take(array, rows, axis=0) for array in self.arrays)
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks), self.shapes[items]


class DeviceReader:
    """The same from tensors on the device, so that a batch never leaves it."""

    def __init__(self, reader: CachedReader, device: torch.device):
        self.framing, self.shapes = reader.framing, reader.shapes
        self.images, self.masks = (
            torch.from_numpy(np.take(array, reader.rows, axis=0)).to(device) for array in reader.arrays
        )

    def __len__(self) -> int:
        return len(self.shapes)

    def __call__(self, items: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """As `CachedReader`, on the device."""
        rows = torch.tensor(items, device=self.images.device)
        images, masks = self.images.index_select(0, rows), self.masks.index_select(0, rows)
        return images.permute(0, 3, 1, 2), masks, self.shapes[items]


def cached_reader(reader: FrameReader, progress: Progress | None = None) -> CachedReader:
    """What `reader` reads, from the cache; frames that are not there, or whose files have changed, are made first.

    A store belongs to the dataset's folders, the frame and the tree's size; in it a frame belongs to an id and to size
    and time of its two files. Rows are only ever added, and the index that names them is replaced last: parallel runs
    read on undisturbed, and what a killed one leaves behind is written over. Raises `InputError` where the disk has no
    room, and for files that cannot be read.
    """
    folder = _folder(reader.files, reader.framing, reader.leaves)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"data.cache: cannot make {folder}: {error.strerror}; set FASTSEG_CACHE") from None
    stamps = {name: _stamp(reader.files, name) for name in dict.fromkeys(reader.names)}
    with _locked(folder):
        index = _read_index(folder, reader.framing)
        missing = [name for name, stamp in stamps.items() if index.get(name, {}).get("stamp") != stamp]
        if missing:
            _check_room(folder, len(missing), reader.framing)
            _build(folder, reader, missing, stamps, index, progress)
    entries = [index[name] for name in reader.names]
    rows, shapes = (np.array([entry[key] for entry in entries]) for key in ("row", "shape"))
    return CachedReader(folder, reader.framing, rows, shapes)


def on_device(readers: Sequence[CachedReader], device: torch.device) -> list[CachedReader] | list[DeviceReader]:
    """The readers with their frames on the device, where they fit in a part of its free memory; else as they are.

    On a CPU they stay as they are too: mapped files are in its memory already.
    """
    if device.type == "cpu":
        return list(readers)
    need = sum(len(reader) * _bytes(reader.framing) for reader in readers)
    free = free_memory(device)
    if need > free * MEMORY_SHARE:
        print(f"data.cache: device: {need / 1e9:.1f} GB are more than {MEMORY_SHARE:.0%} of the {free / 1e9:.1f} GB "
              f"free on {device}; reading from the disk's cache instead", file=sys.stderr)  # fmt: skip
        return list(readers)
    return [DeviceReader(reader, device) for reader in readers]


def clear_cache() -> tuple[int, int]:
    """Remove all cached frames; returns how many datasets they were of, and the bytes freed."""
    stores = [folder for folder in _home().glob("*") if folder.is_dir()]
    freed = 0
    for folder in stores:
        freed += sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
        with _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
        _lock_file(folder).unlink(missing_ok=True)
    return len(stores), freed


def _home() -> Path:
    return cache_folder() / "frames"


def _folder(files: Files | JoinedFiles, framing: Framing, leaves: int) -> Path:
    places = [[prefix, str(part.root.resolve()), part.images, part.masks] for prefix, part in files.parts.items()]
    about = json.dumps([FORMAT, places, framing.size, framing.pad, leaves])
    name = "+".join(part.root.resolve().name for part in files.parts.values())[:40]
    return _home() / f"{name}-{framing.size[0]}x{framing.size[1]}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def _files(folder: Path, framing: Framing) -> list[tuple[Path, tuple[int, ...]]]:
    return [(folder / "images.bin", (*framing.size, 3)), (folder / "masks.bin", tuple(framing.size))]


def _bytes(framing: Framing) -> int:
    return framing.size[0] * framing.size[1] * 4


def _stamp(files: Files | JoinedFiles, name: str) -> list[Any]:
    found = [(path, path.stat()) for path in (files.image(name), files.mask(name))]
    return [value for path, stat in found for value in (path.suffix, stat.st_size, stat.st_mtime_ns)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # Beside the store, so that the store itself can be removed while the lock is held.
    lock = FileLock(_lock_file(folder))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"data.cache: another run is at work on {folder}; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lock"


def _read_index(folder: Path, framing: Framing) -> dict[str, Any]:
    """Name → row, stamp, shape; nothing where the index is broken or the arrays are shorter than it says."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        rows = max((entry["row"] for entry in index.values()), default=-1) + 1
        whole = all(file.stat().st_size >= rows * np.prod(shape) for file, shape in _files(folder, framing))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return index if whole else {}


def _check_room(folder: Path, count: int, framing: Framing) -> None:
    need, free = count * _bytes(framing), shutil.disk_usage(folder).free
    if need > free * DISK_SHARE:
        raise InputError(
            f"data.cache: {count} photographs need {need / 1e6:,.2f} MB under {folder}, and {free / 1e6:,.2f} MB are "
            "free there; set FASTSEG_CACHE to a folder on a larger disk, a smaller data.size, or data.cache=false"
        )


class _Chunks(Dataset):
    """Some photographs at a time, written to their rows by the worker that read them; an item is their shapes."""

    def __init__(self, reader: FrameReader, folder: Path, start: int):
        self.reader, self.folder, self.start = reader, folder, start

    def __len__(self) -> int:
        return -(-len(self.reader) // CHUNK)

    def __getitem__(self, i: int) -> np.ndarray:
        items = range(i * CHUNK, min((i + 1) * CHUNK, len(self.reader)))
        images, masks, shapes = self.reader(items)
        content = (images.permute(0, 2, 3, 1).contiguous().numpy(), masks.numpy())
        for (file, shape), values in zip(_files(self.folder, self.reader.framing), content, strict=True):
            with file.open("r+b") as opened:
                opened.seek((self.start + items[0]) * int(np.prod(shape)))
                opened.write(memoryview(values).cast("B"))
        return shapes


def _build(folder: Path, reader: FrameReader, missing: list[str], stamps: dict[str, Any], index: dict[str, Any],
           progress: Progress | None) -> None:  # fmt: skip
    """Add rows for the missing names behind those that the index knows."""
    start = max((entry["row"] for entry in index.values()), default=-1) + 1
    for file, _ in _files(folder, reader.framing):
        file.touch()
    chunks = _Chunks(FrameReader(reader.files, missing, reader.leaves, reader.framing), folder, start)
    workers = cores() if len(chunks) > 2 * cores() > 2 else 0
    done = 0
    for shapes in DataLoader(chunks, batch_size=None, num_workers=workers):
        for shape in np.asarray(shapes).tolist():
            index[missing[done]] = {"row": start + done, "stamp": stamps[missing[done]], "shape": shape}
            done += 1
        if progress:
            progress(done, len(missing))
        if done % KEEP_EVERY < CHUNK or done == len(missing):
            write(folder / "index.json", json.dumps(index).encode())

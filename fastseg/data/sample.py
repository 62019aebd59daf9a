"""The embedded default: people drawn in exactly the Pascal-part layout, image k a function of (seed, k) alone."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.drawing.shots import shoot
from fastseg.data.machine import cores
from fastseg.errors import InputError

# Names the cached copies: raise it whenever a drawing changes.
DRAWING_VERSION = 4
CLASSES = ("bg", "low_hand", "torso", "low_leg", "head", "up_leg", "up_hand")
SMALLEST = 16
CHUNK = 8  # images a task: fewer than a worker's second of work, so that progress is smooth

Progress = Callable[[int, int], None]


def draw_sample(
    root: str | Path,
    train: int = 576,
    valid: int = 96,
    size: tuple[int, int] = (375, 500),
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Draw a sample of `train` + `valid` photographs with masks into the folder `root`, and return its path.

    `size` is (height, width) of most photographs; others lie on their side or are a little smaller. The same bytes come
    out for any number of `workers` (None: one a processor). `progress(done, total)` is called as it goes.
    `root` appears only when it is complete. Raises InputError where `root` exists and is not empty, or a number is
    impossible.
    """
    root = Path(root).expanduser()
    _check(train, valid, size, seed)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"cannot draw a sample into {root}: it exists and is not an empty folder; name a new one")
    folder = _draw_beside(root, train, valid, size, seed, workers, progress)
    try:
        if root.exists():
            root.rmdir()
        folder.rename(root)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"cannot draw a sample into {root}: {error.strerror}; name a new folder") from error
    return root


def embedded_sample(train: int, valid: int, size: tuple[int, int], seed: int, progress: Progress | None = None) -> Path:
    """The same sample in the user's cache folder, drawn when first asked for and only read afterwards.

    The cache is $FASTSEG_CACHE, else $XDG_CACHE_HOME/fastseg, else ~/.cache/fastseg. Processes that draw the same
    sample at once all return the copy of the first to finish. Raises InputError as `draw_sample` does.
    """
    _check(train, valid, size, seed)
    root = cache_folder() / f"sample-v{DRAWING_VERSION}-{train}+{valid}-{size[0]}x{size[1]}-seed{seed}"
    if root.is_dir():
        return root
    folder = _draw_beside(root, train, valid, size, seed, None, progress)
    try:
        folder.rename(root)
    except OSError as error:
        # Renaming on to a folder that is not empty fails, so the first to finish wins.
        shutil.rmtree(folder, ignore_errors=True)
        if not root.is_dir():
            raise InputError(f"cannot keep the sample in {root}: {error.strerror}; set FASTSEG_CACHE") from error
    return root


def cache_folder() -> Path:
    """Where things made once for this user are kept."""
    if own := os.environ.get("FASTSEG_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fastseg"


def _check(train, valid, size, seed):
    if train < 0 or valid < 0 or train + valid == 0:
        raise InputError(f"cannot draw {train} training and {valid} validation images: give counts from 0, not both 0")
    if len(size) != 2 or min(size) < SMALLEST:
        raise InputError(f"cannot draw images of size {size}: give height x width from {SMALLEST}x{SMALLEST} pixels")
    if seed < 0:
        raise InputError(f"cannot draw with seed {seed}: give a seed from 0")


def _draw_beside(root: Path, train, valid, size, seed, workers, progress) -> Path:
    """Draw into a new folder next to `root`, on the same disk, so that one rename puts it in its place."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise InputError(f"cannot write a sample to {root.parent}: {error.strerror}; name another folder") from error
    try:
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes folders that nobody else can read
        (folder / "JPEGImages").mkdir()
        (folder / "gt_masks").mkdir()
        draw = partial(_draw_chunk, folder=folder, size=tuple(size), seed=seed)
        _run(draw, train + valid, workers, progress)
        names = [_name(index) + "\n" for index in range(train + valid)]
        (folder / "train_id.txt").write_text("".join(names[:train]))
        (folder / "val_id.txt").write_text("".join(names[train:]))
        (folder / "classes.txt").write_text("".join(f"{k}: {name}\n" for k, name in enumerate(CLASSES)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _run(draw: Callable[[range], int], total: int, workers: int | None, progress: Progress | None) -> None:
    chunks = [range(first, min(first + CHUNK, total)) for first in range(0, total, CHUNK)]
    workers = min(cores() if workers is None else workers, len(chunks))
    done = 0

    def tell(count):
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    if workers <= 1 or multiprocessing.current_process().daemon:
        for chunk in chunks:
            tell(draw(chunk))
        return
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(draw, chunk) for chunk in chunks]
        try:
            for task in as_completed(tasks):
                tell(task.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw_chunk(indices: range, folder: Path, size: tuple[int, int], seed: int) -> int:
    for index in indices:
        rgb, ids = shoot(seed, index, size)
        # The quality is counted off the index: like all else a function of (seed, index), and no generator is needed.
        quality = 78 + (index * 7 + seed) % 18
        Image.fromarray(rgb).save(folder / "JPEGImages" / f"{_name(index)}.jpg", quality=quality)
        np.save(folder / "gt_masks" / f"{_name(index)}.npy", ids)
    return len(indices)


def _name(index: int) -> str:
    return f"sample_{index:06d}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

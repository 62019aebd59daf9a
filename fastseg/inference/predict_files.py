"""Folders of photographs → files of masks, overlays, cut-outs and areas; what is there already is not made again."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastseg.data.pictures import open_image
from fastseg.errors import InputError
from fastseg.inference.found import Found, find_photographs
from fastseg.inference.outputs import KINDS, Outputs
from fastseg.inference.predict import Prediction, Predictor, Prepared

Item = TypeVar("Item")
THREADS = 2  # that read, and as many that write, beside the network
# Pixels of photographs that wait for the network at one time, and of those that wait to be written; 3 bytes each.
WAITING = 16_000_000


@dataclass
class Summary:
    """How many photographs were made now, how many were there already, and (path, reason) of unreadable ones."""

    out: Path
    made: int = 0
    there: int = 0
    bad: list[tuple[Path, str]] = field(default_factory=list)


def predict_files(
    predictor: Predictor,
    photographs: Sequence[str | Path],
    out: str | Path,
    save: Sequence[str] = ("ids", "overlay"),
    level: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write what a predictor makes of photographs, of folders of them (with those inside) or of glob patterns.

    `save` lists what: `ids/NAME.png` (8-bit palette pictures whose values are the level's node ids), `overlay/NAME.jpg`
    with a legend, `cutout/NAME/CLASS.png` (transparent outside the class), `json/NAME.json`; `areas.csv` with the
    pixels of each class is always there. Photographs of one name get different ones. What an earlier call made of the
    same photograph in the same way stays. A file that cannot be read is told on stderr and left out. Raises
    `InputError` where nothing is found or `out` cannot be written to.
    """
    if strange := [kind for kind in save if kind not in KINDS]:
        raise InputError(f"save: {strange[0]!r} is none of {', '.join(KINDS)}")
    folder = Path(out).expanduser()
    found = find_photographs(photographs, folder)
    try:
        outputs = Outputs.open(folder, predictor, level, tuple(kind for kind in KINDS if kind in save))
        todo = outputs.missing(found)
        summary = Summary(folder, there=len(found) - len(todo))
        for _ in _made(predictor, todo, outputs, summary):
            if progress:
                progress(summary.made + len(summary.bad), len(todo))
        if progress and summary.bad:
            progress(len(todo), len(todo))
        outputs.write_areas()
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from None
    return summary


def _made(predictor: Predictor, todo: Sequence[Found], outputs: Outputs, summary: Summary) -> Iterator[None]:
    """Threads read ahead and write behind while the network works; comes back whenever something is written."""

    def read(one: Found) -> Prepared | InputError:
        try:
            return predictor.prepare(one.path)
        except InputError as error:
            return error

    def write(look: tuple[Found, Prepared, Prediction]) -> None:
        outputs.write(look[0], look[1].photograph, look[2])

    most = 2 * predictor.batch_size
    readers, writers = ThreadPoolExecutor(THREADS), ThreadPoolExecutor(THREADS)
    try:
        prepared = ahead(readers, read, todo, _pixels, most)
        looks = _looks(predictor, prepared, summary)
        for _, future in ahead(writers, write, looks, lambda look: look[1].pixels, most):
            future.result()
            summary.made += 1
            yield
    finally:
        for pool in (readers, writers):
            pool.shutdown(cancel_futures=True)


def _looks(predictor: Predictor, prepared: Iterable[tuple[Found, Future[Prepared | InputError]]],
           summary: Summary) -> Iterator[tuple[Found, Prepared, Prediction]]:  # fmt: skip
    """Photographs that could be read, through the network in batches."""
    batch: list[tuple[Found, Prepared]] = []

    def looked() -> Iterator[tuple[Found, Prepared, Prediction]]:
        predictions = predictor.look([one for _, one in batch])
        for (found, one), prediction in zip(batch, predictions, strict=True):
            yield found, one, prediction
        batch.clear()

    for found, future in prepared:
        one = future.result()
        if isinstance(one, InputError):
            print(f"left out: {one}", file=sys.stderr)
            summary.bad.append((found.path, str(one)))
            continue
        batch.append((found, one))
        if len(batch) == predictor.batch_size or sum(one.pixels for _, one in batch) > WAITING:
            yield from looked()
    if batch:
        yield from looked()


def ahead(pool: ThreadPoolExecutor, function: Callable[[Item], Any], items: Iterable[Item],
          weigh: Callable[[Item], int], most: int) -> Iterator[tuple[Item, Future[Any]]]:  # fmt: skip
    """Items in order, each with the future of its result; at most `most` items, or WAITING pixels of them, wait."""
    queue: deque[tuple[Item, int, Future[Any]]] = deque()
    held = 0
    for item in items:
        weight = weigh(item)
        queue.append((item, weight, pool.submit(function, item)))
        held += weight
        while len(queue) > most or (held > WAITING and len(queue) > 1):
            first, weight, future = queue.popleft()
            held -= weight
            yield first, future
    for first, _, future in queue:
        yield first, future


def _pixels(one: Found) -> int:
    try:
        with open_image(one.path) as image:
            return image.width * image.height
    except InputError:
        return 0  # reading it will say why

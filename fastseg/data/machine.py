"""What the machine offers to work on files."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 8
UNKNOWN_MEMORY = 4 << 30  # taken to be free where the system does not say (Windows)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reading_workers(cached: bool = False) -> int:
    """How many worker processes should read photographs.

    None for a cache, whose batches take less time than handing them over; none where workers must be started anew
    rather than forked (macOS, Windows), as fastai does so every epoch and each takes seconds to import, while a
    photograph is read in two milliseconds; else one a core, eight at most, which feed 4,000 photographs a second.
    """
    start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if cached or start != "fork":
        return 0
    return min(cores(), MOST_WORKERS)


def map_in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int | None = None, chunk: int = 8
) -> Iterator[Any]:
    """`map` over processes, in order; in this one where it may have no children.

    `workers` None: one process a core, eight at most, and none for little work. `function` must be picklable.
    """
    if workers is None:
        # A process takes longer to start than two chunks of files to work on.
        workers = min(cores(), MOST_WORKERS, len(items) // (2 * chunk))
    if workers < 2 or multiprocessing.current_process().daemon:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        yield from pool.map(function, items, chunksize=chunk)


def _end_with_parent() -> None:
    # Workers of a killed process would wait for work for ever, and hold its terminal or pipe open.
    parent = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; of the main memory for the CPU and for devices that share it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = getattr(os, "sysconf_names", {})
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):
        if name in known:
            return int(os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") * share)
    return UNKNOWN_MEMORY

"""What the machine offers to work on files."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

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

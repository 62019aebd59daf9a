"""How far long work on files is, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def progress_line(what: str) -> Callable[[int, int], None]:
    """A function of (done, total) that keeps one line up to date on a terminal, and elsewhere prints the last alone."""
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        spent = time.monotonic() - started
        if done >= total:
            print(f"\r{what}: {total} in {spent:.0f} s".ljust(50), file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            left = spent / max(done, 1) * (total - done)
            print(f"\r{what}: {done} of {total}, {left:.0f} s left".ljust(50), end="", file=sys.stderr, flush=True)

    return show

"""A job in a process of its own, from the side of the search: started, listened to, and ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fastseg.settings import Settings

STOPPING = 120.0  # seconds for a process to write its checkpoint
Answer = Callable[[int, float], bool]


class JobFailed(Exception):
    """A job did not succeed; the message says why, in a line."""


class JobPruned(Exception):
    """A training was ended because its answer was no; `facts` are what it told so far."""

    def __init__(self, facts: dict[str, Any]):
        super().__init__()
        self.facts = facts


@cache
def _context() -> BaseContext:
    """Processes forked from one that has loaded what training needs; without fork (Windows), each loads it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fastseg.experiments.searching.preload"])
    return context


def run_job(job: str, cfg: Settings, run: Path | None = None, answer: Answer | None = None, **options: Any) -> Any:
    """Do a job of `child.serve` and return its result.

    `answer` is asked after each epoch of a training, with the epoch and its score, whether it goes on. `options` are
    metric, memory and group. Raises `JobFailed`, also where the process was killed, and `JobPruned`; on
    KeyboardInterrupt the process writes its checkpoint before it ends, at the second at once.
    """
    context = _context()
    here, there = context.Pipe()
    options |= {"environment": {**os.environ, "MPLBACKEND": "Agg"}, "silent": job != "prepare"}
    values = cfg.model_dump(mode="json")
    process = context.Process(target=_serve, args=(there, job, values, run and str(run), options))
    process.start()
    there.close()
    try:
        return _listen(here, process, answer)
    except KeyboardInterrupt:
        process.terminate()
        process.join(STOPPING)
        raise
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        here.close()


def _serve(*args: Any) -> None:
    # Here, so that the search itself does not load what training needs.
    from fastseg.experiments.searching.child import serve

    serve(*args)


def _listen(here: Any, process: BaseProcess, answer: Answer | None) -> Any:
    while True:
        wait([here, process.sentinel])
        try:
            said = here.recv() if here.poll() else None
        except (EOFError, OSError):
            said = None
        if said is None:
            process.join()
            raise JobFailed(ending(process.exitcode))
        kind, *content = said
        if kind == "epoch":
            goes_on = answer is None or answer(*content)
            # A process that was killed meanwhile is noticed by its end.
            with contextlib.suppress(OSError):
                here.send(goes_on)
        elif kind == "done":
            process.join()
            return content[0]
        elif kind == "pruned":
            raise JobPruned(content[0])
        elif kind == "stopped":
            raise JobFailed("its process was told to stop")
        else:
            raise JobFailed(content[0])


def ending(status: int | None) -> str:
    """How a process ended that has sent no result."""
    if status is None or status >= 0:
        return f"its process ended with status {status}, and no word why"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    why = ", as the system does where memory runs out" if -status == signal.SIGKILL else ""
    return f"its process was killed ({name}){why}"

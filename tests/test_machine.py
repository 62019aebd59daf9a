import multiprocessing
import os

import pytest
import torch

from fastseg.data import machine
from fastseg.data.machine import cores, free_memory, reading_workers


@pytest.mark.parametrize(
    ("start", "processors", "cached", "expected"),
    [("fork", 2, False, 2), ("fork", 64, False, 8), ("fork", 2, True, 0), ("spawn", 8, False, 0),
     ("forkserver", 8, False, 0), ("fork", 1, False, 1)],
)  # fmt: skip
def test_workers_suit_the_machine_and_the_cache(monkeypatch, start, processors, cached, expected):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none=False: start)
    monkeypatch.setattr(machine, "cores", lambda: processors)
    assert reading_workers(cached) == expected


def test_asking_does_not_decide_how_processes_start():
    from subprocess import run
    from sys import executable

    code = (
        "import multiprocessing as m; from fastseg.data.machine import reading_workers; reading_workers();"
        "m.set_start_method('spawn'); assert reading_workers() == 0"
    )
    run([executable, "-c", code], check=True)


def test_cores_and_memory_are_those_of_this_process(monkeypatch):
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert free_memory(torch.device("cpu")) > 1 << 20
    monkeypatch.setattr(os, "sysconf_names", {}, raising=False)
    assert free_memory(torch.device("cpu")) == machine.UNKNOWN_MEMORY

"""What `evaluate` costs; `pytest tests/benchmarks -m slow -s` prints it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from timing import paired, processor_seconds

from fastseg.config import load_config
from fastseg.inference.evaluate import Trial, evaluate
from fastseg.inference.passes import photograph_batches

pytestmark = pytest.mark.slow
DRAWN, ALL, TIMED = 60, 500, 80
MEMORY = 2 * 10**9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of FPN-lite0 at 256x256 with its own 500 photographs of 500x375: sixty drawn ones, under many names."""
    from fastseg.data.sample import draw_sample
    from fastseg.experiments.train import save_run
    from fastseg.learning.learner import seg_learner

    folder = tmp_path_factory.mktemp("speed")
    root = draw_sample(folder / "drawn", 8, DRAWN, (375, 500), seed=0)
    names = (root / "val_id.txt").read_text().split()
    for i in range(DRAWN, ALL):
        for kind, suffix in (("JPEGImages", "jpg"), ("gt_masks", "npy")):
            (root / kind / f"copy{i}.{suffix}").symlink_to(root / kind / f"{names[i % DRAWN]}.{suffix}")
    (root / "val_id.txt").write_text("\n".join([*names, *(f"copy{i}" for i in range(DRAWN, ALL))]) + "\n")
    cfg = load_config({"data": {"root": str(root), "size": 256, "limit_valid": 1}, "train": {"batch_size": 8},
                       "model": {"weights": "none"}})  # fmt: skip
    return save_run(seg_learner(cfg), folder / "run")


def memory_of(process):
    """Bytes that a process and its descendants hold together, what they share counted once."""
    children, held = {}, 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except OSError:
            continue
    todo = [process]
    while todo:
        one = todo.pop()
        todo += children.get(one, [])
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            held += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return held


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="the system does not tell memory")
def test_five_hundred_photographs_stay_under_two_gigabytes(run):
    command = [sys.executable, "-m", "fastseg.cli", "evaluate", str(run), "--data.limit_valid", str(ALL)]
    most, started = 0, time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        while process.poll() is None:
            most = max(most, memory_of(process.pid))
            time.sleep(0.3)
        table = process.stdout.read()
    print(f"\n{ALL} photographs: {time.perf_counter() - started:.0f} s, at most {most / 1e9:.2f} GB in all (2)")
    assert table.startswith(f"{ALL} photographs")
    assert most < MEMORY


@pytest.mark.parametrize("workers", [0, 2])
def test_scoring_beside_reading_and_the_network(run, workers):
    """Whole evaluations, with intervals, without pictures, by loops that read and predict the same and throw it away.

    Both load the network and look at the headers; what is counted, drawn by bootstrap and summed is on top. Compared
    by processor time, as on a machine that does other work the clock says more about that.
    """
    limits = [f"data.limit_valid={TIMED}", f"data.workers={workers}"]

    @torch.inference_mode()
    def bare():
        trial = Trial.of(run, overrides=limits)
        for batch in photograph_batches(trial.files, trial.names, trial.plan, trial.stats, trial.cfg):
            trial.model(batch.images[0])

    ratio = paired(lambda: evaluate(run, overrides=limits, write=False), bare, 5,
                   processor_seconds)  # fmt: skip
    print(f"\nevaluate / reading and network, {workers} workers: {ratio:.3f} of processor time (at most 1.1)")
    assert ratio <= 1.1

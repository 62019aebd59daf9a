"""Runs that are cut off and gone on with, in this process and by SIGKILL."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback

from fastseg.cli import main
from fastseg.config import dump_config, load_config
from fastseg.experiments import train as module
from fastseg.experiments.train import train
from fastseg.inference.evaluate import evaluate
from fastseg.learning.snapshots import newest_snapshot

# Everything that a run can be made of; 24 photographs in batches of 4.
RICH = ("train.epochs=2", "train.frozen_epochs=1", "train.ema=0.9", "train.accumulate=2", "train.save_minutes=1e-6",
        "augment.preset=strong", "data.resize=crop", "train.lr=3e-3")  # fmt: skip


class At(Callback):
    """Does something before a step, counted over all epochs."""

    order = 2000

    def __init__(self, step, what):
        self.step, self.what = step, what

    def before_batch(self):
        if self.training and self.learn.counted_randomness.steps == self.step:
            self.what()


def power_cut():
    raise OSError("the power is gone")


@pytest.fixture
def stopped(monkeypatch):
    """Makes a run of a configuration in which something happens before a step; its folder."""

    def make(cfg, step, what=power_cut, ends=OSError, **kwargs):
        with monkeypatch.context() as patch:
            own = module.watchers
            patch.setattr(module, "watchers", lambda *given: [*own(*given), At(step, what)])
            with pytest.raises(ends):
                train(cfg, **kwargs)
        return max(Path(cfg.out).glob("*/config.yaml"), key=lambda path: path.stat().st_mtime_ns).parent

    return make


def rich(root, out, *overrides):
    """Settings with all that a run can be made of, on a network of 0.9 million weights."""
    base = {"name": "rich", "out": str(out), "data": {"root": str(root), "size": "32x64", "workers": 0},
            "model": {"arch": "Linknet", "encoder": "timm-mobilenetv3_small_minimal_100", "weights": "none"},
            "train": {"batch_size": 4}}  # fmt: skip
    return load_config(base, *RICH, *overrides)


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """An uninterrupted run, read by two processes."""
    return train(rich(people, tmp_path_factory.mktemp("whole"), "data.workers=2"))


def assert_same(run, other):
    """Weights, best and last with their average, and the history, to the bit."""
    assert (run / "history.csv").read_text() == (other / "history.csv").read_text()
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (run / "metrics.json").read_text() == (other / "metrics.json").read_text()
    one, two = (newest_snapshot(folder / "last").state for folder in (run, other))
    for kind in ("model", "optimizer"):
        assert equal(one[kind], two[kind]), kind
    assert equal(one["callbacks"]["weight_average"], two["callbacks"]["weight_average"])


def equal(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


# Gradients in flight; between the stages; in the middle of the last epoch.
@pytest.mark.parametrize("step", [3, 6, 15])
def test_a_run_cut_anywhere_ends_as_if_it_had_not_been(whole, people, tmp_path, stopped, step, capsys):
    run = stopped(rich(people, tmp_path), step)
    assert "once that is mended, with: fastseg train --resume" in capsys.readouterr().err
    (run / f"{step}.part99").write_text("half a file")
    # Where files lie and who reads them may change.
    moved = shutil.copytree(people, tmp_path / "moved")
    workers = 2 if step == 15 else 0
    again = load_config(
        run / "config.yaml", f"data.root={moved}", f"data.workers={workers}", "train.save_minutes=null"
    )
    assert train(again, resume=run) == run
    at = f", after batch {step % 6}" if step % 6 else ""
    assert f"going on from epoch {step // 6 + 1}{at} →" in capsys.readouterr().err
    assert not list(run.rglob("*.part*"))
    assert len(list((run / "last").iterdir())) == 2
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text((whole / "metrics.json").read_text())
    assert_same(run, whole)
    assert metrics["data"] == [str(moved)]
    log = (run / "log.txt").read_text()
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*  training on", log, re.M)) == 2
    assert "ended by OSError" in log
    assert "the power is gone" in log
    assert len(re.findall("  epoch [123]/3  ", log)) == 3


def test_a_finished_run_says_so_and_is_left_alone(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train(resume=whole) == whole
    assert main(["train", "--resume", str(whole)]) == 0
    assert capsys.readouterr().err.count("finished already, nothing to go on with") == 2
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_before_its_first_checkpoint_a_run_begins_anew(whole, people, tmp_path, stopped, capsys):
    run = stopped(rich(people, tmp_path, "train.save_minutes=null"), 4)
    assert not list(run.glob("last/*"))
    train(resume=run)
    assert "going on no checkpoint yet, from the beginning" in capsys.readouterr().err
    assert_same(run, whole)


def test_of_a_damaged_checkpoint_the_one_before_is_used(whole, people, tmp_path, stopped, capsys):
    run = stopped(rich(people, tmp_path), 15)
    *_, newest = sorted((run / "last").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(resume=run)
    printed = capsys.readouterr().err
    assert "after batch 2" in printed
    assert f"{newest}: damaged (" in printed
    assert "going on from the one before" in printed
    assert_same(run, whole)


def test_one_that_was_cut_while_its_folder_was_written_is_not_taken_for_finished(whole, people, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_examples", lambda *given: power_cut())
        with pytest.raises(OSError, match="power"):
            train(rich(people, tmp_path))
    (run,) = tmp_path.iterdir()
    assert not (run / "metrics.json").exists()
    train(resume=run)
    assert (run / "report.html").is_file()
    assert_same(run, whole)


def test_ctrl_c_leaves_a_whole_run_that_can_be_gone_on_with(whole, people, tmp_path, stopped, capsys):
    before = signal.getsignal(signal.SIGINT)
    run = stopped(rich(people, tmp_path), 9, lambda: os.kill(os.getpid(), signal.SIGINT), KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) == before
    assert f"go on with: fastseg train --resume {run}" in capsys.readouterr().err
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["interrupted"], metrics["epoch"]) == (True, 1)
    assert (run / "curves.png").is_file()
    assert (run / "results.png").is_file()
    scores = evaluate(run, write=False)
    assert {key: metrics[key] for key in scores} == scores
    train(resume=run)
    assert "from epoch 2, after batch 4 →" in capsys.readouterr().err
    assert_same(run, whole)


def test_sigterm_does_so_too(people, tmp_path, stopped):
    run = stopped(rich(people, tmp_path), 7, lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit)
    assert json.loads((run / "metrics.json").read_text())["interrupted"]


def test_an_interruption_at_once_also_leaves_what_there_is(people, tmp_path, stopped, capsys):
    def interrupt():
        raise KeyboardInterrupt

    run = stopped(rich(people, tmp_path, "train.keep=last"), 1, interrupt, KeyboardInterrupt)
    assert "no weights to keep yet" in capsys.readouterr().err
    assert not (run / "metrics.json").exists()
    run = stopped(rich(people, tmp_path, "train.keep=last"), 7, interrupt, KeyboardInterrupt)
    assert json.loads((run / "metrics.json").read_text())["interrupted"]


@pytest.mark.parametrize("change", ["train.lr=1", "train.epochs=9", "data.limit=8", "loss=iou", "out=elsewhere"])
def test_what_the_run_depends_on_cannot_be_changed(whole, change, capsys):
    (whole / "metrics.json").rename(whole / "kept")
    try:
        assert main(["train", "--resume", str(whole), change]) == 2
    finally:
        (whole / "kept").rename(whole / "metrics.json")
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert f"{change.partition('=')[0]}: {whole} was begun with" in printed


def test_what_is_no_run_cannot_be_gone_on_with(whole, tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "it has no config.yaml" in capsys.readouterr().err
    assert main(["train", "--resume", str(whole), "--config", "sample"]) == 2
    assert "leave --config out" in capsys.readouterr().err
    assert main(["train", "--resume", str(whole), "--print-config"]) == 0
    assert load_config(whole / "config.yaml").name in capsys.readouterr().out


def test_a_rate_that_was_looked_for_is_not_looked_for_again(people, tmp_path, stopped, monkeypatch, capsys):
    monkeypatch.setattr("fastseg.experiments.prepare.peak_rate", lambda cfg, dls: slice(2e-4, 2e-3))
    run = stopped(rich(people, tmp_path, "train.lr=auto", "train.encoder_lr=0.1"), 3)
    assert newest_snapshot(run / "last").state["notes"] == {"rate": [2e-4, 2e-3]}
    assert "asking lr_find" in capsys.readouterr().err
    stopped(load_config(run / "config.yaml"), 9, ends=OSError, resume=run)
    assert "lr_find" not in capsys.readouterr().err


def test_a_tracker_has_each_step_once(people, tmp_path, stopped):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = stopped(rich(people, tmp_path, "track=tensorboard", "train.save_minutes=null"), 9)
    train(resume=run)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("batch_loss")] == list(range(1, 19))
    assert [scalar.step for scalar in events.Scalars("miou2")] == [6, 12, 18]


@pytest.mark.slow
def test_a_process_killed_at_five_random_moments_ends_as_if_it_had_not_been(people, tmp_path):
    more = ("data.workers=2", "train.epochs=6", "train.save_minutes=0.002")
    (tmp_path / "cfg.yaml").write_text(dump_config(rich(people, tmp_path / "runs", *more)))
    whole = train(rich(people, tmp_path / "whole", *more))
    chance, kills = random.Random(), 0
    words, found = ["--config", str(tmp_path / "cfg.yaml")], []
    while kills < 5:
        command = [sys.executable, "-m", "fastseg.cli", "train", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not (line := process.stderr.readline()).startswith("training on"):
                assert line, "it ended by itself"
            time.sleep(chance.uniform(0, 3))
            process.send_signal(signal.SIGKILL)
            found.append(line.strip())
        assert process.returncode == -signal.SIGKILL
        kills += 1
        (run,) = (tmp_path / "runs").iterdir()
        words = ["--resume", str(run)]
    assert train(resume=run) == run
    print(*found, sep="\n")
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_ends_cleanly_with_the_shells_status(people, tmp_path, number):
    cfg = rich(people, tmp_path / "runs", "data.workers=2", "train.epochs=9")
    (tmp_path / "cfg.yaml").write_text(dump_config(cfg))
    command = [sys.executable, "-m", "fastseg.cli", "train", "--config", str(tmp_path / "cfg.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (line := process.stderr.readline()).startswith("epoch 2"):
            assert line, "it ended by itself"
        time.sleep(0.5)
        os.killpg(process.pid, number)
        said = process.stderr.read()
    (run,) = (tmp_path / "runs").iterdir()
    assert process.returncode == 128 + number
    assert f"go on with: fastseg train --resume {run}" in said
    assert "Traceback" not in said
    assert json.loads((run / "metrics.json").read_text())["interrupted"]

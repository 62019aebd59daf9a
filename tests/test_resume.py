"""Runs that are cut off and gone on with, in this process and by SIGKILL."""

import re

import pytest
import torch
from fastai.callback.core import Callback

from fastseg.experiments import train as module
from fastseg.experiments.train import train
from fastseg.learning.snapshots import newest_snapshot

# Everything that a run can be made of; 24 photographs in batches of 4.
RICH = ("train.epochs=2", "train.frozen_epochs=1", "train.ema=0.9", "train.accumulate=2", "train.save_minutes=1e-6",
        "augment.preset=strong", "data.resize=crop", "model.args.decoder_dropout=0.5", "train.lr=3e-3")  # fmt: skip


class Cut(Callback):
    """Breaks off before a step, counted over all epochs."""

    order = 2000

    def __init__(self, step):
        self.step = step

    def before_batch(self):
        if self.training and self.learn.counted_randomness.steps == self.step:
            raise OSError("the power is gone")


@pytest.fixture
def cut_at(monkeypatch):
    """Makes a run of a configuration that is cut off before a step; its folder."""

    def make(cfg, step):
        with monkeypatch.context() as patch:
            own = module.watchers
            patch.setattr(module, "watchers", lambda *given: [*own(*given), Cut(step)])
            with pytest.raises(OSError, match="power"):
                train(cfg)
        return max((p.parent for p in module.Path(cfg.out).glob("*/config.yaml")), key=lambda p: p.stat().st_mtime_ns)

    return make


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


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """An uninterrupted run."""
    return train(rich(people, tmp_path_factory.mktemp("whole")))


def rich(people, out, *overrides):
    from fastseg.config import load_config

    base = {"name": "rich", "out": str(out), "data": {"root": str(people), "size": "32x64", "workers": 2},
            "model": {"weights": "none"}, "train": {"batch_size": 4}}  # fmt: skip
    return load_config(base, *RICH, *overrides)


@pytest.mark.parametrize("step", [3, 9, 12])
def test_a_run_cut_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(whole, people, tmp_path, cut_at, step, capfd):
    run = cut_at(rich(people, tmp_path), step)
    assert train(resume=run) == run
    assert_same(run, whole)
    assert f"going on from epoch {step // 6 + 1}" in capfd.readouterr().err
    log = (run / "log.txt").read_text()
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*  training on", log, re.M)) == 2
    assert "power is gone" in log

import csv

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback

from fastseg.learning.callbacks import EpochLines, KeepBest


def test_the_same_seed_repeats_a_run_and_workers_do_not_matter(quiet):
    def weights(*overrides):
        torch.manual_seed(np.random.randint(1000))
        learn = quiet("model.args.decoder_dropout=0.5", *overrides)
        learn.fit_one_cycle(2, 1e-3)
        return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

    first = weights()
    assert torch.equal(first, weights())
    assert torch.equal(first, weights("data.workers=2"))
    assert not torch.equal(first, weights("train.seed=1"))


def test_epochs_differ_and_a_rate_search_counts_for_nothing(quiet):
    learn = quiet()
    orders = []

    class Order(Callback):
        def before_batch(self):
            if self.training:
                orders.append(self.y.float().mean().item())

    learn.fit(2, 1e-4, cbs=Order())
    assert sorted(orders[:2]) != sorted(orders[2:])
    found = list(orders)
    orders.clear()
    other = quiet()
    other.lr_find(num_it=6, show_plot=False)
    other.fit(2, 1e-4, cbs=Order())
    assert orders == found


def test_history_survives_what_wipes_fastais_recorder(quiet, tmp_path):
    learn = quiet()
    learn.history.file = tmp_path / "history.csv"
    learn.add_cb(KeepBest(tmp_path / "best", "miou2"))
    learn.validate()
    learn.fit(1, 1e-4)
    learn.validate()
    learn.get_preds()
    assert (len(learn.history.rows), learn.keep_best.kept) == (1, 1)
    learn.fit(1, 1e-4)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert "time" not in rows[0]


@pytest.mark.parametrize(
    ("scores", "kept"), [([0.2, 0.5, 0.3], 1), ([float("nan")] * 3, 0), ([float("nan"), 0.0, 0.0], 1)]
)
def test_keep_best_over_several_fits(quiet, tmp_path, scores, kept):
    from safetensors.torch import load_file

    learn = quiet()
    best = KeepBest(tmp_path / "best.safetensors", "miou2")
    states = []

    class Fake(Callback):
        order = 60.5

        def after_epoch(self):
            self.learn.history.rows[-1]["miou2"] = scores[len(states)]
            states.append({k: v.clone() for k, v in self.model.state_dict().items()})

    learn.add_cbs([best, Fake()])
    learn.fit(2, 1e-3)
    learn.fit(1, 1e-3)
    assert best.kept == kept + 1
    saved = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(saved[k], v) for k, v in states[kept].items())
    assert [p.name for p in tmp_path.glob("best*")] == ["best.safetensors"]


def test_a_line_an_epoch_with_the_time_left(quiet):
    lines = []
    learn = quiet(cbs=[EpochLines(3, lines.append)])
    learn.fit(2, 1e-4)
    learn.validate()
    learn.fit(1, 1e-4)
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("miou2" in line and "valid_loss" in line for line in lines)
    assert [line.endswith("left") for line in lines] == [True, True, False]

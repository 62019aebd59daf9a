import copy
import math

import pytest
import torch
from fastai.callback.core import Callback

from fastseg.learning.averaging import WeightAverage


class Notes(Callback):
    """The weights after each step, and those that validation sees."""

    order = 99

    def __init__(self):
        self.trained, self.scored = [], []

    def before_fit(self):
        self.first = self._now()

    def after_step(self):
        self.trained.append(self._now())

    def after_validate(self):
        self.scored.append(self._now())

    def _now(self):
        return copy.deepcopy(self.learn.model.state_dict())


def naive(trained, decay):
    """The definition, key by key."""
    average = {key: value.double() for key, value in trained[0].items()}
    for n, state in enumerate(trained[1:], 1):
        d = min(decay, (1 + n) / (10 + n))
        average = {key: d * average[key] + (1 - d) * state[key].double() for key in average}
    return average


def close(state, expected):
    return all(
        torch.allclose(state[key].double(), expected[key], atol=1e-5) for key in expected if "num_batches" not in key
    )


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_validation_and_the_end_see_the_average_by_its_definition(quiet, decay):
    notes = Notes()
    learn = quiet(cbs=[WeightAverage(decay), notes])
    learn.fit(2, 1e-2)
    assert len(notes.trained) == 4
    assert close(notes.scored[0], naive(notes.trained[:2], decay))
    assert close(notes.scored[1], naive(notes.trained, decay))
    assert close(learn.model.state_dict(), naive(notes.trained, decay))
    assert not close(learn.model.state_dict(), naive(notes.trained[-1:], decay))


def test_a_further_fit_goes_on_with_the_trained_weights(quiet):
    runs = []
    for fits in ((2,), (1, 1)):
        notes = Notes()
        learn = quiet(cbs=[WeightAverage(0.9), notes])
        for epochs in fits:
            learn.fit(epochs, 1e-3)
        runs.append((notes, learn))
    (one, whole), (two, parts) = runs
    for first, second in zip(one.trained[:3], two.trained[:3], strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert close(parts.model.state_dict(), naive(two.trained, 0.9))
    assert close(whole.model.state_dict(), naive(one.trained, 0.9))


def test_training_itself_is_as_without_it(quiet):
    with_it, without = Notes(), Notes()
    quiet(cbs=[WeightAverage(0.9), with_it]).fit(2, 1e-3)
    quiet(cbs=[without]).fit(2, 1e-3)
    for first, second in zip(with_it.trained, without.trained, strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_search_for_the_rate_and_a_plain_validation_leave_it_alone(quiet):
    average = WeightAverage(0.9)
    learn = quiet(cbs=average)
    before = copy.deepcopy(learn.model.state_dict())
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=12, show_plot=False)
    assert average.steps == 0
    assert all(torch.equal(before[key], value) for key, value in learn.model.state_dict().items())
    learn.fit(1, 1e-3)
    kept = copy.deepcopy(learn.model.state_dict())
    learn.validate()
    assert all(torch.equal(kept[key], value) for key, value in learn.model.state_dict().items())


def test_the_trained_weights_are_scored_too_at_the_price_of_a_pass(quiet):
    learn, plain = quiet("train.ema=0.9"), quiet()
    for one in (learn, plain):
        one.fit(2, 1e-2)
    assert [row["miou2_raw"] for row in learn.history.rows] == [row["miou2"] for row in plain.history.rows]
    assert [row["miou2"] for row in learn.history.rows] != [row["miou2"] for row in plain.history.rows]
    assert "miou2_raw" not in plain.history.rows[0]
    learn.validate()
    assert math.isnan(learn.raw_score.value())


def test_trained_weights_with_an_auxiliary_head_are_scored(quiet):
    learn = quiet("train.ema=0.9", "model.auxiliary=0.1")
    learn.fit(1, 1e-2)
    assert 0 <= learn.history.rows[0]["miou2_raw"] <= 1

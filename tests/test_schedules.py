import math

import numpy as np
import pytest

from fastseg.learning.schedules import course, fit


@pytest.mark.parametrize(
    ("schedule", "at", "expected"),
    [("cosine", 0.5, 0.5), ("cosine", 0.25, (1 + math.cos(math.pi / 4)) / 2), ("poly", 0.5, 0.5**0.9),
     ("poly", 0.75, 0.25**0.9), ("constant", 0.7, 1.0)],
)  # fmt: skip
def test_descents_by_hand(schedule, at, expected):
    assert course(schedule, 1.0, 0.0)(at) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_warm_up_rises_in_a_line_for_every_group(schedule):
    peak = np.array([1e-3, 1e-2])
    rate = course(schedule, peak, 0.2)
    assert rate(0.0) == pytest.approx(peak * 0.01)
    assert rate(0.1) == pytest.approx(peak * 0.505)
    assert rate(0.2) == pytest.approx(peak, rel=1e-3)
    end = peak if schedule == "constant" else peak * 1e-3
    assert rate(1.0) == pytest.approx(end)
    values = [float(rate(t)[0]) for t in np.linspace(0.2, 1, 20)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "poly", "constant"])
def test_a_learner_follows_the_schedule(quiet, schedule):
    learn = quiet()
    fit(learn, 3, slice(1e-4, 1e-3), schedule, warmup=0.5)
    rates = learn.recorder.lrs
    assert len(rates) == 6
    assert max(rates) == pytest.approx(1e-3, rel=0.15)
    assert rates[0] < rates[2]
    assert (rates[-1] < rates[3]) == (schedule != "constant")
    assert learn.opt.hypers[0]["lr"] == pytest.approx(learn.opt.hypers[-1]["lr"] / 10)

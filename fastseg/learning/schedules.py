"""How the learning rate goes over the epochs: fastai's one cycle, or a warm-up and a cosine or polynomial descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedLin, SchedNo, combine_scheds
from fastai.learner import Learner

# Where a warm-up begins and where a descent ends, as shares of the peak.
FIRST, LAST = 0.01, 1e-3
# Chen et al., DeepLab (2017), §4.1.
POWER = 0.9


def fit(learn: Learner, epochs: int, rate: Any, schedule: str = "one_cycle", warmup: float | None = None) -> None:
    """Train for some epochs with the peak rate (a number or a slice) under a schedule.

    `one_cycle` is fastai's, momentum included; `cosine`, `poly` ((1 − t)^0.9) and `constant` keep momentum. `warmup`
    is the share of steps that a linear (`one_cycle`: cosine) rise takes; None: a quarter for `one_cycle`, else 5 %.
    """
    if schedule == "one_cycle":
        learn.fit_one_cycle(epochs, rate, pct_start=0.25 if warmup is None else warmup)
        return
    if learn.opt is None:
        learn.create_opt()
    learn.opt.set_hyper("lr", rate)
    peak = np.array([hyper["lr"] for hyper in learn.opt.hypers])
    learn.fit(epochs, cbs=ParamScheduler({"lr": course(schedule, peak, 0.05 if warmup is None else warmup)}))


def course(schedule: str, peak: Any, warmup: float) -> Callable[[float], Any]:
    """The learning rate as a function of the share of steps done, 0..1; `peak` is a number or one a parameter group."""
    descents = {
        "cosine": SchedCos(peak, peak * LAST),
        "poly": _poly(peak, peak * LAST),
        "constant": SchedNo(peak, peak),
    }
    if not warmup:
        return descents[schedule]
    return combine_scheds([warmup, 1 - warmup], [SchedLin(peak * FIRST, peak), descents[schedule]])


def _poly(start: Any, end: Any) -> Callable[[float], Any]:
    # fastai's SchedPoly is another one: it raises the time passed, not the time left, to its power.
    return lambda done: end + (start - end) * (1 - done) ** POWER

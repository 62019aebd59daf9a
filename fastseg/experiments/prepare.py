"""What a training is made of before its first step: the learner, its peak rate, and who watches it."""

from __future__ import annotations

from pathlib import Path

from fastai.callback.core import Callback
from fastai.learner import Learner
from fastcore.imports import IN_NOTEBOOK

from fastseg.errors import InputError
from fastseg.experiments.run_log import RunLog
from fastseg.learning.callbacks import EpochLines, KeepBest, print_line
from fastseg.learning.learner import peak_rate, seg_learner
from fastseg.learning.live import LiveView
from fastseg.learning.metrics import LossPart
from fastseg.learning.stopping import StopEarly, StopOnNonFinite, StopOnSignal
from fastseg.learning.trackers import trackers
from fastseg.run import WEIGHTS
from fastseg.settings import Settings


def resumable_learner(cfg: Settings, known: bool) -> Learner:
    """The learner; without pretrained weights where all weights are known, as a machine without network may go on."""
    plain = cfg.model.model_copy(update={"weights": "none"}) if known else cfg.model
    learn = seg_learner(cfg.model_copy(update={"model": plain}))
    learn.cfg = cfg
    return learn


def monitored_column(learn: Learner) -> tuple[str, bool]:
    """The column of the history that says what is best, and whether lower is better."""
    cfg = learn.cfg
    losses = ["train_loss", "valid_loss", *(m.name for m in learn.metrics if isinstance(m, LossPart))]
    columns = list(dict.fromkeys([*losses, *(m.name for m in learn.metrics)]))
    name = cfg.train.monitor or f"miou{cfg.classes().depth - 1}"
    if name not in columns:
        raise InputError(f"train.monitor: no column {name!r} in this run's history; it has {', '.join(columns)}")
    return name, name in losses


def rate_to_reach(cfg: Settings, learn: Learner) -> float | slice:
    """The peak learning rate; what lr_find says, where it is asked, is said."""
    if cfg.train.lr != "auto":
        return peak_rate(cfg, learn.dls)
    print_line("train.lr: auto; asking lr_find")
    rate = peak_rate(cfg, learn.dls)
    print_line(f"train.lr: {rate.stop if isinstance(rate, slice) else rate:.1e}")
    return rate


def watchers(cfg: Settings, run: Path, monitor: tuple[str, bool], log: RunLog) -> list[Callback]:
    """The callbacks that keep the best weights, show epochs, log them elsewhere and end a training."""
    settings = cfg.train
    chosen = [
        (settings.keep == "best", lambda: KeepBest(run / WEIGHTS, *monitor)),
        (settings.patience, lambda: StopEarly(settings.patience, *monitor)),
        (IN_NOTEBOOK, lambda: LiveView(cfg.live)),
    ]
    # In a notebook fastai's own table shows the epochs.
    lines = EpochLines(settings.frozen_epochs + settings.epochs, log.note if IN_NOTEBOOK else None)
    made = [make() for wanted, make in chosen if wanted]
    return [StopOnNonFinite(), StopOnSignal(), lines, *made, *trackers(cfg, run)]

"""Ends of a training before its last epoch: no more progress, or somebody who wants it to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException

from fastseg.learning.callbacks import better, print_line


class StopEarly(Callback):
    """Ends a fit in which a column of the history has not improved, on all epochs before, for `patience` epochs.

    Higher is better unless `lower`; NaN is no improvement.
    """

    order = 62  # after History

    def __init__(self, patience: int, monitor: str, lower: bool = False):
        self.patience, self.monitor, self.lower = patience, monitor, lower
        self.best, self.since = -math.inf, 0

    def before_fit(self) -> None:
        """Have patience anew."""
        self.since = 0

    def before_epoch(self) -> None:
        """Stop here rather than after the epoch before, so that a training which is resumed stops, too."""
        if self.since >= self.patience and not self.learn.lock.locked():
            last = self.learn.history.rows[-1]["epoch"]
            print_line(f"epoch {last}: {self.monitor} has not improved for {self.since} epochs; stopping early")
            raise CancelFitException

    def after_epoch(self) -> None:
        """Compare."""
        if not self.learn.history.added:
            return
        score = better(self.learn.history.rows[-1], self.monitor, self.lower, self.best)
        self.best, self.since = (self.best, self.since + 1) if score is None else (score, 0)

    def state_dict(self) -> dict[str, Any]:
        """The best score and the epochs since."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best, self.since = state["best"], state["since"]


class StopOnNonFinite(Callback):
    """Ends training, this fit and further ones, when a loss is infinite or NaN; `found` tells that one was."""

    order = -9

    def __init__(self):
        self.found = False

    def before_fit(self) -> None:
        """Begin nothing more."""
        if self.found:
            raise CancelFitException

    def after_batch(self) -> None:
        """Look at the loss."""
        if not torch.isfinite(self.loss).all():
            self.found = True
            raise CancelFitException


class StopOnSignal(Callback):
    """Ends training after the batch, or the validation, in which Ctrl-C or SIGTERM comes, once a checkpoint is written.

    It listens within `with stop.listening():`, in the main thread; a second signal raises KeyboardInterrupt at once.
    `asked` is the signal's number.
    """

    order = 1001  # after `Checkpoint`

    def __init__(self):
        self.asked: int | None = None
        self.told = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the place of the handlers meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: one that was not set from Python, and cannot be set again from there.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def before_fit(self) -> None:
        """Begin nothing more."""
        self._end()

    def after_batch(self) -> None:
        """Stop within an epoch's training."""
        if self.asked is None:
            return
        if self.training:
            if hasattr(self.learn, "checkpoint"):
                self.learn.checkpoint.save_within()
            self._end()
        if not self.told:
            print_line("stopping after this validation; once more stops at once")
            self.told = True

    def after_epoch(self) -> None:
        """Stop after an epoch."""
        self._end()

    def _end(self) -> None:
        if self.asked is not None:
            raise CancelFitException

    def _ask(self, number: int, frame: Any) -> None:
        # Nothing is printed here, where another line may be half-printed.
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number

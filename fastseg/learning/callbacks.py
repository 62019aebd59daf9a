"""What happens between batches and epochs: counted randomness, the history, the best weights, a line an epoch."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback

from fastseg.run import write_rows, write_weights


class CountedRandomness(Callback):
    """Makes what is random a function of counts: an epoch's order and augmentation, and dropout at each step.

    Nothing depends on a generator's history, so neither workers nor an interruption change a run.
    """

    order = -20

    def __init__(self, seed: int = 0):
        self.seed, self.epochs, self.steps = seed, 0, 0

    def before_train(self) -> None:
        """Order the epoch, and tell the loader its number, by which it draws augmentations."""
        self.learn.dls.train.rng = random.Random(f"{self.seed}-{self.epochs}")
        self.learn.dls.train.epoch = self.epochs

    def before_batch(self) -> None:
        """Seed what the network itself draws."""
        if self.training:
            torch.manual_seed(random.Random(f"{self.seed}-step-{self.steps}").getrandbits(63))

    def after_batch(self) -> None:
        """Count a step; a search for the learning rate counts for nothing."""
        if self.training and not hasattr(self.learn, "lr_finder"):
            self.steps += 1

    def after_train(self) -> None:
        """Count an epoch."""
        if not hasattr(self.learn, "lr_finder"):
            self.epochs += 1


class History(Callback):
    """Keeps a row an epoch over all fits: epoch, losses, scores, learning rate; on disk as they come, if asked.

    fastai's Recorder forgets its values whenever `validate`, `get_preds` or `show_results` is called; these, and the
    search for a learning rate, also end in `after_epoch`, which `added` tells from an epoch of training.
    """

    order = 60

    def __init__(self, file: Path | None = None):
        self.file, self.rows, self.seconds = file, [], []
        self.added = False

    def before_epoch(self) -> None:
        """Start the clock."""
        self.started, self.trained, self.added = time.monotonic(), False, False

    def after_train(self) -> None:
        """Note that this epoch trains."""
        self.trained = not hasattr(self.learn, "lr_finder")

    def after_epoch(self) -> None:
        """Add the epoch's row."""
        if not self.trained:
            return
        names = [name for name in self.recorder.metric_names if name not in ("epoch", "time")]
        # Without a validation pass the values end early.
        values = dict(zip(names, self.recorder.values[-1], strict=False))
        self.rows.append({"epoch": len(self.rows) + 1, **values, "lr": self.opt.hypers[-1]["lr"]})
        self.seconds.append(time.monotonic() - self.started)
        self.added = True
        if self.file:
            write_rows(self.file, self.rows)


class KeepBest(Callback):
    """Writes the weights whenever a score is higher than ever before in this run, over all its fits.

    NaN counts as the lowest score, so that the first epoch is always kept.
    """

    order = 61

    def __init__(self, file: Path, monitor: str):
        self.file, self.monitor, self.best, self.kept = file, monitor, -math.inf, None

    def after_epoch(self) -> None:
        """Compare and write."""
        if not self.learn.history.added:
            return
        row = self.learn.history.rows[-1]
        score = row.get(self.monitor, math.nan)
        if self.kept is None or score > self.best:
            self.best, self.kept = (-math.inf if math.isnan(score) else score), row["epoch"]
            write_weights(self.file, self.learn.model)


class EpochLines(Callback):
    """A line an epoch on stderr, with the time left, where fastai's own table would go to stdout."""

    order = 70

    def __init__(self, total: int, say: Callable[[str], Any] | None = None):
        self.total, self.done = total, 0
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))

    def before_fit(self) -> None:
        """Start the clock with the first of the fits."""
        self.started = getattr(self, "started", None) or time.monotonic()

    def after_batch(self) -> None:
        """Within an epoch, on a terminal, how far it is."""
        if self.training and sys.stderr.isatty() and (self.iter + 1) % max(1, self.n_iter // 50) == 0:
            print(f"\r  epoch {self.done + 1}: {self.iter + 1}/{self.n_iter}", end="\r", file=sys.stderr, flush=True)

    def after_epoch(self) -> None:
        """Losses and scores of the epoch."""
        if not self.learn.history.added:
            return
        self.done += 1
        row = self.learn.history.rows[-1]
        left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        scores = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key not in ("epoch", "lr"))
        tail = f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"
        self.say(f"epoch {self.done}/{self.total}  {scores}" + (f"  {tail}" if self.done < self.total else ""))

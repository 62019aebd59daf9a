"""What happens between batches and epochs: counted randomness, the history, the best weights, a line an epoch."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from safetensors.torch import load_file, save

from fastseg.run import write_weights
from fastseg.writing import write_bytes, write_rows


def print_line(text: str) -> None:
    """A line for the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


class CountedRandomness(Callback):
    """Makes what is random a function of counts: an epoch's order and augmentation, and dropout at each step.

    Nothing depends on a generator's history, so neither workers nor an interruption change a run. What another
    loader's workers draw is a function of (seed, epoch) as well, as long as there is the same number of them.
    """

    order = -20

    def __init__(self, seed: int = 0):
        self.seed, self.epochs, self.steps = seed, 0, 0

    def before_train(self) -> None:
        """Order the epoch, and tell the loader its number, by which it draws augmentations."""
        self.learn.dls.train.rng = random.Random(f"{self.seed}-{self.epochs}")
        self.learn.dls.train.epoch = self.epochs
        torch.manual_seed(random.Random(f"{self.seed}-epoch-{self.epochs}").getrandbits(63))

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

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"epochs": self.epochs, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from counts."""
        self.epochs, self.steps = state["epochs"], state["steps"]


class History(Callback):
    """Keeps a row an epoch over all fits: epoch, losses, scores, learning rate; on disk as they come, if asked.

    fastai's Recorder forgets its values whenever `validate`, `get_preds` or `show_results` is called; these, and the
    search for a learning rate, also end in `after_epoch`, which `added` tells from an epoch of training.
    """

    order = 60

    def __init__(self, file: Path | None = None):
        self.file, self.rows, self.seconds = file, [], []
        self.added, self.spent = False, 0.0

    def before_epoch(self) -> None:
        """Start the clock, at what an interrupted epoch has taken so far."""
        self.started, self.trained, self.added = time.monotonic() - self.spent, False, False
        self.spent = 0.0

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
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """The rows, and the seconds of finished epochs and of the one that is going on."""
        spent = 0.0 if self.added else time.monotonic() - self.started
        return {"rows": self.rows, "seconds": self.seconds, "spent": spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on below rows."""
        self.rows, self.seconds, self.spent = state["rows"], state["seconds"], state["spent"]
        self._write()

    def _write(self) -> None:
        if self.file and self.rows:
            try:
                write_rows(self.file, self.rows)
            except OSError as error:
                print_line(f"{self.file}: not written ({error.strerror}); training goes on")


def better(row: Mapping[str, Any], monitor: str, lower: bool, best: float) -> float | None:
    """A row's score, the higher the better, where it is above `best`, else None; NaN is the lowest of all."""
    value = row.get(monitor)
    score = -math.inf if value is None or math.isnan(value) else -value if lower else value
    return score if score > best else None


class KeepBest(Callback):
    """Writes the weights whenever a column of the history is better than ever before in this run, over all its fits.

    Higher is better unless `lower`. NaN counts as the worst, so that the first epoch is always kept.
    """

    order = 61

    def __init__(self, file: Path, monitor: str, lower: bool = False):
        self.file, self.monitor, self.lower, self.best, self.kept = file, monitor, lower, -math.inf, None

    def after_epoch(self) -> None:
        """Compare and write; on a full disk the weights before stay."""
        if not self.learn.history.added:
            return
        row = self.learn.history.rows[-1]
        score = better(row, self.monitor, self.lower, self.best)
        if score is None and self.kept is not None:
            return
        try:
            write_weights(self.file, self.learn.model)
        except OSError as error:
            print_line(f"{self.file}: not written ({error.strerror}); training goes on")
            return
        self.best, self.kept = -math.inf if score is None else score, row["epoch"]

    def state_dict(self) -> dict[str, Any]:
        """The best score, its epoch and, as the file may be a later epoch's when training goes on, its weights."""
        weights = load_file(self.file) if self.kept is not None and self.file.is_file() else None
        return {"best": self.best, "kept": self.kept, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a score, and put its weights back into their file."""
        self.best, self.kept = state["best"], state["kept"]
        if state["weights"]:
            write_bytes(self.file, save(state["weights"]))


class EpochLines(Callback):
    """A line an epoch on stderr, with the time left, where fastai's own table would go to stdout."""

    order = 70

    def __init__(self, total: int, say: Callable[[str], Any] | None = None):
        self.total, self.done = total, 0
        self.say = say or print_line

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

    def state_dict(self) -> dict[str, float]:
        """Epochs done and seconds taken."""
        return {"done": self.done, "spent": time.monotonic() - self.started}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on counting."""
        self.done, self.started = state["done"], time.monotonic() - state["spent"]

"""An exponential moving average of the weights, which validation scores and which is what a fit leaves behind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import ValueMetric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastseg.learning.metrics import LevelIoU


class WeightAverage(Callback):
    """Keeps averaged weights: after each step w ← d·w + (1 − d)·weights, d = min(decay, (1 + n)/(10 + n)) at step n.

    From each epoch's validation until the next epoch trains, and after the fit, the network holds the averaged weights
    (and BatchNorm statistics), so that scores, `KeepBest` and `save_run` see them; a further fit goes on with the
    trained ones. Source: Tan and Le, EfficientNet (2019), §5; the rising decay is TensorFlow's.
    """

    order = 40

    def __init__(self, decay: float = 0.999):
        self.decay, self.steps = decay, 0
        self.average: AveragedModel | None = None
        self.shown = False

    def before_fit(self) -> None:
        """Start with a copy of the network; in a further fit, give the trained weights back."""
        if self.average is None:
            self.average = AveragedModel(self.learn.model, multi_avg_fn=self._blend, use_buffers=True)
        self._show(False)

    def before_train(self) -> None:
        """Train the trained weights."""
        self._show(False)

    def after_step(self) -> None:
        """Move the average towards the weights; a search for the learning rate counts for nothing."""
        if hasattr(self.learn, "lr_finder"):
            return
        self.average.update_parameters(self.learn.model)
        self.steps += 1

    def before_validate(self) -> None:
        """Let the averaged weights be scored."""
        self._show(self.steps > 0 and not hasattr(self.learn, "lr_finder"))

    def after_fit(self) -> None:
        """Leave the averaged weights behind."""
        self._show(self.steps > 0 and not hasattr(self.learn, "lr_finder"))

    def state_dict(self) -> dict[str, Any]:
        """The average (or, while that is shown, the trained weights) and the number of steps in it."""
        average = None if self.average is None else self.average.state_dict()
        return {"average": average, "steps": self.steps, "shown": self.shown}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an average; the network's own weights are brought back by whoever kept them."""
        self.steps, self.shown = state["steps"], state["shown"]
        self.average.load_state_dict(state["average"])

    def _blend(self, averages: Any, currents: Any, seen: Any) -> None:
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(averages, currents, seen)

    @torch.no_grad()
    def _show(self, averaged: bool) -> None:
        """Exchange the values of network and average, in place: optimiser and compiled code keep their tensors."""
        if averaged == self.shown:
            return
        for own, other in zip(_state(self.learn.model), _state(self.average.module), strict=True):
            kept = own.clone()
            own.copy_(other)
            other.copy_(kept)
        self.shown = averaged


class RawScore(Callback):
    """Scores the trained weights, too, where validation sees averaged ones: the deepest mIoU, in a column of its own.

    That takes one more pass over the validation photographs after each epoch of training. `scores` counts them.
    """

    order = WeightAverage.order - 1

    def __init__(self, scores: LevelIoU):
        self.scores, self.last = scores, math.nan

    def column(self) -> ValueMetric:
        """The metric that shows the score."""
        return ValueMetric(self.value, f"miou{self.scores.hierarchy.depth - 1}_raw")

    def value(self) -> float:
        """The last epoch's score; NaN where none was trained."""
        return self.last

    def before_validate(self) -> None:
        """Score the weights as they were trained."""
        self.last = math.nan
        if not self.learn.history.trained:
            return
        self.scores.reset()
        for images, *_, masks in self.learn.dl:
            logits = self.learn.model(images.as_subclass(Tensor))
            # With smp's auxiliary head there are two.
            logits = logits[0] if isinstance(logits, tuple) else logits
            self.scores.to(logits.device).update(logits, masks)
        self.last = float(self.scores.mean_iou())


def _state(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())

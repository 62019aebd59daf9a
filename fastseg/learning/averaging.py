"""An exponential moving average of the weights, which validation scores and which is what a fit leaves behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from fastai.callback.core import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


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


def _state(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())

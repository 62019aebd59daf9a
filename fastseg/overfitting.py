"""Whether the losses of a run say that it learned its photographs by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# For so many epochs at the end, validation must have stood so far above its lowest; RULE says where it is said.
EPOCHS, RISE = 3, 0.05
RULE = (
    f"the validation loss of each of the last {EPOCHS} epochs is more than {RISE:.0%} above "
    "its lowest, while the training loss of the last epoch is below that of the epoch of the lowest"
)


@dataclass(frozen=True)
class Overfitting:
    """Since which epoch (counted from 1) validation rises while training falls, and by which shares."""

    epoch: int
    rise: float
    fall: float

    def __str__(self) -> str:
        return (f"overfitting after epoch {self.epoch}: validation loss up {self.rise:.0%} from its lowest, "
                f"training loss down {self.fall:.0%}")  # fmt: skip


def overfitting(train: Sequence[float], valid: Sequence[float]) -> Overfitting | None:
    """What the losses of a run's epochs, in order, say by `RULE`; None where they do not say it.

    An epoch without a validation loss (NaN or None), and a run of fewer than four epochs, say nothing. A loss may also
    rise because wrong pixels are wrong with more confidence, while the mean IoU still gains: look at both.
    """
    known = [i for i, value in enumerate(valid) if value is not None and math.isfinite(value)]
    if len(known) <= EPOCHS:
        return None
    lowest = min(known, key=lambda i: valid[i])
    least, last = abs(valid[lowest]), known[-1]
    fall = train[lowest] - train[last]
    if not least or not fall > 0 or any(not valid[i] - valid[lowest] > RISE * least for i in known[-EPOCHS:]):
        return None
    return Overfitting(lowest + 1, (valid[last] - valid[lowest]) / least, fall / abs(train[lowest]))

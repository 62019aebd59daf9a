"""Weights of the classes from how many pixels each has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fastseg.errors import InputError

Balance = Literal["inverse", "effective"]


def class_weights(counts: Sequence[int] | np.ndarray, kind: Balance, beta: float | None = None) -> list[float]:
    """One weight a class from its pixel count n, with mean 1 over the classes that have any.

    `inverse`: w ∝ 1 / n. `effective`: w ∝ (1 − β) / (1 − βⁿ), the inverse of the class's effective number of samples
    (Cui et al., CVPR 2019): as `inverse` for classes far below 1 / (1 − β) pixels, all alike far above. That paper's
    β = 0.999 is meant for counts of pictures and would make the weights of pixel counts equal; without `beta` it is
    1 − 1/N, as they derive it for N distinct samples, with N the mean count of the classes that are there. A class
    without pixels gets 1. Raises `InputError` where no class has any, and for a β outside 0..1.
    """
    n = np.asarray(counts, np.float64)
    there = n > 0
    if not there.any():
        raise InputError("class weights: no training mask has a pixel of any class")
    if kind not in ("inverse", "effective"):
        raise InputError(f"class weights: {kind!r} is neither 'inverse' nor 'effective'")
    if beta is not None and not 0 <= beta < 1:
        raise InputError(f"class weights: beta {beta} is not from 0 to below 1")
    weights = np.ones_like(n)
    if kind == "inverse":
        weights[there] = 1 / n[there]
    else:
        decay = np.log1p(-1 / max(n[there].mean(), 2)) if beta is None else np.log(beta) if beta else -np.inf
        # 1 − βⁿ by way of the logarithm: βⁿ itself would round to 1 for a β as near to 1 as pixels need.
        weights[there] = -1 / np.expm1(n[there] * decay)
    weights[there] /= weights[there].mean()
    return weights.tolist()

"""Logits and masks that the tests of losses share, and pixels to walk through one by one."""

import numpy as np
import torch

from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
GROUPS = [
    [[0], [1, 2, 3, 4, 5, 6]],
    [[0], [1, 2, 4, 6], [3, 5]],
    [[i] for i in range(7)],
]  # the nodes of each level of Pascal-Part, by hand


def batch(seed=0, shape=(3, 4, 5), dtype=torch.float64, channels=7):
    """Random logits and masks of Pascal-Part's ids; a part of the first photograph ignored, class 5 nowhere."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], channels, *shape[1:], generator=g, dtype=dtype) * 2
    target = torch.randint(0, 7, shape, generator=g)
    target[0, 0] = 255
    target[target == 5] = 2
    return logits, target


def pixels(logits, target, images=None):
    """(logits of one pixel as floats, its class) of all pixels that have one."""
    for b in range(len(target)) if images is None else images:
        for spot in np.ndindex(*target.shape[1:]):
            if (t := int(target[(b, *spot)])) != 255:
                yield logits[(b, slice(None), *spot)].tolist(), t

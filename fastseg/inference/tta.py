"""Test-time augmentation: which looks at a photograph are averaged, and how each is undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastseg.data.framing import MaskFraming
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy

if TYPE_CHECKING:
    from fastseg.settings import ModelSettings

LARGEST = 4.0  # times the network's size; beyond it a typing error is likelier than a wish


@dataclass(frozen=True)
class Tta:
    """Looks at a photograph whose probabilities are averaged: at each of `scales`, and with `flip` mirrored as well."""

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str) -> Tta:
        """`flip`, scales, or both: `flip,0.75,1,1.25`. Raises `InputError` for anything else."""
        words = [word.strip() for word in str(text).split(",")]
        flips, scales = words.count("flip"), []
        for word in words:
            if word == "flip":
                continue
            try:
                scale = float(word)
            except ValueError:
                scale = 0.0
            if not 0 < scale <= LARGEST:
                raise InputError(f"tta: {word!r} is neither flip nor a scale up to {LARGEST:g}; write flip,0.75,1,1.25")
            scales.append(scale)
        if flips > 1 or len(set(scales)) < len(scales):
            raise InputError(f"tta: {text}: a word stands twice; each look counts once")
        return cls(bool(flips), tuple(scales) or (1.0,))

    def __str__(self) -> str:
        return ",".join(["flip"] * self.flip + [f"{scale:g}" for scale in self.scales])

    def framings(self, framing: MaskFraming, model: ModelSettings) -> tuple[MaskFraming, ...]:
        """For each scale the frame of the nearest size that the architecture takes, of the same kind."""
        from fastseg.settings import fitting_size

        sizes = [
            fitting_size([max(1, round(side * scale)) for side in framing.size], model) if scale != 1 else framing.size
            for scale in self.scales
        ]
        for i, size in enumerate(sizes):
            if size in sizes[:i]:
                same = f"{self.scales[sizes.index(size)]:g} and {self.scales[i]:g}"
                raise InputError(f"tta: {same} are both {size[0]}x{size[1]} to {model.arch}; give one of them")
        return tuple(type(framing)(size, framing.pad) for size in sizes)


def mirrored_channels(tree: Hierarchy, head: str = "leaves") -> list[int]:
    """For each channel of a head the one that it is in a mirrored photograph.

    Raises `InputError` where leaves are mirrored but not their parents, so that a node has no counterpart.
    """
    swap = list(range(len(tree)))
    for a, b in tree.mirror:
        swap[a], swap[b] = b, a
    if head == "leaves":
        return swap
    channels = []
    for level in range(tree.depth - 1, -1, -1):
        at, start = tree.level(level), len(channels)
        for node, name in enumerate(at.names):
            images = {at.table[swap[leaf]] for leaf in at.members(node)}
            if len(images) > 1 or len(at.members(min(images))) != len(at.members(node)):
                raise InputError(f"tta: flip: the mirror pairs tear {name!r} apart, so its mirror image is no class")
            channels.append(start + images.pop())
    return channels


def probabilities(logits: Any, head: str = "leaves") -> Any:
    """Logits (B, C, ...) → probabilities: a softmax over the leaves, or a sigmoid for every node; NumPy or torch."""
    if not isinstance(logits, np.ndarray):
        return logits.softmax(1) if head == "leaves" else logits.sigmoid()
    if head != "leaves":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-logits))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares


def average(views: Sequence[Any], head: str) -> Any:
    """Logits (1, C, H, W) of several looks → logits of the mean of their probabilities; one look's stay as they are."""
    if len(views) == 1:
        return views[0]
    is_array = isinstance(views[0], np.ndarray)
    if head != "leaves":
        # In double precision, as in single the probability of a logit above 17 is 1, and its logit infinite.
        views = [view.astype(np.float64) if is_array else view.double() for view in views]
    mean = sum(probabilities(view, head) for view in views) / len(views)
    if head == "leaves":
        with np.errstate(divide="ignore"):
            return np.log(mean) if is_array else mean.log()
    mean = mean.clip(1e-15, 1 - 1e-15)
    return np.log(mean / (1 - mean)) if is_array else mean.logit()

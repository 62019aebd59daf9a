"""Test-time augmentation: which looks at a photograph are averaged, and how each is undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastseg.data.frames import Framing
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.settings import ModelSettings, fitting_size

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

    def framings(self, framing: Framing, model: ModelSettings) -> tuple[Framing, ...]:
        """For each scale the frame of the nearest size that the architecture takes."""
        sizes = [
            fitting_size([max(1, round(side * scale)) for side in framing.size], model) if scale != 1 else framing.size
            for scale in self.scales
        ]
        for i, size in enumerate(sizes):
            if size in sizes[:i]:
                same = f"{self.scales[sizes.index(size)]:g} and {self.scales[i]:g}"
                raise InputError(f"tta: {same} are both {size[0]}x{size[1]} to {model.arch}; give one of them")
        return tuple(Framing(size, framing.pad) for size in sizes)


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


def average(views: Sequence[Tensor], head: str) -> Tensor:
    """Logits (1, C, H, W) of several looks → logits of the mean of their probabilities; one look's stay as they are."""
    if len(views) == 1:
        return views[0]
    if head == "leaves":
        return torch.stack([view.softmax(1) for view in views]).mean(0).log()
    # In double precision, as in single the probability of a logit above 17 is 1, and its logit infinite.
    return torch.stack([view.double().sigmoid() for view in views]).mean(0).logit(1e-15)

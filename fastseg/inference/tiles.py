"""Frames larger than a network should see at once: overlapping tiles whose logits fade into one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from fastseg.errors import InputError
from fastseg.inference.plan import Network

if TYPE_CHECKING:
    from fastseg.inference.whole import WholeFrame

# Encoders halve their input five times: from multiples of 32, a tile is seen on the same grid as the whole frame.
GRID = 32
# What a tile sees around the part that it is for, since near its border a network sees zeros in the photograph's place.
# FPN-lite0 at 576x384 in parts of 128 was seen to agree with one pass on 99.40, 99.70 and 99.73 % of pixels with 128,
# 160 and 192.
CONTEXT = 160
FADE = 64  # pixels across which one tile's logits fade into the next one's
SIDE, SMALLEST = 512, 64  # of the parts that tiles are for: by default, and at least
LARGEST = 64  # times the network's own size
# Bytes of a frame's logits beyond which they are kept in half precision, and beyond which the frame is refused.
HALF, MOST = 1 << 28, 1 << 30


@dataclass(frozen=True)
class Span:
    """Tiles along one side of a frame: the pixels of each, and their weights (n, side) float32.

    Over every pixel the weights of its tiles add up to 1.
    """

    places: tuple[slice, ...]
    weights: np.ndarray

    @classmethod
    def of(cls, length: int, side: int, context: int) -> Span:
        """Tiles of `side` that cover `length` and see `context` more than they are for, where there is more."""
        step = max(GRID, (side - 2 * context) // GRID * GRID)
        starts = [*range(0, length - side, step), length - side]
        fade = max(1, min(FADE, context))
        total, weights = np.zeros(length, np.float32), []
        for start in starts:
            near = np.arange(side) + 0.5
            inner = np.minimum(near if start else np.inf, side - near if start + side < length else np.inf)
            weights.append(np.clip((inner - context) / fade + 0.5, 1e-6, 1).astype(np.float32))
            total[start : start + side] += weights[-1]
        places = tuple(slice(start, start + side) for start in starts)
        return cls(places, np.stack([one / total[place] for one, place in zip(weights, places, strict=True)]))


@dataclass(frozen=True)
class Tiling:
    """How frames beyond `side` (height, width) are seen.

    In parts of `side`, each with `CONTEXT` more around it; or, where the network takes nothing else, `fixed` with it,
    in tiles of `side` of which the outer quarters are context.
    """

    side: tuple[int, int]
    fixed: bool = False

    @classmethod
    def of(cls, card: Mapping[str, Any], tile: Any = None, fixed: tuple[int, int] | None = None) -> Tiling:
        """Of parts of `tile` (one side, HxW or (H, W)); or `fixed`, of a file that takes frames of one size alone.

        By default of SIDE, and no less than the network's own size. Raises `InputError` for what is no tile.
        """
        if fixed:
            if tile is not None:
                raise InputError(f"tile: the file takes {fixed[0]}x{fixed[1]} alone, and so its tiles are that")
            return cls(fixed, True)
        if tile is None:
            side = [max(SIDE, length) for length in card["size"]]
        else:
            side = _size(tile, "tile")
            if min(side) < SMALLEST:
                raise InputError(f"tile: {side[0]}x{side[1]}; give {SMALLEST} pixels a side or more")
        high, wide = (-(-length // GRID) * GRID for length in side)
        return cls((high, wide))

    def is_for(self, frame: Sequence[int]) -> bool:
        """Whether a frame is larger."""
        return any(length > side for length, side in zip(frame, self.side, strict=True))

    def spans(self, frame: Sequence[int]) -> tuple[Span, Span]:
        """Tiles along the height and the width of a frame."""
        spans = []
        for length, side in zip(frame, self.side, strict=True):
            around = min(CONTEXT, side // 4) if self.fixed else CONTEXT
            spans.append(Span.of(length, min(length, side if self.fixed else side + 2 * around), around))
        return spans[0], spans[1]


def frame_size(card: Mapping[str, Any], size: Any = None) -> tuple[int, int]:
    """Height and width at which a network looks at photographs: its own, or the nearest to `size` that it takes.

    `size` is HxW, (H, W), or a multiple of its own, as 2. Raises `InputError` for anything else.
    """
    own = (int(card["size"][0]), int(card["size"][1]))
    if size is None:
        return own
    from fastseg.settings import ModelSettings, fitting_size

    try:
        times = float(size)
    except (TypeError, ValueError):
        wanted = _size(size, "size")
    else:
        if not 0 < times <= LARGEST:
            raise InputError(f"size: {size} is no multiple of the network's size up to {LARGEST}; or write 512x384")
        wanted = tuple(max(1, round(side * times)) for side in own)
    return fitting_size(wanted, ModelSettings(**card["model"], weights="none"))


def _size(value: Any, what: str) -> tuple[int, int]:
    from fastseg.values import parse_size

    try:
        return parse_size(value)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None


def in_tiles(
    network: Network, images: Any, tiling: Tiling, channels: int, whole: type[WholeFrame] | None = None
) -> Any:
    """Frames (B, 3, h, w) → logits (B, channels, h, w), seen in tiles; NumPy or torch.

    `whole` is `WholeFrame` where the network is torch's own. Raises `InputError` for a frame whose logits are too many.
    """
    frame = images.shape[-2:]
    canvas = _canvas(images, (len(images), channels, *frame))
    for image, found in zip(images, canvas, strict=True):
        if whole is None:
            _sweep(network, image, tiling.spans(frame), found)
            continue
        with whole(frame) as layers:
            # First for the statistics alone; with less around the tiles they were seen to be too far off.
            _sweep(network, image, tiling.spans(frame), None, layers)
            layers.settle()
            _sweep(network, image, tiling.spans(frame), found, layers)
    return canvas


def _sweep(
    network: Network, image: Any, spans: tuple[Span, Span], found: Any, layers: WholeFrame | None = None
) -> None:
    """Send all tiles of a frame (3, h, w) through the network, and add up their logits in `found` (C, h, w), if any."""
    down, across = (zip(span.places, span.weights, strict=True) for span in spans)
    for (rows, fade), (columns, other) in product(down, across):
        weights = fade[:, None] * other
        if not isinstance(image, np.ndarray):
            weights = _torch().from_numpy(weights).to(image.device)
        if layers is not None:
            layers.begin(weights, (rows.start, columns.start))
        logits = network(image[None, :, rows, columns])[0]
        if found is not None:
            found[:, rows, columns] += logits * weights
        elif not layers.gathers:
            return


def _canvas(images: Any, shape: tuple[int, int, int, int]) -> Any:
    size = math.prod(shape) * 4
    if size > 2 * MOST:
        raise InputError(f"size: {shape[2]}x{shape[3]} with {shape[1]} classes is too large; look at a smaller size")
    if isinstance(images, np.ndarray):
        return np.zeros(shape, np.float16 if size > HALF else np.float32)
    half, single = _torch().float16, _torch().float32
    return _torch().zeros(shape, dtype=half if size > HALF else single, device=images.device)


def _torch() -> Any:
    import torch

    return torch

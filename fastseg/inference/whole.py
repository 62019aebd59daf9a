"""Layers that look at the whole of a frame, kept right while the network sees it in tiles."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

INTERPOLATE = inspect.signature(F.interpolate)


class WholeFrame(TorchFunctionMode):
    """Within it a network treats tiles as parts of a frame, where a layer asks for more than its neighbourhood.

    Group norms, and means over all pixels (as of squeeze-and-excitation), take their statistics from all tiles: a first
    sweep over the tiles gathers them, `settle` makes them what the next sweep uses. They are told apart by the order of
    their calls, and as the first sweep's tiles have their own, the second is exact for the first such layer in a row
    and close for those behind it. Enlarging with `align_corners`, as smp's decoders do, depends on a pixel's place in
    the frame, and follows it. Pooling to a grid, as in PSPNet and UPerNet, and attention, as in SegFormer, still see
    the tile alone.
    """

    def __init__(self, frame: tuple[int, int]) -> None:
        super().__init__()
        self.frame = frame
        self._known: list[Tensor] = []
        self._sums: list[tuple[Tensor, Tensor]] = []

    @property
    def gathers(self) -> bool:
        """Whether the network has layers whose statistics are gathered; known after the first tile."""
        return bool(self._sums)

    def begin(self, weights: Tensor, origin: tuple[int, int]) -> None:
        """Before each tile: the weights (h, w) of its pixels, which add up to 1 over all tiles, and its (top, left)."""
        self._pixels, self._origin, self._call = weights[None, None], origin, 0

    def settle(self) -> None:
        """After a sweep over all tiles."""
        self._known = [total / weight for total, weight in self._sums]
        self._sums = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        if func is F.group_norm:
            return self._group_norm(*args, **kwargs)
        if func is F.adaptive_avg_pool2d and args[1] in (1, (1, 1)):
            return self._mean(args[0])[:, :, None, None]
        if func in (torch.mean, Tensor.mean) and _over_pixels(*args, **kwargs):
            found = self._mean(args[0])
            return found[:, :, None, None] if kwargs.get("keepdim", args[2:3] == (True,)) else found
        if func is F.interpolate:
            given = INTERPOLATE.bind(*args, **kwargs).arguments
            if given.get("mode") == "bilinear" and given.get("align_corners"):
                return self._interpolate(given["input"], given.get("size"), given.get("scale_factor"))
        return func(*args, **kwargs)

    def _statistics(self, own: Tensor, total: Tensor, weight: Tensor) -> Tensor:
        call, self._call = self._call, self._call + 1
        if call == len(self._sums):
            self._sums.append((total, weight))
        else:
            before = self._sums[call]
            self._sums[call] = (before[0] + total, before[1] + weight)
        return self._known[call].expand_as(own) if self._known else own

    def _area(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self._pixels, x.shape[-2:]).to(x)

    def _mean(self, x: Tensor) -> Tensor:
        area = self._area(x)
        return self._statistics(x.mean((2, 3)), (x * area).sum((0, 2, 3)), area.sum())

    def _group_norm(self, x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
                    eps: float = 1e-5) -> Tensor:  # fmt: skip
        parts = x.reshape(len(x), groups, -1, *x.shape[2:])
        area = self._area(x)[:, None]
        powers = parts, parts.square()
        own = torch.stack([power.mean((2, 3, 4)) for power in powers])
        total = torch.stack([(power * area).sum((0, 2, 3, 4)) for power in powers])[:, None]
        mean, square = self._statistics(own, total, area.sum() * parts.shape[2])
        spread = (square - mean.square()).clamp(min=0).add(eps).rsqrt()
        out = ((parts - mean[..., None, None, None]) * spread[..., None, None, None]).reshape(x.shape)
        if weight is not None:
            out = out * weight[:, None, None]
        return out if bias is None else out + bias[:, None, None]

    def _interpolate(self, x: Tensor, size: Any, scale: Any) -> Tensor:
        scale = scale if isinstance(scale, (tuple, list)) else (scale, scale)
        size = size or [int(side * factor) for side, factor in zip(x.shape[-2:], scale, strict=True)]
        size = size if isinstance(size, (tuple, list)) else (size, size)
        for i, want in enumerate(size):
            x = self._stretched(x, i, want)
        return x

    def _stretched(self, x: Tensor, i: int, want: int) -> Tensor:
        """(1, C, h, w) of a tile with `want` rows (i = 0) or columns (1), where they would be in the frame's."""
        have, tile, origin = x.shape[2 + i], self._pixels.shape[2 + i], self._origin[i]
        # The frame's sides as input and output of the layer, and the tile's start within them.
        before, after = (n * self.frame[i] / tile for n in (have, want))
        at = torch.arange(want, device=x.device, dtype=torch.float64) + origin / tile * want
        at = (at * ((before - 1) / max(after - 1, 1)) - origin / tile * have).clamp(0, have - 1)
        first = at.long()
        share = (at - first).to(x.dtype)
        low, high = (x.index_select(2 + i, place) for place in (first, (first + 1).clamp(max=have - 1)))
        return torch.lerp(low, high, share if i else share[:, None])


def _over_pixels(x: Tensor, dim: Any = None, *_: Any, **__: Any) -> bool:
    return x.dim() == 4 and isinstance(dim, (tuple, list)) and sorted(d % 4 for d in dim) == [2, 3]

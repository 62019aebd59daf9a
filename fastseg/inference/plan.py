"""How photographs reach a network, and how its logits become leaf ids: frames, looks, sizes, decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastseg.data.framing import MaskFraming
from fastseg.decoding import Decode, Head, check_decoding
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.tta import Tta, average, mirrored_channels

Protocol = Literal["native", "resized"]
PROTOCOLS = ("native", "resized")
Network = Callable[[Any], Any]  # (B, 3, h, w) normalised → (B, C, h, w) logits, both NumPy or both torch


@dataclass(frozen=True)
class Plan:
    """How photographs reach a network, and how its logits become leaf ids at the size that is scored.

    `framing` is the network's own, `framings` those that it looks through: more than one with test-time augmentation.
    Without a framing, batches are scored as they are.
    """

    tree: Hierarchy
    framing: MaskFraming | None = None
    framings: tuple[MaskFraming, ...] = ()
    tta: Tta | None = None
    protocol: Protocol = "native"
    decode: Decode = "leaf"
    head: Head = "leaves"

    @classmethod
    def of_card(
        cls,
        card: Mapping[str, Any],
        kind: type[MaskFraming],
        protocol: Protocol = "native",
        decode: Decode = "leaf",
        tta: Tta | str | None = None,
    ) -> Plan:
        """For the network that a `model.json` describes; `kind` of framing says what photographs and logits are in.

        Raises `InputError` for a choice that there is not.
        """
        if protocol not in PROTOCOLS:
            raise InputError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        tree, head = Hierarchy(card["hierarchy"], card["mirror"]), card.get("head", "leaves")
        check_decoding(decode, head)
        framing = kind.whole(card["size"], card["resize"])
        tta = Tta.parse(tta) if isinstance(tta, str) else tta
        framings = (framing,)
        if tta:
            from fastseg.settings import ModelSettings

            framings = tta.framings(framing, ModelSettings(**card["model"], weights="none"))
        if tta and tta.flip:
            mirrored_channels(tree, head)
        return cls(tree, framing, framings, tta, protocol, decode, head)

    def target(self, shape: Sequence[int]) -> tuple[int, int]:
        """The size at which a photograph of `shape` is scored."""
        whole = self.framing is None or self.protocol == "native"
        high, wide = shape if whole else self.framing.box(shape)[2:]
        return int(high), int(wide)

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """(H, W) ids of a photograph at the size at which it is scored; the padding of a frame is left out."""
        if self.framing is None or self.protocol == "native":
            return ids
        top, left, high, wide = self.framing.box(ids.shape)
        return np.ascontiguousarray(self.framing.mask(ids)[top : top + high, left : left + wide])

    def predict(self, network: Network, images: Sequence[Any], shapes: Sequence[Sequence[int]]) -> Iterator[Any]:
        """(H, W) leaf ids of each photograph of a batch at the size that is scored, where the network leaves them."""
        views = self.views(network, images)
        for i, shape in enumerate(shapes):
            yield self.tree.decode(self.scores(views, i, shape), self.decode, head=self.head)[0]

    def views(self, network: Network, images: Sequence[Any]) -> list[tuple[MaskFraming | None, Any]]:
        """Logits of all looks at a batch, whose frames come once for each size; mirrored ones turned back."""
        found = []
        for framing, batch in zip(self.framings or [None], images, strict=True):
            found.append((framing, network(batch)))
            if self.tta and self.tta.flip:
                channels = mirrored_channels(self.tree, self.head)
                found.append((framing, _mirrored(network(_mirrored(batch))[:, channels])))
        return found

    def scores(self, views: Sequence[tuple[MaskFraming | None, Any]], i: int, shape: Sequence[int],
               rows: slice | None = None) -> Any:  # fmt: skip
        """Logits (1, C, H, W) of a batch's photograph `i`, of `shape`, at the size that is scored, or some rows."""
        target = self.target(shape)
        looks = [
            logits[i : i + 1] if framing is None else framing.undo(logits[i : i + 1], shape, target, rows)
            for framing, logits in views
        ]
        return average(looks, self.head)


def _mirrored(planes: Any) -> Any:
    if isinstance(planes, np.ndarray):
        return np.ascontiguousarray(planes[..., ::-1])
    return planes.flip(-1)

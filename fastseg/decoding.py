"""A network's scores → leaf ids, in three ways whose levels always agree, since parents are read off the tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX

if TYPE_CHECKING:
    from fastseg.hierarchy import Hierarchy

Decode = Literal["leaf", "top_down", "path"]
Head = Literal["leaves", "nodes"]
DECODERS = ("leaf", "top_down", "path")
HEADS = ("leaves", "nodes")


def decode(tree: Hierarchy, logits: Any, how: Decode = "leaf", dim: int = 1, head: Head = "leaves") -> Any:
    """Logits (B, C, ...) → uint8 leaf ids (B, ...); NumPy or torch, whatever the place of the channels (`dim`).

    `leaf`: the largest leaf. `top_down`: the best child of the best parent, from level 0 down. `path`: the leaf with
    the largest sum over the nodes above it and itself, which for `leaves` (one softmax) adds log marginals, and for
    `nodes` (a sigmoid for each node, channels as in `node_slices`) logits: HSSN's rule (Li et al. 2022,
    encoder_decoder.py). Of equal ones the first wins. Raises `InputError` for an unknown way or head, or channels that
    are not the head's.
    """
    if isinstance(logits, np.ndarray):
        return decode(tree, torch.from_numpy(logits), how, dim, head).numpy()
    check_decoding(how, head)
    channels = len(tree) if head == "leaves" else tree.node_count
    if logits.shape[dim] != channels:
        raise InputError(f"logits have {logits.shape[dim]} channels; the head {head!r} of this tree has {channels}")
    logits = logits.detach().as_subclass(Tensor)
    if how == "leaf":
        return leaf_ids(logits.narrow(dim, 0, len(tree)), dim).to(torch.uint8)
    levels = _node_scores(tree, logits, dim, head)
    if how == "top_down":
        return _top_down(tree, levels)
    tables = [level.table for level in tree.levels]
    return _largest(
        sum(scores[table[leaf]] for scores, table in zip(levels, tables, strict=True)) for leaf in range(len(tree))
    )


def check_decoding(how: str, head: str = "leaves") -> None:
    """Raise `InputError` for a way of decoding, or a head, that there is not."""
    if how not in DECODERS:
        raise InputError(f"decode {how!r} is none of {', '.join(DECODERS)}")
    if head not in HEADS:
        raise InputError(f"head {head!r} is none of {', '.join(HEADS)}")


def leaf_ids(logits: Tensor, dim: int = 1) -> Tensor:
    """(B, C, ...) scores → (B, ...) ids of the largest; the first of equal ones wins, as with `argmax`.

    uint8 on a CPU, where a running maximum over the channels is many times faster than `argmax(1)`.
    """
    if logits.device.type != "cpu" or logits.shape[dim] > IGNORE_INDEX:
        return logits.argmax(dim)
    return _largest(logits.unbind(dim))


def _largest(planes: Iterable[Tensor]) -> Tensor:
    """uint8 number of the largest of planes of one shape, pixel by pixel; one plane beside the best in memory."""
    planes = iter(planes)
    best = next(planes).clone()
    ids = torch.zeros_like(best, dtype=torch.uint8)
    for number, plane in enumerate(planes, 1):
        # Numbers rise, so a larger plane's number is the larger one: bytes multiply and compare four times as fast as
        # `masked_fill_` picks them out.
        torch.maximum(ids, (plane > best).view(torch.uint8).mul_(number), out=ids)
        torch.maximum(best, plane, out=best)
    return ids


def _node_scores(tree: Hierarchy, logits: Tensor, dim: int, head: str) -> list[Sequence[Tensor]]:
    """For each level the planes of its nodes.

    From one softmax these are log marginals but for the normaliser, a number that all nodes of a pixel share, and that
    no comparison needs: so nothing is normalised.
    """
    planes = logits.unbind(dim)
    if head == "nodes":
        return [planes[own] for own in tree.node_slices]
    levels = [planes]
    for level in range(tree.depth - 1, 0, -1):
        children: dict[int, list[Tensor]] = {}
        for node, parent in enumerate(tree.parents(level)):
            children.setdefault(parent, []).append(levels[0][node])
        levels.insert(0, [_log_sum(children[node]) for node in sorted(children)])
    return levels


def _log_sum(planes: Sequence[Tensor]) -> Tensor:
    return planes[0] if len(planes) == 1 else torch.stack(list(planes)).logsumexp(0)


def _top_down(tree: Hierarchy, levels: Sequence[Sequence[Tensor]]) -> Tensor:
    chosen = _largest(levels[0])
    for level in range(1, tree.depth):
        parents, scores = tree.parents(level), levels[level]
        # Every pixel begins at a child of its parent, so that even scores of −inf or NaN leave it on its branch.
        first = torch.tensor([parents.index(node) for node in range(len(tree.names(level - 1)))], dtype=torch.uint8)
        ids = first.to(chosen.device)[chosen.long()]
        best = torch.full_like(scores[0], -torch.inf)
        for node, parent in enumerate(parents):
            better = (chosen == parent) & (scores[node] > best)
            ids.masked_fill_(better, node)
            best = torch.where(better, scores[node], best)
        chosen = ids
    return chosen

"""A network's scores → leaf ids, in three ways whose levels always agree, since parents are read off the tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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
    check_decoding(how, head)
    channels = len(tree) if head == "leaves" else tree.node_count
    if logits.shape[dim] != channels:
        raise InputError(f"logits have {logits.shape[dim]} channels; the head {head!r} of this tree has {channels}")
    if not isinstance(logits, np.ndarray):
        logits = logits.detach().as_subclass(_library(logits).Tensor)
    if how == "leaf":
        ids = leaf_ids(logits[(slice(None),) * (dim % logits.ndim) + (slice(len(tree)),)], dim)
        return ids.astype(np.uint8, copy=False) if isinstance(ids, np.ndarray) else ids.byte()
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


def leaf_ids(logits: Any, dim: int = 1) -> Any:
    """(B, C, ...) scores → (B, ...) ids of the largest; the first of equal ones wins, as with `argmax`.

    uint8 on a CPU, where a running maximum over the channels is many times faster than `argmax(1)`.
    """
    on_gpu = not isinstance(logits, np.ndarray) and logits.device.type != "cpu"
    if on_gpu or logits.shape[dim] > IGNORE_INDEX:
        return logits.argmax(dim)
    return _largest(_planes(logits, dim))


def _library(values: Any) -> Any:
    """NumPy, or torch, which so loads with the tensors that need it."""
    if isinstance(values, np.ndarray):
        return np
    import torch

    return torch


def _planes(values: Any, dim: int) -> Sequence[Any]:
    if not isinstance(values, np.ndarray):
        return values.unbind(dim)
    values = np.moveaxis(values, dim, 0)
    return tuple(values[i, ...] for i in range(len(values)))


def _largest(planes: Iterable[Any]) -> Any:
    """uint8 number of the largest of planes of one shape, pixel by pixel; one plane beside the best in memory."""
    planes = iter(planes)
    first = next(planes)
    lib = _library(first)
    best = lib.empty_like(first)
    best[...] = first
    ids = lib.zeros_like(best, dtype=lib.uint8)
    for number, plane in enumerate(planes, 1):
        # Numbers rise, so a larger plane's number is the larger one: bytes multiply and compare four times as fast as
        # picking them out by a mask.
        larger = (plane > best).view(lib.uint8)
        larger *= number
        lib.maximum(ids, larger, out=ids)
        lib.maximum(best, plane, out=best)
    return ids


def _node_scores(tree: Hierarchy, logits: Any, dim: int, head: str) -> list[Sequence[Any]]:
    """For each level the planes of its nodes.

    From one softmax these are log marginals but for the normaliser, a number that all nodes of a pixel share, and that
    no comparison needs: so nothing is normalised.
    """
    planes = _planes(logits, dim)
    if head == "nodes":
        return [planes[own] for own in tree.node_slices]
    levels = [planes]
    for level in range(tree.depth - 1, 0, -1):
        children: dict[int, list[Any]] = {}
        for node, parent in enumerate(tree.parents(level)):
            children.setdefault(parent, []).append(levels[0][node])
        levels.insert(0, [_log_sum(children[node]) for node in sorted(children)])
    return levels


def _log_sum(planes: Sequence[Any]) -> Any:
    if len(planes) == 1:
        return planes[0]
    if not isinstance(planes[0], np.ndarray):
        return _library(planes[0]).stack(list(planes)).logsumexp(0)
    return np.logaddexp.reduce(planes)


def _top_down(tree: Hierarchy, levels: Sequence[Sequence[Any]]) -> Any:
    chosen = _largest(levels[0])
    lib = _library(chosen)
    for level in range(1, tree.depth):
        parents, scores = tree.parents(level), levels[level]
        # Every pixel begins at a child of its parent, so that even scores of −inf or NaN leave it on its branch.
        first = np.array([parents.index(node) for node in range(len(tree.names(level - 1)))], np.uint8)
        ids = first[chosen] if lib is np else lib.from_numpy(first).to(chosen.device)[chosen.long()]
        best = lib.full_like(scores[0], -np.inf)
        for node, parent in enumerate(parents):
            better = (chosen == parent) & (scores[node] > best)
            ids[better] = node
            best = lib.where(better, scores[node], best)
        chosen = ids
    return chosen

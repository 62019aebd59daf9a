"""Losses on the class tree itself: cross-entropy at every level, and the tree-min loss of a head with all nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.learning.seg_loss import SegLoss

Levels = Mapping[int, float] | Sequence[int] | None


class LevelCELoss(SegLoss):
    """Cross-entropy at each level of a tree, on the marginal probabilities of one head of leaves.

    At a level: the mean over pixels that have a class of −log Σ p_leaf over the leaves under the truth's node there;
    then the weighted mean over levels. Coherent by construction: a node's probability is the sum of its leaves', so no
    level can contradict another. It is the hierarchical cross-entropy of Bertinetto et al. (CVPR 2020, §3.1), whose
    weight of a step down the tree is here the sum of the weights of all levels from there on.

    `levels` maps level → weight, or lists levels of equal weight (default: all).
    """

    def __init__(self, hierarchy: Hierarchy, levels: Levels = None, **kwargs: Any):
        super().__init__(**{"leaves": len(hierarchy), **kwargs})
        self.hierarchy, self.levels = hierarchy, _level_weights("LevelCELoss", hierarchy, levels)
        self.register_buffer("tables", _tables(hierarchy), persistent=False)

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """In logarithms throughout: the logit of a node is the log-sum-exp of its leaves'."""
        valid = target != self.ignore_index
        ids = torch.where(valid, target, 0)
        total = 0
        for level, weight in self.levels.items():
            at = self.hierarchy.level(level)
            truth = torch.where(valid, self.tables[level][ids], -1)
            members = [at.members(node) for node in range(len(at.names))]
            nodes = [logits[:, some].logsumexp(1) if len(some) > 1 else logits[:, some[0]] for some in members]
            leaves = len(nodes) == logits.shape[1]
            total = total + weight * F.cross_entropy(
                logits if leaves else torch.stack(nodes, 1), truth, ignore_index=-1, reduction="sum"
            )
        return total / sum(self.levels.values()) / valid.sum().clamp(min=1)


class TreeMinLoss(SegLoss):
    """The focal tree-min loss on a sigmoid s for every node of the tree (Li et al., CVPR 2022, §3.2.1).

    A node that is true of a pixel makes all its ancestors true, and one that is false all its descendants false. So
    with p⁺ = min of s over a node and its ancestors and p⁻ = max of s over a node and its descendants the loss is, over
    the nodes where the truth says yes and no,

        Σ_yes −(1 − p⁺)^γ · log p⁺  +  Σ_no −(p⁻)^γ · log(1 − p⁻)

    averaged over the pixels that have a class and over the nodes of each level, then added up over levels, each times
    its weight (default 1 each, as the authors' code does). γ = 0 is the plain tree-min loss. Works on logits, where
    min and max are the same and no ε is needed.

    Takes logits (B, N, ...) in the order of `Hierarchy.node_slices`. `activation` gives probabilities of the leaves:
    of independent sigmoids, given that exactly one path from a root to a leaf is true, a path's probability is the
    softmax of the sums of logits along the paths (Deng et al., ECCV 2014), whose largest is the authors' decoding.
    Raises `InputError` for levels the tree has not, and weights or γ below 0.
    """

    head = "nodes"

    def __init__(self, hierarchy: Hierarchy, levels: Levels = None, gamma: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        if gamma < 0:
            raise InputError(f"TreeMinLoss: gamma {gamma} is below 0")
        self.hierarchy, self.gamma = hierarchy, gamma
        self.levels = _level_weights("TreeMinLoss", hierarchy, levels)
        self.sizes = [len(at.names) for at in hierarchy.levels]
        starts = [at.start for at in hierarchy.node_slices]
        self.above = sorted((starts[d] + node, starts[d - 1] + parent) for d in range(1, hierarchy.depth)
                            for node, parent in enumerate(hierarchy.parents(d)))  # fmt: skip
        self.register_buffer("tables", _tables(hierarchy), persistent=False)

    def activation(self, logits: Tensor) -> Tensor:
        """Logits (B, N, ...) → probabilities of the leaves, (B, C, ...)."""
        return self._path_sums(logits).softmax(1)

    def decodes(self, scores: Tensor) -> Tensor:
        """Logits (B, N, ...), or what `activation` makes of them → leaf ids (B, ...)."""
        return (scores if scores.shape[1] == len(self.hierarchy) else self._path_sums(scores)).argmax(1)

    def own_logits(self, logits: Tensor) -> Tensor:
        """All nodes."""
        if logits.shape[1] != self.hierarchy.node_count:
            raise ValueError(f"logits have {logits.shape[1]} channels, the tree has {self.hierarchy.node_count} nodes")
        return logits

    def batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Terms of the false nodes, masked, and of each level's one true node."""
        tree, valid = self.hierarchy, target != self.ignore_index
        ids = torch.where(valid, target, 0)
        truths = [table[ids] for table in self.tables]
        # Node by node: maps of one channel stay in a CPU's cache, and nothing is kept of all of them but the slopes.
        nodes = logits.movedim(1, 0).contiguous()
        highest, lowest = self._highest(nodes), self._lowest(nodes, truths)
        total = 0
        for d, weight in self.levels.items():
            level = [_Term.apply(-lowest[d], valid, self.gamma)]
            for node, high in enumerate(highest[tree.node_slices[d]]):
                level.append(_Term.apply(high, (truths[d] != node) & valid, self.gamma))
            total = total + weight / self.sizes[d] * sum(level)
        return total / valid.sum().clamp(min=1)

    def _highest(self, nodes: Tensor) -> list[Tensor]:
        """(N, B, ...) logits → for each node the largest of it and its descendants."""
        highest = list(nodes.unbind())
        # Channels run from the leaves to the roots, so a node is complete before its parent looks at it.
        for child, parent in self.above:
            highest[parent] = _Larger.apply(highest[parent], highest[child])
        return highest

    def _lowest(self, nodes: Tensor, truths: Sequence[Tensor]) -> list[Tensor]:
        """(N, B, ...) logits → for each level the smallest of its true node and that node's ancestors."""
        lowest: list[Tensor] = []
        for at, truth in zip(self.hierarchy.node_slices, truths, strict=True):
            own = nodes[at].gather(0, truth[None])[0]
            lowest.append(-_Larger.apply(-lowest[-1], -own) if lowest else own)
        return lowest

    def _path_sums(self, logits: Tensor) -> Tensor:
        slices = self.hierarchy.node_slices
        return sum(logits[:, slices[d]][:, list(at.table)] for d, at in enumerate(self.hierarchy.levels))


class _Term(torch.autograd.Function):
    """Logits w that ought to be low, and a mask → the sum over its pixels of σ(w)^γ · −log(1 − σ(w)).

    With the slope in closed form, σ^γ · (γ · (1 − σ) · −log(1 − σ) + σ): left to autograd it would keep several maps
    instead of one, take half as long again, and have no slope at σ = 0 for γ below 1.
    """

    @staticmethod
    def forward(ctx: Any, wrong: Tensor, mask: Tensor, gamma: float) -> Tensor:
        loss, chance = F.softplus(wrong), wrong.sigmoid()
        weight = (chance**gamma).mul_(mask)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((1 - chance).mul_(loss).mul_(gamma).add_(chance).mul_(weight))
        return loss.mul_(weight).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad, None, None


class _Larger(torch.autograd.Function):
    """The larger of two; where both are equal, the first is blamed. `torch.maximum` takes thrice as long to go back."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(b > a)
        return torch.maximum(a, b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (second,) = ctx.saved_tensors
        to_second = grad * second
        return grad - to_second, to_second


def _level_weights(name: str, tree: Hierarchy, levels: Levels) -> dict[int, float]:
    chosen = levels if isinstance(levels, Mapping) else dict.fromkeys(levels or range(tree.depth), 1.0)
    for level in chosen:
        tree.level(level)
    if min(chosen.values(), default=0) < 0 or not sum(chosen.values()) > 0:
        raise InputError(f"{name}: the levels' weights must not be negative, nor all 0")
    return {range(tree.depth)[level]: float(weight) for level, weight in chosen.items()}


def _tables(tree: Hierarchy) -> Tensor:
    """(depth, C): for each leaf its node at each level."""
    return torch.tensor([at.table for at in tree.levels])

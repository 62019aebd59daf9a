"""The class tree: leaf ids, names, levels, and what follows from them for masks, counts and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastseg.errors import InputError

IGNORE_INDEX = 255
BACKGROUND_NAMES = ("background", "bg")
PASCAL_PART = {
    "background": 0,
    "body": {
        "upper_body": {"low_hand": 1, "torso": 2, "head": 4, "up_hand": 6},
        "lower_body": {"low_leg": 3, "up_leg": 5},
    },
}


@dataclass(frozen=True)
class Level:
    """The nodes at one depth of the tree: their names, and for each leaf id the node it belongs to."""

    names: tuple[str, ...]
    table: tuple[int, ...]

    def members(self, node: int) -> list[int]:
        """Leaf ids under a node."""
        return [leaf for leaf, owner in enumerate(self.table) if owner == node]


class Hierarchy:
    """A tree of classes over leaf ids 0..n-1.

    `tree` is a nested mapping: leaf name → id, group name → mapping. Level 0 holds the outermost nodes, the deepest
    level the leaves; a leaf that hangs higher stands for itself on the levels below. Nodes of a level are numbered by
    their smallest leaf id, so the deepest level's ids are the leaf ids. The leaf named `background` (or `bg`), wherever
    it sits, is a node of its own on every level and belongs to no level's mean.

    `mirror` lists pairs of leaf names that a horizontal flip exchanges. The id 255 (`IGNORE_INDEX`) marks pixels
    without a class. Raises `InputError` for a tree with a duplicate or missing id, a repeated name, an empty group or
    a cycle.
    """

    def __init__(self, tree: Mapping[str, Any], mirror: Iterable[Sequence[str]] = ()):
        found = list(_walk(tree, (), ()))
        _check_names([path for path, _ in found])
        by_id = _by_id(found)
        self.tree = _plain(tree)
        self.leaves = tuple(path[-1] for path in by_id)
        backgrounds = [i for i, name in enumerate(self.leaves) if name.lower() in BACKGROUND_NAMES]
        if len(backgrounds) > 1:
            raise InputError("hierarchy: 'background' and 'bg' both name the background; keep one")
        if len(self.leaves) == len(backgrounds):
            raise InputError("hierarchy: nothing but background; add at least one class")
        self.background = backgrounds[0] if backgrounds else None
        self._paths = [path[-1:] if i == self.background else path for i, path in enumerate(by_id)]
        self.order = {leaf: i for i, (_, leaf) in enumerate(found)}
        self.depth = max(len(path) for path in self._paths)
        self.levels = tuple(self._level(d) for d in range(self.depth))
        self.mirror = tuple(self._pair(pair) for pair in mirror)
        if len(flat := [leaf for pair in self.mirror for leaf in pair]) != len(set(flat)):
            raise InputError("mirror: a leaf stands in two pairs; each may be exchanged with one other")

    @classmethod
    def from_yaml(cls, source: str | Path) -> Hierarchy:
        """Read `{hierarchy: TREE, mirror: PAIRS}`, or the bare tree, from YAML text or from the file at a `Path`."""
        loaded = yaml.safe_load(source.read_text() if isinstance(source, Path) else source)
        if isinstance(loaded, Mapping) and isinstance(loaded.get("hierarchy"), Mapping):
            return cls(loaded["hierarchy"], loaded.get("mirror") or ())
        return cls(loaded)

    def to_yaml(self) -> str:
        """The YAML text that `from_yaml` reads back."""
        pairs = [[self.leaves[a], self.leaves[b]] for a, b in self.mirror]
        return yaml.safe_dump({"hierarchy": self.tree, "mirror": pairs}, sort_keys=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hierarchy) and (self.tree, self.mirror) == (other.tree, other.mirror)

    def __hash__(self) -> int:
        return hash((tuple(self._paths), self.mirror))

    def __repr__(self) -> str:
        sizes = ", ".join(str(len(self.foreground(d))) for d in range(self.depth))
        return f"Hierarchy({len(self)} leaves, foreground nodes per level: {sizes})"

    def __len__(self) -> int:
        return len(self.leaves)

    def level(self, level: int = -1) -> Level:
        """One level; negative numbers count from the leaves. Raises `InputError` for a level the tree has not."""
        if not -self.depth <= level < self.depth:
            raise InputError(f"level {level}: the tree has levels 0 to {self.depth - 1}")
        return self.levels[level]

    def names(self, level: int = -1) -> list[str]:
        """Node names of a level, by node id."""
        return list(self.level(level).names)

    def foreground(self, level: int = -1) -> list[int]:
        """Node ids of a level without background: the ones its mean is taken over."""
        own = None if self.background is None else self.level(level).table[self.background]
        return [node for node in range(len(self.level(level).names)) if node != own]

    @property
    def node_slices(self) -> tuple[slice, ...]:
        """For each level its channels in a head with a logit for every node: the deepest level's first, level 0's last.

        Within a level by node id, so that the first channels are the leaves', as in a head of leaves alone. Background
        is a node on every level.
        """
        ends = [sum(len(at.names) for at in self.levels[level:]) for level in range(self.depth)]
        return tuple(slice(end - len(at.names), end) for end, at in zip(ends, self.levels, strict=True))

    @property
    def node_count(self) -> int:
        """How many nodes all levels have together."""
        return sum(len(at.names) for at in self.levels)

    def channels(self, head: str) -> int:
        """How many logits a head has: one for each leaf (`leaves`), or for each node of every level (`nodes`)."""
        return self.node_count if head == "nodes" else len(self)

    def parents(self, level: int = -1) -> list[int]:
        """For each node of a level the id of its parent on the level above."""
        level = range(self.depth)[level] if -self.depth <= level < self.depth else self.depth
        if level == 0:
            raise InputError("level 0 has no parents")
        here, above = self.level(level), self.level(level - 1)
        return [above.table[here.members(node)[0]] for node in range(len(here.names))]

    def merge(self, mask: Any, level: int = -1) -> Any:
        """Leaf ids → node ids of a level, by table look-up.

        `mask` is a NumPy array or torch tensor of any integer dtype and shape; dtype and shape stay, 255
        passes through. Raises `InputError` for an id outside the tree.
        """
        is_array = isinstance(mask, np.ndarray)
        if mask.dtype.kind not in "iu" if is_array else mask.dtype.is_floating_point:
            raise InputError(f"mask: dtype {mask.dtype} is not an integer; give class ids")
        table = np.full(256, -1, np.int64)
        table[: len(self)] = self.level(level).table
        table[IGNORE_INDEX] = IGNORE_INDEX
        # Widened first: in int8 itself, 255 would compare as −1.
        wide = mask.astype(np.int64) if is_array else mask.long()
        outside = (wide < 0) | (wide > IGNORE_INDEX)
        if not outside.any():
            merged = (table if is_array else _torch().from_numpy(table).to(mask.device))[wide]
            outside = merged < 0
        if outside.any():
            raise InputError(f"mask: id {int(wide[outside][0])} is not in the tree (0 to {len(self) - 1})")
        return merged.astype(mask.dtype) if is_array else merged.to(mask.dtype)

    def fold(self, confusion: Any, level: int = -1) -> Any:
        """Leaf confusion matrix (..., C, C) → (..., n, n) of a level, by summing rows and columns; dtype stays."""
        at = self.level(level)
        if isinstance(confusion, np.ndarray):
            member = np.zeros((len(at.names), len(self)), confusion.dtype)
            member[list(at.table), range(len(self))] = 1
            return member @ confusion @ member.T
        rows = self._sum_nodes(confusion, at, confusion.dim() - 2)
        return self._sum_nodes(rows, at, confusion.dim() - 1)

    def marginals(self, probs: Any, level: int = -1, dim: int = 1) -> Any:
        """Leaf probabilities → node probabilities of a level, by summing over `dim`: (B, C, ...) → (B, n, ...).

        NumPy or torch; differentiable; exact in whatever precision `probs` has.
        """
        at = self.level(level)
        if at.table == tuple(range(len(self))):
            return probs
        return self._sum_nodes(probs, at, dim)

    def decode(self, logits: Any, how: str = "leaf", dim: int = 1, head: str = "leaves") -> Any:
        """A network's logits → uint8 leaf ids: `leaf`, `top_down` or `path`, as `fastseg.decoding.decode` says."""
        from fastseg.decoding import decode

        return decode(self, logits, how, dim, head)

    def colours(self, level: int = -1) -> np.ndarray:
        """(n, 3) uint8 RGB, one for each node of a level, as `node_colours` says; background is black."""
        from fastseg.palette import node_colours

        return node_colours(self, level)

    @staticmethod
    def _sum_nodes(values: Any, at: Level, dim: int) -> Any:
        # Sums of slices rather than index_add: deterministic on a GPU, untouched by autocast, and exports to ONNX.
        before = (slice(None),) * dim
        parts = [values[(*before, at.members(node))].sum(dim) for node in range(len(at.names))]
        return np.stack(parts, dim) if isinstance(values, np.ndarray) else _torch().stack(parts, dim).to(values.dtype)

    def _level(self, depth: int) -> Level:
        cut = [path[: depth + 1] for path in self._paths]
        nodes = list(dict.fromkeys(cut))
        return Level(tuple(node[-1] for node in nodes), tuple(nodes.index(path) for path in cut))

    def _pair(self, pair: Sequence[str]) -> tuple[int, int]:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"mirror: {pair!r} is not a pair of two leaf names")
        for name in pair:
            if name not in self.leaves:
                raise InputError(f"mirror: unknown leaf {name!r}; the tree has {', '.join(self.leaves)}")
        return self.leaves.index(pair[0]), self.leaves.index(pair[1])


def _walk(node: Any, path: tuple[str, ...], above: tuple[int, ...]) -> Iterable[tuple[tuple[str, ...], int]]:
    """(path of names, id) of every leaf, in the order of the mapping."""
    where = ".".join(path) or "hierarchy"
    if not isinstance(node, Mapping):
        raise InputError(f"hierarchy: {where!r} is not a mapping of names to ids or groups")
    if id(node) in above:
        raise InputError(f"hierarchy: {where!r} contains itself (a cycle in the YAML anchors)")
    if not node:
        raise InputError(f"hierarchy: group {where!r} is empty; give it leaves or remove it")
    for name, child in node.items():
        if not isinstance(name, str):
            raise InputError(f"hierarchy: name {name!r} under {where!r} is not text; put it in quotes")
        if isinstance(child, Mapping):
            yield from _walk(child, (*path, name), (*above, id(node)))
        elif isinstance(child, bool) or not isinstance(child, int):
            raise InputError(f"hierarchy: leaf {name!r} has {child!r} where its id (a whole number) should be")
        else:
            yield (*path, name), child


def _check_names(paths: Sequence[tuple[str, ...]]) -> None:
    seen: set[str] = set()
    for node in sorted({path[: i + 1] for path in paths for i in range(len(path))}):
        if node[-1] in seen:
            raise InputError(f"hierarchy: the name {node[-1]!r} stands twice in the tree; give each node its own")
        seen.add(node[-1])


def _by_id(found: Sequence[tuple[tuple[str, ...], int]]) -> list[tuple[str, ...]]:
    """Paths of the leaves in the order of their ids, which must be 0..n-1."""
    owner: dict[int, str] = {}
    for path, leaf in found:
        if leaf in owner:
            raise InputError(f"hierarchy: id {leaf} is given to both {owner[leaf]!r} and {path[-1]!r}")
        owner[leaf] = path[-1]
    for leaf, name in sorted(owner.items()):
        if not 0 <= leaf < IGNORE_INDEX:
            raise InputError(f"hierarchy: leaf {name!r} has id {leaf}; ids go from 0 to {IGNORE_INDEX - 1}")
    for leaf in range(len(found)):
        if leaf not in owner:
            above = min((i for i in owner if i > leaf), default=leaf)
            raise InputError(f"hierarchy: id {leaf} is missing below {owner[above]!r} ({above}); ids run 0, 1, 2, …")
    return [path for path, _ in sorted(found, key=lambda item: item[1])]


def _plain(node: Any) -> Any:
    return {name: _plain(child) for name, child in node.items()} if isinstance(node, Mapping) else node


def _torch() -> Any:
    import torch

    return torch

"""Label maps of other sets (PASCAL-Person-Part, LIP, CIHP, ATR, or one's own) → the folder layout, under any tree."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.data.conversion import Folders, Recipe, convert_files
from fastseg.data.files import read_mask
from fastseg.data.protocol import PROTOCOLS, find_yaml, read_yaml
from fastseg.data.summary import Summary
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

MAPPINGS = Path(__file__).parent / "mappings"
IGNORE = "ignore"
PROTOCOL_KEYS, MAPPING_KEYS = ("labels", "mirror", "hierarchy", "mapping"), ("hierarchy", "mirror", "labels")


@dataclass(frozen=True)
class LabelRules:
    """Which id of a label map becomes which leaf id (or 255) of a tree."""

    name: str
    labels: dict[int, str]  # id → published name
    tree: Hierarchy
    targets: dict[int, int]  # id → leaf id, or 255

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a mask."""
        content = ["labels", self.tree.leaves, sorted(self.targets.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def relabel(self, ids: np.ndarray) -> np.ndarray:
        """(H, W) uint8 published ids → (H, W) uint8 leaf ids; 255 stays 255. `InputError` for an id of no label."""
        table = np.full(256, -1, np.int16)
        table[list(self.targets)] = list(self.targets.values())
        table[IGNORE_INDEX] = IGNORE_INDEX
        leaves = table[ids]
        if (outside := leaves < 0).any():
            first, last = min(self.labels), max(self.labels)
            whole = last - first + 1 == len(self.labels)
            known = f"{first} to {last}" if whole else ", ".join(map(str, sorted(self.labels)))
            raise InputError(
                f"id {ids[outside].min()} is no label of {self.name} ({known}, or 255): another set's map?"
            )
        return leaves.astype(np.uint8)


def convert_labels(
    masks: Folders,
    images: Folders,
    out: str | Path,
    protocol: str | Path,
    mapping: str | Path | None = None,
    train_ids: str | Path | None = None,
    valid_ids: str | Path | None = None,
    valid_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Bring the label maps of one or several folders to the layout, under the protocol's own tree or a mapping's.

    `masks` hold `ID.png`, 8-bit grey or palette, whose raw values are published ids or 255; `images` hold `ID.jpg`,
    `.jpeg` or `.png`. `protocol` is `ppp`, `m2fp`, `lip`, `cihp`, `atr` or a `.yaml` file like theirs; `mapping` is
    `common` or a `.yaml` file (see `load_labels`). Written are `gt_masks/ID.png` (8-bit leaf ids), the photographs, the
    id lists, `classes.txt` and `tree.yaml`, which `load_config` takes. Maps of nothing but 255 are skipped; those of
    nothing but background stay, since scores over a published list count them. An id of no label makes a map a damaged
    file. The split, reruns, damaged files and errors are as `fastseg.data.conversion.convert_files` says.
    """
    rules = load_labels(protocol, mapping)
    read = partial(_relabelled, rules=rules)
    recipe = Recipe(rules.name, rules.tree.leaves, rules.digest, read, ".png", ".png", blank=None, tree=rules.tree)
    return convert_files(recipe, masks, images, out, train_ids, valid_ids, valid_fraction, seed, workers, progress)


def _relabelled(file: Path, rules: LabelRules) -> np.ndarray:
    return rules.relabel(read_mask(file))


def load_labels(protocol: str | Path, mapping: str | Path | None = None) -> LabelRules:
    """Read a protocol of label maps and a mapping onto another tree, by their names or from `.yaml` files.

    A protocol has `labels` (id: name), `mirror` (pairs of labels that a flip exchanges), and its own `hierarchy`, whose
    leaves are the labels' names or what its `mapping` (label: leaf) says. A mapping's file has a `hierarchy`, `labels`
    (label or id: leaf or `ignore`; or the same once for each protocol's name), and may have `mirror` (pairs of leaves;
    else they follow from the protocol's). Every label must be mapped. Raises `InputError` that names what is not right.
    """
    path = find_yaml(protocol, PROTOCOLS, "protocol")
    where = f"protocol {path}"
    content = read_yaml(path, "protocol")
    if isinstance(content, dict) and "classes" in content:
        raise InputError(f"{where} is for .mat files, not for label maps: use `convert`, or a protocol such as lip")
    _check_keys(content, PROTOCOL_KEYS, ("labels",), where)
    labels = _labels(content["labels"], where)
    pairs = _pairs(content.get("mirror"), where)
    for name in (name for pair in pairs for name in pair):
        _known(name, labels.values(), f"{where}, mirror: label")
    own, name, mirror = path.stem, path.stem, None
    if mapping is None:
        _check_keys(content, PROTOCOL_KEYS, ("labels", "hierarchy"), where)
        given = content.get("mapping") or {name: name for name in labels.values()}
    else:
        path = find_yaml(mapping, MAPPINGS, "mapping")
        where, name = f"mapping {path}", f"{own} to {path.stem}"
        content = read_yaml(path, "mapping")
        _check_keys(content, MAPPING_KEYS, ("hierarchy", "labels"), where)
        given = _own_part(content["labels"], own, where)
        mirror = None if content.get("mirror") is None else _pairs(content["mirror"], where)
    try:
        tree = Hierarchy(content["hierarchy"])
        targets = _targets(given, labels, tree, where)
        if mirror is None:
            mirror = _exchanged(pairs, labels, tree, targets)
        return LabelRules(name, labels, Hierarchy(tree.tree, mirror), targets)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _check_keys(content: Any, known: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must be a mapping with the keys {', '.join(needed)}")
    for key in content:
        _known(key, known, f"{where}: key")
    for key in needed:
        if not isinstance(content.get(key), Mapping):
            raise InputError(f"{where} must have `{key}:` with names and values under it")


def _labels(given: Mapping[Any, Any], where: str) -> dict[int, str]:
    for key, name in given.items():
        if type(key) is not int or not 0 <= key < IGNORE_INDEX or not isinstance(name, str):
            raise InputError(f"{where}, labels: {key!r}: {name!r} is not ID: NAME with an id from 0 to 254 and a text")
    if len(set(given.values())) < len(given):
        raise InputError(f"{where}, labels: two ids have one name; give each its own")
    return dict(given)


def _pairs(given: Any, where: str) -> list[tuple[str, str]]:
    pairs = [] if given is None else given
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError(f"{where}, mirror: must be a list of pairs, as [[left-arm, right-arm]]")
    return [tuple(pair) for pair in pairs]


def _own_part(given: Mapping[Any, Any], protocol: str, where: str) -> Mapping[Any, Any]:
    """The protocol's own part of `labels`, where these are given once for each protocol."""
    if not all(isinstance(part, Mapping) for part in given.values()):
        return given
    if protocol not in given:
        raise InputError(f"{where}, labels: nothing for protocol {protocol}, only for {', '.join(map(str, given))}")
    return given[protocol]


def _targets(given: Any, labels: dict[int, str], tree: Hierarchy, where: str) -> dict[int, int]:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}, mapping: must have LABEL: LEAF under it")
    if IGNORE in tree.leaves:
        raise InputError(f"{where}: no leaf can be called {IGNORE}, which stands for 255; give it another name")
    ids, targets = {name: i for i, name in labels.items()}, {}
    for key, leaf in given.items():
        label = labels.get(key) if type(key) is int else key
        if label is None:
            raise InputError(f"{where}: id {key} is no label's; they are {', '.join(map(str, labels))}")
        _known(label, ids, f"{where}: label")
        if ids[label] in targets:
            raise InputError(f"{where}: label '{label}' is mapped by its name and by its id {ids[label]}; keep one")
        _known(leaf, (*tree.leaves, IGNORE), f"{where}, {label}: leaf")
        targets[ids[label]] = IGNORE_INDEX if leaf == IGNORE else tree.leaves.index(leaf)
    for number, label in labels.items():
        if number not in targets:
            raise InputError(
                f"{where}: label '{label}' ({number}) is not mapped; write '{label}: LEAF' or '{label}: ignore'"
            )
    return targets


def _exchanged(
    pairs: list[tuple[str, str]], labels: dict[int, str], tree: Hierarchy, targets: dict[int, int]
) -> list[tuple[str, str]]:
    """The pairs of leaves that a flip exchanges, where a pair of labels becomes two leaves."""
    leaf = {label: targets[number] for number, label in labels.items()}
    found = {tuple(sorted((leaf[a], leaf[b]))) for a, b in pairs if leaf[a] != leaf[b]}
    for one, other in sorted(found):
        if other == IGNORE_INDEX:
            raise InputError(f"of left and right one is '{tree.leaves[one]}' and one is ignored; treat both alike")
    return [(tree.leaves[one], tree.leaves[other]) for one, other in sorted(found)]


def _known(word: Any, known: Iterable[str], what: str) -> None:
    """Raise `InputError`, with the nearest known word, for one that is not known."""
    known = list(known)
    if word in known:
        return
    if not isinstance(word, str):
        raise InputError(f"{what} {word!r} is not text; put it in quotes")
    near = difflib.get_close_matches(word, known, 1, 0.5)
    raise InputError(
        f"{what} '{word}' is unknown; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
    )

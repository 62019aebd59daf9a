"""Faults of the id lists, of the folders beside them, and of classes.txt: what needs no pixel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fastseg.data.checking.findings import ERROR, WARNING, Finding
from fastseg.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES, Files, JoinedFiles
from fastseg.hierarchy import BACKGROUND_NAMES, IGNORE_INDEX, Hierarchy
from fastseg.settings import Settings

Splits = Mapping[str, Sequence[str]]


def split_names(splits: Splits) -> dict[str, str]:
    """Id → 'train', 'valid' or 'train, valid'."""
    where: dict[str, str] = {}
    for split, names in splits.items():
        for name in dict.fromkeys(names):
            where[name] = f"{where[name]}, {split}" if name in where else split
    return where


def list_findings(files: Files | JoinedFiles, splits: Splits, cfg: Settings) -> Iterator[Finding]:
    """Faults of the lists themselves."""
    yield from classes_findings(files, cfg.classes())
    for split, names in splits.items():
        if not names:
            listed = cfg.data.train_ids if split == "train" else cfg.data.valid_ids
            yield Finding("empty id list", listed, f"{files.root / listed}: no ids; write one a line", split=split)
    yield from doubled(splits)
    same = set(splits["train"]) & set(splits["valid"])
    for name in dict.fromkeys(splits["valid"]):
        if name in same:
            yield Finding("same id in both splits", name, f"{name}: trained on and validated on; take it out of "
                          "one id list", split="train, valid")  # fmt: skip


def doubled(splits: Splits) -> Iterator[Finding]:
    """Ids that one list has more than once."""
    for split, names in splits.items():
        for name, times in Counter(names).items():
            if times > 1:
                use = "train" if split == "train" else "validate"
                said = f"{name}: stands {times} times in the list to {use} on; once is enough"
                yield Finding("duplicate id", name, said, split=split)


def files_not_read(files: Files | JoinedFiles, cfg: Settings) -> Iterator[Finding]:
    """Photographs and masks in the folders that nothing reads: their id is in no list, or another file has it, too."""
    for prefix, part in files.parts.items():
        known = {*part.ids(cfg.data.train_ids), *part.ids(cfg.data.valid_ids)}
        for folder, suffixes, kind in ((part.images, IMAGE_SUFFIXES, "photograph without id"),
                                       (part.masks, MASK_SUFFIXES, "mask without id")):  # fmt: skip
            top = part.root / folder
            # macOS leaves '._ID.jpg' beside unpacked files.
            found = (path for path in top.rglob("*") if path.suffix in suffixes and not path.name.startswith("."))
            first: dict[str, Path] = {}
            for path in sorted(found, key=lambda path: (path.with_suffix(""), suffixes.index(path.suffix))):
                name = path.relative_to(top).as_posix().removesuffix(path.suffix)
                if first.setdefault(name, path) != path:
                    said = f"{path}: beside {first[name].name}, which alone is read; take one away"
                    yield Finding("two files for one id", f"{prefix}/{name}" if prefix else name, said, path=str(path))
                    continue
                if name not in known:
                    name = f"{prefix}/{name}" if prefix else name
                    yield Finding(kind, name, f"{path}: in no id list", path=str(path))


def classes_findings(files: Files | JoinedFiles, tree: Hierarchy) -> Iterator[Finding]:
    """For each folder the first line of its classes.txt that says otherwise than the tree; no file, no quarrel.

    A leaf under another id is an error, a name that the tree does not know may be the same class by another name.
    """
    for part in files.parts.values():
        path = part.root / "classes.txt"
        quarrels = sorted(_quarrels(path, tree)) if path.is_file() else []
        if quarrels:
            severity, _, said = quarrels[0]
            yield Finding("classes.txt differs", path.name, f"{path}: {said}; take the hierarchy it was made for "
                          "(--config), or mend the file", severity=severity, path=str(path))  # fmt: skip


def _quarrels(path: Path, tree: Hierarchy) -> Iterator[tuple[str, int, str]]:
    """(severity, line number, what it says); errors sort before warnings."""
    leaves = [_plain(name) for name in tree.leaves]
    found: set[int] = set()
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)\s*[:=,;\s]\s*(.*)", line)
        leaf, name = (int(match[1]), match[2].strip()) if match else (len(found), line.strip())
        if leaf == IGNORE_INDEX:
            continue
        found.add(leaf)
        if leaf >= len(tree):
            yield ERROR, number, f"line {number} has class {leaf} ({name}), the hierarchy only 0 to {len(tree) - 1}"
        elif _plain(name) != leaves[leaf]:
            severity = ERROR if _plain(name) in leaves else WARNING
            yield severity, number, f"line {number} says {leaf} is {name}, the hierarchy says {tree.leaves[leaf]}"
    missing = [leaf for leaf in range(len(tree)) if leaf not in found]
    if missing and found:
        said = f"has no line for {missing[0]}, {tree.leaves[missing[0]]} in the hierarchy"
        yield WARNING, len(lines) + 1, said


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_-]+", "_", name.strip().strip("'\"").lower())
    return BACKGROUND_NAMES[0] if plain in BACKGROUND_NAMES else plain

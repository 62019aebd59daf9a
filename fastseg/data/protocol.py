"""Label protocols: which annotated part of which class becomes which leaf, read from YAML."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastseg.config import UniqueKeys
from fastseg.errors import InputError

PROTOCOLS = Path(__file__).parent / "protocols"


@dataclass(frozen=True)
class Protocol:
    """Which part of which class paints which leaf; parts of other classes paint 0, the background."""

    name: str
    leaves: tuple[str, ...]
    rules: dict[str, dict[str, int]]  # class → part → leaf id

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a mask: comments and order may change, rules may not."""
        return hashlib.sha256(json.dumps([self.leaves, self.rules], sort_keys=True).encode()).hexdigest()


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Read a protocol by its name (`person6`) or from a `.yaml` file; a bad one is an `InputError` that says why."""
    path = find_yaml(name_or_path, PROTOCOLS, "protocol")
    content = read_yaml(path, "protocol")
    if isinstance(content, dict) and "labels" in content:
        raise InputError(f"protocol {path.stem} is for label maps, not for .mat files: use `convert_labels`")
    try:
        ids, leaves = list(content["leaves"]), tuple(content["leaves"].values())
        lists = [(kind, leaf, parts) for kind, rules in content["classes"].items() for leaf, parts in rules.items()]
        words = [*leaves, *(word for kind, leaf, parts in lists for word in (kind, leaf, *parts))]
        if not all(isinstance(word, str) for word in words) or any(isinstance(parts, str) for *_, parts in lists):
            raise TypeError
    except (TypeError, KeyError, AttributeError):
        raise InputError(
            f"protocol {path} must have leaves: {{id: name}} and classes: {{class: {{leaf: [parts]}}}} as "
            f"person6.yaml has; put numbers and yes, no, on, off in quotes"
        ) from None
    if ids != list(range(len(ids))) or not 2 <= len(ids) <= 256 or len(set(leaves)) < len(leaves):
        raise InputError(f"protocol {path}: leaves need ids 0, 1, 2 … (0 the background) and names that differ")
    rules = {kind: {} for kind, *_ in lists}
    for kind, leaf, parts in lists:
        if leaf not in leaves:
            raise InputError(f"protocol {path}: class {kind} paints '{leaf}', not one of {', '.join(leaves)}")
        for part in parts:
            if part in rules[kind]:
                raise InputError(f"protocol {path}: class {kind} lists the part '{part}' twice: keep one")
            rules[kind][part] = leaves.index(leaf)
    return Protocol(path.stem, leaves, rules)


def find_yaml(name_or_path: str | Path, folder: Path, what: str) -> Path:
    """The file of a name in a folder of the package, or the `.yaml` file itself; `InputError` for an unknown name."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if str(name_or_path) not in known:
        near = difflib.get_close_matches(str(name_or_path), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown {what} '{name_or_path}': {hint}known are {', '.join(known)}, or give a .yaml file")
    return known[str(name_or_path)]


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file whose keys differ; nothing it names is run. `InputError` where it cannot be read."""
    try:
        return UniqueKeys(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {what} {path}: {' '.join(str(error).split())}") from None


def is_for_labels(name_or_path: str | Path) -> bool:
    """Whether a protocol is one of label maps (it has `labels`), not of Pascal-Part's `.mat` files."""
    content = read_yaml(find_yaml(name_or_path, PROTOCOLS, "protocol"), "protocol")
    return isinstance(content, dict) and "labels" in content

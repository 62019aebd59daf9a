"""Words of a command → photographs, each once and with a place for it among what is written."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastseg.data.files import IMAGE_SUFFIXES
from fastseg.errors import InputError

SUFFIXES = {suffix.lower() for suffix in IMAGE_SUFFIXES}


@dataclass(frozen=True)
class Found:
    """A photograph, and what files that are made of it are called by: where it is in the folder that was named."""

    path: Path
    name: PurePosixPath

    def names(self, owners: Mapping[str, Path]) -> Iterator[str]:
        """Names to choose from: where another photograph owns the first, with the suffix or the folders around it."""
        inner = self.name.with_suffix("")
        yield str(inner)
        owner = owners.get(str(inner).lower())
        if owner is not None and owner.parent == self.path.parent:
            yield str(self.name)
        around = self.path.parent.parts[1:]
        for count in range(len(inner.parts), len(around) + 1):
            yield str(PurePosixPath(*around[-count:], self.path.stem))
        for number in itertools.count(2):
            yield f"{inner}-{number}"


def find_photographs(words: Sequence[str | Path], out: Path | None = None) -> list[Found]:
    """Photographs by paths, folders (with all inside) and glob patterns, in order; what lies in `out` is left out.

    Raises `InputError` for a word that names nothing.
    """
    found: dict[Path, Found] = {}
    inside = out.resolve() if out else None
    for word in words:
        here = [one for one in _expand(word) if inside is None or inside not in one.path.parents]
        if not here:
            raise InputError(f"{word}: no photograph there ({', '.join(sorted(SUFFIXES))})")
        for one in here:
            found.setdefault(one.path, one)
    if not found:
        raise InputError("name photographs, folders of them, or patterns as 'holiday/*.jpg'")
    return list(found.values())


def _expand(word: str | Path) -> list[Found]:
    path = Path(word).expanduser()
    if path.is_file():
        return [_single(path)]
    if path.is_dir():
        root = path.resolve()
        inside = sorted(one for one in root.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
        return [Found(one, PurePosixPath(one.relative_to(root).as_posix())) for one in inside]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise InputError(f"{word}: no such file or folder, and no file fits it as a pattern")
    files = [one for one in map(Path, matches) if one.is_file() and one.suffix.lower() in SUFFIXES]
    return [*map(_single, files), *(one for match in matches if Path(match).is_dir() for one in _expand(match))]


def _single(path: Path) -> Found:
    # As a symbolic link is called, though what it points to is one photograph.
    path = path.parent.resolve() / path.name
    return Found(path, PurePosixPath(path.name))

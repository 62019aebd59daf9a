"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name to write a file under, which is `path` afterwards; an exception leaves nothing behind."""
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, flush: bool = False) -> None:
    """Write a file; with `flush` not before the disk has it, so that it is whole after a power cut, too."""
    with whole(path) as part, part.open("wb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented; NaN, which JSON does not have, is a ValueError."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def tidy(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in folder.glob("*.part*"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)

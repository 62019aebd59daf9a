"""Files of torch.export that hold numbers and known operators alone, so that reading one cannot run anything else.

`torch.export.load` by itself unpickles, evaluates expressions and executes the guards that a file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from fastseg.errors import InputError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPERATORS = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|getitem|[lg][te]|eq|ne)"
                       r"|torch\.sym_(max|min|int|float|sum)|torch\.sym_not")  # fmt: skip
# Sizes that follow from the input's, as sympy writes them.
EXPRESSION = re.compile(r"(Symbol|Integer|Add|Mul|Pow|FloorDiv|CleanDiv|CeilDiv|Mod|PythonMod|Max|Min"
                        r"|'[suz]\d+'|positive=True|integer=True|nonnegative=True|-?\d+|[(), ])*")  # fmt: skip
PROGRAM, SETTINGS = "models/model.json", ("weights/model_weights_config.json", "constants/model_constants_config.json")
PLAIN = ("data/weights/weight_", "data/constants/tensor_", "extra/", "archive_format", "archive_version",
         ".data/version", ".data/serialization_id", "byteorder", ".format_version", ".storage_alignment")  # fmt: skip


def save_program(program: ExportedProgram, path: Path, extra: dict[str, str]) -> None:
    """Write a program without example inputs, which would be pickled, and without guards, which would be executed."""
    from torch import export

    program.example_inputs = None
    program._guards_code = []
    with path.open("wb") as file:
        export.save(program, file, extra_files=extra)
    check_program(path)


def check_program(path: Path) -> None:
    """Raise `InputError` where a file holds more than `save_program` writes."""
    try:
        with ZipFile(path) as archive:
            _check_parts(archive, path)
    except (BadZipFile, OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as a file of torch.export ({str(error)[:120]})") from None


def _check_parts(archive: ZipFile, path: Path) -> None:
    programs, sizes = [], {part.filename.partition("/")[2]: part.file_size for part in archive.infolist()}
    for name, size in sizes.items():
        if name == PROGRAM:
            programs.append(name)
        elif name == "data/sample_inputs/model.pt" and size == 0:
            continue
        elif not name.startswith(PLAIN) and not name.endswith(SETTINGS):
            raise _refused(path, name)
    if len(programs) != 1 or len(sizes) != len(archive.namelist()):
        raise _refused(path, "other than one program")
    top = archive.namelist()[0].partition("/")[0]
    program = json.loads(archive.read(f"{top}/{PROGRAM}"))
    if program.get("guards_code"):
        raise _refused(path, "guards")
    for key, value in _entries(program):
        if key == "target" and isinstance(value, str) and not OPERATORS.fullmatch(value):
            raise _refused(path, f"the operator {value[:60]!r}")
        if key == "expr_str" and not EXPRESSION.fullmatch(value):
            raise _refused(path, f"the expression {value[:60]!r}")
    for name in sizes:
        if name.endswith(SETTINGS):
            for key, value in _entries(json.loads(archive.read(f"{top}/{name}"))):
                if key == "use_pickle" and value:
                    raise _refused(path, "pickled tensors")


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{path}: holds {what}, which `fastseg export` does not write, and which is not run here")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings with its value."""
    todo = [value]
    while todo:
        here = todo.pop()
        if isinstance(here, dict):
            yield from here.items()
            todo += here.values()
        elif isinstance(here, list):
            todo += here

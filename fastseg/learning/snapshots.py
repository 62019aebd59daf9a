"""Checkpoints on disk: one safetensors file each, what is no tensor as JSON in its header, the last two kept."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastcore.foundation import L
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastseg.errors import InputError
from fastseg.writing import tidy, write_bytes

FORMAT, KEPT = "1", 2
# What stands in the JSON for a tensor, and for a mapping whose keys are no strings.
TENSOR, PAIRS = "<tensor>", "<pairs>"


@dataclass
class Snapshot:
    """A state as it was written: the file, its number among those of its run, what it holds, and what to say of it."""

    file: Path
    state: dict[str, Any]
    remark: str | None = None

    @property
    def number(self) -> int:
        """Its place in the row of checkpoints, from 1."""
        return int(self.file.stem)

    @property
    def epochs(self) -> int:
        """Epochs that were done, over all fits; 0 where no history was kept."""
        return len(self.state["callbacks"].get("history", {}).get("rows", ()))


def write_snapshot(folder: Path, number: int, state: Mapping[str, Any]) -> Path:
    """Write a state (mappings, lists, tensors and JSON's own kinds) and remove all but the one before; the file.

    Nothing is removed or replaced before the new file is whole on the disk. Raises OSError where there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(state, "", tensors))
    file = folder / f"{number:06d}.safetensors"
    header = {"format": FORMAT, "state": text, "crc32": _checksum(text, tensors)}
    write_bytes(file, save(tensors, metadata=header), flush=True)
    for old in _files(folder):
        if int(old.stem) <= number - KEPT:
            old.unlink(missing_ok=True)
    return file


def newest_snapshot(folder: Path) -> Snapshot | None:
    """The newest whole checkpoint of a folder; None where there is none at all.

    Where that is not the newest written, `remark` says so. Raises `InputError` where all are damaged.
    """
    damaged: list[str] = []
    numbers = {int(file.stem) for file in _files(folder)}
    for file in reversed(_files(folder)):
        try:
            state = _read(file)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{file}: damaged ({' '.join(str(error).split())[:80]})")
            continue
        number = int(file.stem)
        if damaged:
            return Snapshot(file, state, f"{damaged[0]}; going on from the one before, {file.name}")
        # Each is written before the one before the last is removed: alone, it has lost a newer one.
        lost = number > 1 and number - 1 not in numbers
        said = f"{folder / f'{number + 1:06d}.safetensors'}: missing; going on from the one before, {file.name}"
        return Snapshot(file, state, said if lost else None)
    if damaged:
        raise InputError(f"{damaged[0]}, and no other is whole; remove {folder} to begin this run anew")
    return None


def remove_above(folder: Path, number: int) -> None:
    """Remove checkpoints above a number, which are damaged, and what a killed process left half-written."""
    tidy(folder)
    for file in _files(folder):
        if int(file.stem) > number:
            file.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("*.safetensors") if file.stem.isdigit()), key=lambda f: int(f.stem))


def _read(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata() or {}
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  no mapping
    if header.get("format") != FORMAT:
        raise ValueError(f"format {header.get('format')}, this version reads {FORMAT}")
    if _checksum(header["state"], tensors) != header["crc32"]:
        raise ValueError("its checksum differs")
    return _unpack(json.loads(header["state"]), tensors)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    total = zlib.crc32(text.encode())
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].reshape(-1).view(torch.uint8).numpy(), total)
    return f"{total:08x}"


def _pack(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """The JSON of a value whose tensors go into `tensors`, under the way that leads to them."""
    if isinstance(value, Tensor):
        tensors[key] = value.detach().as_subclass(Tensor).to("cpu", copy=True).contiguous()
        return {TENSOR: key}
    if isinstance(value, Mapping):
        parts = [(own, _pack(part, f"{key}/{own}".lstrip("/"), tensors)) for own, part in value.items()]
        return dict(parts) if all(isinstance(own, str) for own in value) else {PAIRS: parts}
    if isinstance(value, (list, tuple, L)):
        return [_pack(part, f"{key}/{i}", tensors) for i, part in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    parts = value[PAIRS] if PAIRS in value else value.items()
    return {own: _unpack(part, tensors) for own, part in parts}

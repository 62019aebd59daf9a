"""A run folder: all that passes from learning to inference, written so that nothing is ever half there."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg.config import dump_config, load_config
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.settings import Settings
from fastseg.writing import write_bytes, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, MODEL, CONFIG, METRICS, HISTORY, LAST, LOG = (
    "model.safetensors", "model.json", "config.yaml", "metrics.json", "history.csv", "last", "log.txt")  # fmt: skip
TIMING, ENVIRONMENT, REPORT = "timing.csv", "environment.json", "report.html"
FORMAT = 1


def new_run_folder(out: str | Path, name: str) -> Path:
    """Make and return `out/<time>_<name>`, with a number behind it where that is taken."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}_{name}"
    for i in range(1, 1000):
        folder = Path(out).expanduser() / (stem if i == 1 else f"{stem}-{i}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise InputError(f"out: {folder.parent} is not a folder; name another") from None
        except OSError as error:
            raise InputError(f"out: cannot make {folder}: {error.strerror}; name a folder you may write to") from None
    raise InputError(f"out: {out} holds too many runs of this second")


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a network's state as safetensors under a temporary name, then rename it."""
    from safetensors.torch import save

    write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}))


def model_card(cfg: Settings, stats: tuple[Any, Any]) -> dict[str, Any]:
    """What `model.json` holds: all that rebuilds the network and feeds it rightly."""
    from fastseg import __version__

    return {
        "format": FORMAT,
        "fastseg": __version__,
        "model": cfg.model.model_dump(mode="json", exclude={"weights"}),
        "head": cfg.head,
        "classes": list(cfg.classes().leaves),
        "hierarchy": cfg.hierarchy,
        "mirror": cfg.mirror,
        "mean": [float(v) for v in stats[0]],
        "std": [float(v) for v in stats[1]],
        "size": list(cfg.data.size),
        "resize": cfg.data.resize,
    }


@dataclass(frozen=True)
class Run:
    """A finished run folder, read file by file when first asked. Raises `InputError` for what is missing or broken."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run folder that has a model in it."""
        run = cls(Path(path).expanduser())
        for name in (MODEL, WEIGHTS, CONFIG):
            if not (run.path / name).is_file():
                what = "no such folder" if not run.path.is_dir() else f"it has no {name}"
                raise InputError(f"{run.path}: not a finished run ({what}); give a folder that `fastseg train` made")
        return run

    @cached_property
    def cfg(self) -> Settings:
        """The complete configuration."""
        return load_config(self.path / CONFIG)

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """The content of `model.json`."""
        try:
            card = json.loads((self.path / MODEL).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self.path / MODEL}: not JSON ({error}); the run is damaged") from None
        if card.get("format") != FORMAT:
            raise InputError(f"{self.path / MODEL}: format {card.get('format')}, this version reads {FORMAT}")
        return card

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The class tree."""
        return Hierarchy(self.card["hierarchy"], self.card["mirror"])

    def weights(self) -> dict[str, Tensor]:
        """The network's state, on the CPU."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.path / WEIGHTS}: not readable as weights ({error}); the run is damaged") from None

    def write_config(self, cfg: Settings) -> None:
        """Write the complete configuration, paths made absolute, so that it repeats the run from anywhere."""
        write_text(self.path / CONFIG, dump_config(with_full_paths(cfg)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run; empty where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); the run is damaged") from None


def read_columns(path: Path) -> dict[str, list[float | None]]:
    """A CSV file's columns as numbers, None for what is none; empty where there is no such file, or no row."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {key: [_number(row[key]) for row in rows] for key in rows[0]} if rows else {}
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not a table of numbers ({error}); the run is damaged") from None


def _number(text: str | None) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


def with_full_paths(cfg: Settings) -> Settings:
    """A configuration whose paths hold from anywhere."""
    root, data = cfg.data.root, cfg.data
    if root is not None:
        full = [str(Path(one).expanduser().resolve()) for one in ([root] if isinstance(root, str) else root)]
        data = data.model_copy(update={"root": full[0] if isinstance(root, str) else full})
    model = (
        cfg.model
        if cfg.model.weights in ("imagenet", "none")
        else cfg.model.model_copy(update={"weights": str(Path(cfg.model.weights).expanduser().resolve())})
    )
    return cfg.model_copy(update={"data": data, "model": model})

"""Which run is to be gone on with, and whether what is asked for is still that run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.run import CONFIG, METRICS, with_full_paths
from fastseg.settings import Settings

# What may be other than before: where things lie and how they are read, which changes no number.
FREE = ("data.root", "data.workers", "data.cache", "track", "train.save_minutes", "search")


def run_config(run: str | Path, *overrides: str) -> tuple[Path, Settings]:
    """The folder of a run that training has begun, and its configuration under overrides.

    Raises `InputError` where there is no such run, and for overrides of what the run depends on.
    """
    run = Path(run).expanduser()
    if not (run / CONFIG).is_file():
        what = f"it has no {CONFIG}" if run.is_dir() else "no such folder"
        raise InputError(f"{run}: no run to go on with ({what}); give a folder that `fastseg train` made")
    cfg = load_config(run / CONFIG, *overrides)
    check_same(run, cfg)
    return run, cfg


def check_same(run: Path, cfg: Settings) -> None:
    """Raise `InputError` where a configuration is not that of a run, but for keys that change no number."""
    own = dict(_flat(load_config(run / CONFIG).model_dump(mode="json")))
    new = dict(_flat(with_full_paths(cfg).model_dump(mode="json")))
    for key in [*new, *(key for key in own if key not in new)]:
        if own.get(key) != new.get(key) and not key.startswith(FREE):
            raise InputError(
                f"{key}: {run} was begun with {own.get(key)}, not {new.get(key)}, and goes on with it; leave that "
                f"out, or begin another run (only {', '.join(FREE)} may change)"
            )


def is_finished(run: Path) -> bool:
    """Whether a run has scores that were not written because it was stopped."""
    try:
        scores = json.loads((run / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(scores, dict) and not scores.get("interrupted")


def _flat(values: Mapping[str, Any], way: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and f"{way}{key}" != "hierarchy":
            yield from _flat(value, f"{way}{key}.")
        else:
            yield f"{way}{key}", value

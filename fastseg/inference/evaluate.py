"""Scores of a finished run on a dataset: by name of split, protocol, definition and decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastseg.config import load_config
from fastseg.data.check import quick_check
from fastseg.data.files import Files, JoinedFiles, dataset_files, read_ids
from fastseg.data.frames import Framing
from fastseg.data.pictures import read_image
from fastseg.errors import InputError
from fastseg.inference.passes import count, photograph_batches, predicted
from fastseg.inference.plan import Plan
from fastseg.inference.scores import Counts, summary
from fastseg.inference.stored import SCORES, count_marks, read_counts, write_counts
from fastseg.learning.metrics import DEFINITIONS
from fastseg.learning.model import place, trained_model
from fastseg.plots import confusion_figure, results_figure, save_figure
from fastseg.run import WEIGHTS, Run
from fastseg.settings import Settings
from fastseg.writing import write_json

SPLITS = ("valid", "train")
# Settings of a run that another dataset may need otherwise.
CHANGEABLE = tuple(
    f"data.{key}" for key in ("root", "images", "masks", "train_ids", "valid_ids", "limit", "limit_valid", "workers")
)
Progress = Callable[[int, int], None]


def evaluate(
    run: str | Path | Run,
    root: str | Path | None = None,
    split: str | Path = "valid",
    progress: Progress | None = None,
    *,
    protocol: str = "native",
    definition: str = "dataset",
    decode: str = "leaf",
    tta: str | None = None,
    boundary: bool = False,
    overrides: Sequence[str] = (),
    write: bool = True,
) -> dict[str, Any]:
    """Scores of a finished run, as `fastseg.inference.scores.summary` lists them.

    `root` takes the place of the run's own data, `overrides` ("data.limit_valid=100") of its other settings of data;
    `split` is `valid`, `train` or a file of ids. `protocol`: at the photographs' own size (`native`) or the network's
    (`resized`, as in the epoch table). `definition` as in `LevelIoU`, `decode` as in `Hierarchy.decode`; `tta` averages
    over flips and scales (`flip,0.75,1,1.25`); `boundary` adds the boundary IoU. With `write`, they also go into the
    run's folder, as `scores/<split>-<protocol>-<definition>-<decode>[-tta].json` with pictures of the confusion and of
    the worst photographs. Raises `InputError` for what there is not, and for files that are missing or do not fit.
    """
    check_definition(definition)
    trial = Trial.of(run, root, split, protocol, decode, tta, overrides)
    folder = scores_folder(trial.run) if write else None
    counts = trial.count(boundary, progress)
    scores = summary(trial.run.hierarchy, counts, definition, trial.named)
    if folder is not None:
        stem = trial.stem(definition)
        write_counts(folder / trial.counts_file, counts, trial.marks)
        write_json(folder / f"{stem}.json", scores)
        save_figure(confusion_figure(counts.matrices.sum(0, dtype=np.int64), trial.run.hierarchy),
                    folder / f"{stem}-confusion.png")  # fmt: skip
        titles = {entry["id"]: f"{entry['id']}: {list(entry.values())[1]:.2f}" for entry in scores["worst"]}
        if titles:
            save_figure(results_figure(trial.rows(titles), trial.run.hierarchy), folder / f"{stem}-worst.png")
    return scores


@dataclass
class Trial:
    """A run that is to be counted on photographs."""

    run: Run
    cfg: Settings
    split: str
    files: Files | JoinedFiles
    names: list[str]
    plan: Plan

    @classmethod
    def of(cls, run: str | Path | Run, root: str | Path | None = None, split: str | Path = "valid",
           protocol: str = "native", decode: str = "leaf", tta: str | None = None,
           overrides: Sequence[str] = ()) -> Trial:  # fmt: skip
        """Look for everything, and at the headers of all files, before anything takes time."""
        run = run if isinstance(run, Run) else Run.open(run)
        plan = Plan.of_card(run.card, Framing, protocol, decode, tta)
        cfg = other_data(run.cfg, root, overrides)
        files, names = split_files(cfg, split)
        quick_check(cfg, files, [], names)
        return cls(run, cfg, str(split), files, names, plan)

    @cached_property
    def model(self) -> nn.Module:
        """The network."""
        return load_model(self.run)

    @property
    def stats(self) -> tuple[Sequence[float], Sequence[float]]:
        """(mean, std) that photographs are normalised by."""
        return self.run.card["mean"], self.run.card["std"]

    def stem(self, *more: str) -> str:
        """What files of scores are called by: the split, or its file's name, protocol, decoding, averaging."""
        words = [Path(self.split).name, self.plan.protocol, *more, self.plan.decode]
        return "-".join([*words, *(["tta"] if self.plan.tta else [])])

    @property
    def counts_file(self) -> str:
        """The file of counts in the folder of scores, whatever the definition."""
        return f"{self.stem()}.npz"

    @property
    def named(self) -> dict[str, Any]:
        """What scores are called by."""
        return named(self.plan, self.split, self.files)

    @cached_property
    def marks(self) -> dict[str, Any]:
        """What tells whether counts are still those of this run and these files."""
        return count_marks(self.named, self.cfg.data.masks, self.run.path / WEIGHTS)

    def count(self, boundary: bool = False, progress: Progress | None = None) -> Counts:
        """Count all photographs."""
        batches = photograph_batches(self.files, self.names, self.plan, self.stats, self.cfg)
        seen = (lambda done: progress(done, len(self.names))) if progress else None
        return count(self.model, self.plan, batches, self.names, boundary, seen)

    def stored(self) -> Counts | None:
        """What an earlier `evaluate` counted, where run and files are still the same."""
        counts = read_counts(self.run.path / SCORES / self.counts_file, self.marks)
        return counts if counts is not None and counts.names == self.names else None

    def rows(self, titles: dict[str, str]) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """(title, photograph, truth, prediction) of some ids, for `results_figure`."""
        return picture_rows(self.model, self.plan, self.files, titles, self.stats, self.cfg)


def picture_rows(model: nn.Module, plan: Plan, files: Files | JoinedFiles, titles: dict[str, str],
                 stats: tuple[Sequence[float], Sequence[float]],
                 cfg: Settings) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:  # fmt: skip
    """(title, photograph, truth, prediction) of the ids in `titles`, at the size that is scored."""
    batches = list(photograph_batches(files, list(titles), plan, stats, cfg))
    guesses = predicted(model, plan, batches)
    masks = [mask.numpy() for batch in batches for mask in batch.masks]
    shapes = [shape for batch in batches for shape in batch.shapes]
    rows = []
    for name, shape, truth, guess in zip(titles, shapes, masks, guesses, strict=True):
        image = read_image(files.image(name), tuple(shape)).resize(truth.shape[::-1])
        rows.append((titles[name], np.array(image), truth, guess))
    return rows


def named(plan: Plan, split: str, files: Files | JoinedFiles | None) -> dict[str, Any]:
    """What scores are called by: protocol, decoding, looks, split and folders."""
    folders = [] if files is None else [str(part.root.resolve()) for part in files.parts.values()]
    tta = str(plan.tta) if plan.tta else None
    return {"protocol": plan.protocol, "decode": plan.decode, "tta": tta, "split": split, "data": folders}


def check_definition(definition: str) -> None:
    """Raise `InputError` for a definition that there is not."""
    if definition not in DEFINITIONS:
        raise InputError(f"definition {definition!r} is none of {', '.join(DEFINITIONS)}")


def scores_folder(run: Run) -> Path:
    """The folder that scores go into, made where there is none yet."""
    folder = run.path / SCORES
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); copy the run to where you may write") from None
    return folder


def other_data(cfg: Settings, root: str | Path | None, overrides: Sequence[str] = ()) -> Settings:
    """A configuration with another folder, without the limits on its own one, and with other settings of data."""
    if root is not None:
        # Not by an override, which would be read as YAML.
        change = {"root": str(root), "limit": None, "limit_valid": None}
        cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update=change)})
    for override in overrides:
        key = override.removeprefix("--").partition("=")[0].strip()
        if key not in CHANGEABLE:
            raise InputError(f"{key}: is the run's own; of its settings {', '.join(CHANGEABLE)} can be given here")
    return load_config(cfg.model_dump(mode="json"), *overrides) if overrides else cfg


def load_model(run: Run) -> nn.Module:
    """The network of a run with its trained weights, in evaluation mode, on the CPU or the CUDA device if there is."""
    return place(trained_model(run), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def split_files(cfg: Settings, split: str | Path) -> tuple[Files | JoinedFiles, list[str]]:
    """Where a configuration's photographs lie, and the ids of one of its splits, or of a file."""
    files = dataset_files(cfg)
    if str(split) in SPLITS:
        listed = cfg.data.valid_ids if split == "valid" else cfg.data.train_ids
        names = files.ids(listed, cfg.data.limit_valid if split == "valid" else cfg.data.limit)
        where = files.root / listed
    else:
        where = Path(split).expanduser()
        if not where.is_file():
            raise InputError(f"split {str(split)!r} is neither {' nor '.join(SPLITS)}, nor a file of ids")
        names = read_ids(where)
    if not names:
        raise InputError(f"{where}: no ids to score")
    return files, names

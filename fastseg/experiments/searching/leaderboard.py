"""All trials of a search in the order of their scores, and the best of them as a configuration."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fastseg.config import dump_config
from fastseg.experiments.searching.space import apply, label, trial_settings
from fastseg.experiments.searching.study import REASON, RETRIES, UNUSED, is_lost, root
from fastseg.experiments.searching.trials import ABOUT, FACTS, SAME
from fastseg.run import with_full_paths
from fastseg.settings import Settings
from fastseg.writing import write_rows, write_text

LEADERBOARD, BEST = "leaderboard.csv", "best.yaml"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
          TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A trial: its stage, its number there, how it ended, and what is known of it.

    `score` is that of the kept epoch; for a pruned trial, which has none, `last` is that of its last epoch.
    """

    stage: str
    number: int
    state: str
    score: float | None
    reason: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)
    label: str = ""
    picks: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    seconds: float | None = None

    @property
    def last(self) -> float | None:
        """The score, or that of the last epoch; None for none, and for what is no number."""
        found = self.score if self.score is not None else self.scores[max(self.scores)] if self.scores else None
        return found if found is not None and math.isfinite(found) else None


def entries(study: Study, stage: str) -> list[Entry]:
    """A study's trials in the order of their numbers; each once, though its process died and it was begun anew."""
    found = {}
    for trial in study.get_trials(deepcopy=False):
        if not {UNUSED, SAME} & set(trial.user_attrs) and not is_lost(trial):
            found[root(trial)] = _entry(trial, stage)
    return [found[number] for number in sorted(found)]


def _entry(trial: FrozenTrial, stage: str) -> Entry:
    known, state, about = trial.user_attrs, STATES[trial.state], trial.user_attrs.get(ABOUT, {})
    reason = known.get(REASON, "")
    if state == "failed" and not reason:
        reason = f"its process died {RETRIES + 1} times"
    spent = trial.duration.total_seconds() if trial.duration else None
    value = trial.value if state == "complete" else None
    return Entry(stage, root(trial), state, value, reason, trial.intermediate_values, about.get("label", ""),
                 about.get("picks", {}), known.get(FACTS, {}), about.get("run", ""), spent)  # fmt: skip


def ranked(found: Sequence[Entry]) -> list[Entry]:
    """The best first; then those that were pruned, by their last score; then the others as they came."""
    order = ("complete", "pruned")

    def place(entry: Entry) -> tuple[int, float]:
        rank = order.index(entry.state) if entry.state in order else len(order)
        return rank, -(entry.last if entry.last is not None and rank < len(order) else 0)

    return sorted(found, key=place)


def comparable(cfg: Settings, found: Sequence[Entry]) -> list[Entry]:
    """The complete trials, best first, of the last stage that has any and of those with as many epochs and photographs.

    A stage that trains longer is not compared with one that trains less.
    """
    complete = [entry for entry in ranked(found) if entry.state == "complete"]
    for stage in reversed(cfg.search.stages):
        if any(entry.stage == stage.name for entry in complete):
            alike = {s.name for s in cfg.search.stages if (s.epochs, s.limit) == (stage.epochs, stage.limit)}
            return [entry for entry in complete if entry.stage in alike]
    return []


def write_leaderboard(folder: Path, cfg: Settings, found: Sequence[Entry], metric: str) -> None:
    """Write leaderboard.csv, a row a trial."""
    rows = list(_rows(cfg, ranked(found), metric))
    if rows:
        write_rows(folder / LEADERBOARD, rows)


def read_leaderboard(folder: Path) -> list[dict[str, str]]:
    """The rows of leaderboard.csv."""
    with (folder / LEADERBOARD).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rows(cfg: Settings, found: Sequence[Entry], metric: str) -> Iterator[dict[str, Any]]:
    levels = [f"miou{level}" for level in range(cfg.classes().depth)]
    for rank, entry in enumerate(found, 1):
        facts, native = entry.facts, entry.facts.get("native", {})
        yield {
            "rank": rank if entry.state == "complete" else "",
            "stage": entry.stage,
            "trial": entry.number,
            "state": entry.state,
            metric: "" if entry.last is None else entry.last,
            "reason": entry.reason,
            "epochs": max(entry.scores, default=0),
            **{key: label(entry.picks[key]) if key in entry.picks else "" for key in cfg.search.space},
            **{f"native {level}": native.get(level, "") for level in levels},
            "parameters": facts.get("parameters", ""),
            "photographs_per_second": facts.get("photographs_per_second", ""),
            "peak_memory_mib": facts.get("peak_memory_mib", ""),
            "training_seconds": facts.get("seconds", ""),
            "run_seconds": facts.get("run_seconds", ""),
            "seconds": "" if entry.seconds is None else round(entry.seconds, 1),
            "run": entry.run,
        }


def settings_of(cfg: Settings, entry: Entry, metric: str) -> Settings:
    """The configuration that a trial ran with."""
    names = [stage.name for stage in cfg.search.stages]
    return apply(trial_settings(cfg, names.index(entry.stage), metric), entry.picks)


def write_best(folder: Path, cfg: Settings, best: Entry, metric: str) -> None:
    """Write best.yaml, which repeats the best trial."""
    chosen = settings_of(cfg, best, metric)
    chosen = with_full_paths(chosen.model_copy(update={"name": f"{cfg.name}-best"}))
    head = (f"# {best.label}: {metric} {best.score!r} in trial {best.number} of {best.stage}.\n"
            f"# It repeats that trial, as few epochs and photographs: fastseg train --config {BEST}\n")  # fmt: skip
    write_text(folder / BEST, head + dump_config(chosen))


def finished_settings(cfg: Settings, best: Entry, metric: str) -> Settings:
    """The winner's settings on all the data, with the schedule of the configuration."""
    chosen = settings_of(cfg, best, metric)
    own = {key: getattr(cfg.train, key) for key in ("epochs", "frozen_epochs", "patience")}
    data = chosen.data.model_copy(update={"limit": cfg.data.limit})
    return chosen.model_copy(update={"train": chosen.train.model_copy(update=own), "data": data, "live": cfg.live})

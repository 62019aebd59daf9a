"""The stages of a search, one after another: trials as long as there are any to begin, and what is said of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from fastseg.errors import InputError
from fastseg.experiments.searching.leaderboard import (
    Entry,
    comparable,
    entries,
    ranked,
    write_best,
    write_leaderboard,
)
from fastseg.experiments.searching.page import write_page
from fastseg.experiments.searching.space import apply, grid, parameters
from fastseg.experiments.searching.study import counted, open_storage, open_study, revive
from fastseg.experiments.searching.trials import Candidate, Objective, TrialFailed, digest
from fastseg.settings import Settings

TRIALS = "trials"
PAGE_SHARE = 0.01  # of the time, at most, goes into drawing the page meanwhile
POLL = 1.0  # seconds between looks at what other workers do


class Stages:
    """A search that runs. `found` are its trials so far, of all stages."""

    def __init__(self, cfg: Settings, folder: Path, metric: str):
        self.cfg, self.folder, self.metric = cfg, folder, metric
        self.storage = open_storage(cfg, folder)
        self.studies: list[Study] = []
        self.grids = self._grids()
        self.best: Entry | None = None
        self.page_due, self.said = time.monotonic(), set()

    @property
    def found(self) -> list[Entry]:
        """All trials so far."""
        pairs = zip(self.studies, self.cfg.search.stages, strict=False)
        return [entry for study, stage in pairs for entry in entries(study, stage.name)]

    def run(self) -> None:
        """Run stage after stage, until the budget is spent; KeyboardInterrupt leaves all in order."""
        for i, stage in enumerate(self.cfg.search.stages):
            candidates = self._candidates(i)
            ready = {"candidates": [[c.label, c.picks] for c in candidates]}
            study = open_study(self.cfg, stage, self.storage, self.grids[i], ready)
            self.studies.append(study)
            self._pass_over(i, study)
            wanted = parameters(self.cfg.search.space, self.cfg.search.stage_keys(i))
            candidates = [Candidate(*pair) for pair in study.user_attrs["candidates"]]
            most = self._most(i)
            objective = Objective(self.cfg, i, study, wanted, candidates, self.folder / TRIALS, self.metric, most)
            try:
                self._run_stage(study, objective, most)
            except KeyboardInterrupt:
                revive(study)
                self._write()
                print("stopped; the same command goes on with it", file=sys.stderr, flush=True)
                raise
            if self._out_of_hours():
                return

    def _run_stage(self, study: Study, objective: Objective, most: int | None) -> None:
        while True:
            revive(study)
            trials = study.get_trials(deepcopy=False)
            states = [trial.state for trial in trials]
            if self._out_of_hours():
                return
            queued, endless = TrialState.WAITING in states, most is None and not self.grids[objective.stage]
            if queued or endless or (most is not None and len(counted(trials)) < most):
                self._one_trial(study, objective)
            elif TrialState.RUNNING in states:
                # Of another worker; should that die, its trial is ours.
                time.sleep(POLL)
            else:
                return

    def _one_trial(self, study: Study, objective: Objective) -> None:
        number = len(study.get_trials(deepcopy=False))
        try:
            study.optimize(objective, n_trials=1, catch=(TrialFailed,))
        except ValueError as error:
            # While this process slept (a suspended machine), another took its trial for dead and began it anew.
            if "Cannot tell" not in str(error):
                raise
            print(f"a trial was taken over by another worker ({number} so far)", file=sys.stderr, flush=True)
        self._say()
        self._write()

    def _candidates(self, i: int) -> list[Candidate]:
        if i == 0:
            return []
        before = self.cfg.search.stages[i - 1]
        best = [entry for entry in ranked(self.found) if entry.stage == before.name and entry.state == "complete"]
        if not best:
            self._fail()
        return [Candidate(entry.label, dict(entry.picks)) for entry in best[: self.cfg.search.stages[i].best]]

    def _most(self, i: int) -> int | None:
        """How many trials a stage has: a grid's combinations, its own number, or what the others leave."""
        own, budget = self.cfg.search.stages[i], self.cfg.search.budget.trials
        if own.sampler == "grid":
            return None
        if own.trials is not None or budget is None:
            return own.trials
        others = sum(len(counted(study.get_trials(deepcopy=False))) for study in self.studies[:i])
        others += sum(stage.trials or 0 for stage in self.cfg.search.stages[i + 1 :])
        others += sum(map(len, self.grids[i + 1 :]))
        return max(budget - others, 0)

    def _grids(self) -> list[list[dict[str, Any]]]:
        """Optuna's parameters of each stage's grid, those of equal settings once; none for a stage without."""
        found = []
        for i, stage in enumerate(self.cfg.search.stages):
            wanted = parameters(self.cfg.search.space, self.cfg.search.stage_keys(i))
            unique: dict[str, dict[str, Any]] = {}
            for params, picks in grid(wanted) if stage.sampler == "grid" else ():
                unique.setdefault(digest(apply(self.cfg, picks)), params)
            found.append(list(unique.values()))
        total, budget = sum(map(len, found)), self.cfg.search.budget.trials
        if budget is not None and total > budget:
            raise InputError(f"search.budget.trials: {budget}, but the grid alone has {total} combinations; raise it, "
                             "or take choices out of search.space")  # fmt: skip
        return found

    def _spent(self) -> float:
        return sum(entry.seconds or 0 for entry in self.found)

    def _out_of_hours(self) -> bool:
        hours = self.cfg.search.budget.hours
        return hours is not None and self._spent() >= 3600 * hours

    def _say(self) -> None:
        """A line for each trial that ended since the last, with the best so far and the time left."""
        found = self.found
        for entry in found:
            key = (entry.stage, entry.number)
            if entry.state in ("running", "waiting") or key in self.said:
                continue
            self.said.add(key)
            score = "" if entry.last is None else f" {self.metric} {entry.last:.3f}"
            what = {"complete": "", "pruned": " pruned"}.get(entry.state, f" failed ({entry.reason[:120]})")
            spent = f" in {entry.seconds:.0f} s" if entry.seconds else ""
            print(f"{entry.stage} {entry.number}: {entry.label or '–'}:{what}{score}{spent}{self._outlook(found)}",
                  file=sys.stderr, flush=True)  # fmt: skip

    def _pass_over(self, i: int, study: Study) -> None:
        """Of trials that ended before this process began, say no more than how many there are."""
        stage = self.cfg.search.stages[i].name
        ended = [entry for entry in entries(study, stage) if entry.state not in ("running", "waiting")]
        self.said |= {(entry.stage, entry.number) for entry in ended}
        if ended:
            print(f"{stage}: going on after {len(ended)} trials", file=sys.stderr, flush=True)

    def _outlook(self, found: Sequence[Entry]) -> str:
        best = comparable(self.cfg, found)
        words = f"; best {best[0].score:.3f} ({best[0].stage} {best[0].number})" if best else ""
        done = [entry.seconds for entry in found if entry.state in ("complete", "pruned") and entry.seconds]
        left = self._trials_left(found)
        at_work = max(1, sum(entry.state == "running" for entry in found))
        seconds = left * fmean(done) / at_work if done and left is not None else None
        if hours := self.cfg.search.budget.hours:
            seconds = min(seconds if seconds is not None else 3600 * hours, 3600 * hours - self._spent())
        if not seconds or seconds < 0:
            return words
        return f"{words}; {f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min'} left"

    def _trials_left(self, found: Sequence[Entry]) -> int | None:
        """Of all stages, as far as their numbers are known."""
        total = self.cfg.search.budget.trials
        if total is None or all(s.sampler == "grid" or s.trials is not None for s in self.cfg.search.stages):
            total = sum(map(len, self.grids)) + sum(s.trials or 0 for s in self.cfg.search.stages)
        return max(0, total - sum(entry.state not in ("running", "waiting") for entry in found))

    def _write(self) -> None:
        found = self.found
        write_leaderboard(self.folder, self.cfg, found, self.metric)
        if best := comparable(self.cfg, found):
            if best[0] != self.best:
                write_best(self.folder, self.cfg, best[0], self.metric)
                self.best = best[0]
            if time.monotonic() >= self.page_due:
                started = time.monotonic()
                write_page(self.folder, self.cfg, found, self.studies, self.metric)
                self.page_due = time.monotonic() + (time.monotonic() - started) / PAGE_SHARE

    def conclude(self) -> Entry:
        """Write everything once more; returns the winner. Raises `InputError` where no trial came to its end."""
        if not comparable(self.cfg, self.found):
            self._fail()
        self.page_due = time.monotonic()
        self._write()
        return comparable(self.cfg, self.found)[0]

    def _fail(self) -> None:
        found = self.found
        write_leaderboard(self.folder, self.cfg, found, self.metric)
        reasons = [entry.reason for entry in found if entry.reason]
        raise InputError(f"search: no trial came to its end ({len(found)} were begun)"
                         + (f"; the first failed because: {reasons[0]}" if reasons else ""))  # fmt: skip

"""One trial: what is picked for it, its run folder, the epochs it may train, and what is noted of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from fastseg.errors import InputError
from fastseg.experiments.searching.facts import strip
from fastseg.experiments.searching.jobs import JobFailed, JobPruned, run_job
from fastseg.experiments.searching.space import (
    RATE,
    Parameter,
    Picks,
    apply,
    centred,
    describe,
    suggest,
    trial_settings,
    with_rate,
)
from fastseg.experiments.searching.study import OWNER, REASON, UNUSED, counted, owner, root
from fastseg.settings import Settings

# User attributes of a trial: what it is (picks, label, run folder, a digest of its settings), what its run folder
# tells, and the number of an earlier trial of the same settings.
ABOUT, FACTS, SAME = "about", "facts", "same as"


class TrialFailed(Exception):
    """A trial has no score, for a reason that is noted."""


@dataclass(frozen=True)
class Candidate:
    """What a stage goes on with: picks of the stage before, and their description."""

    label: str
    picks: Picks


@dataclass(frozen=True)
class Objective:
    """Gives Optuna the score of a stage's trial, which it trains in a run folder under `folder`.

    `most` is how many trials the stage has; what is asked for beyond that (by two workers at once) is left alone.
    """

    cfg: Settings
    stage: int
    study: Study
    wanted: Sequence[Parameter]
    candidates: Sequence[Candidate]
    folder: Path
    metric: str
    most: int | None = None

    def __call__(self, trial: Trial) -> float:
        """Train it; raises `TrialFailed` or optuna.TrialPruned."""
        try:
            return self._score(trial)
        except (InputError, JobFailed) as error:
            trial.set_user_attr(REASON, str(error) or "without a word")
            raise TrialFailed(str(error)) from None

    def _score(self, trial: Trial) -> float:
        others = self.study.get_trials(deepcopy=False)
        own = others[trial.number]
        if self._in_vain(own, others):
            trial.set_user_attr(UNUSED, True)
            raise TrialFailed("asked for in vain")
        trial.set_user_attr(OWNER, owner())
        picks = self._picks(trial)
        cfg = self._settings(picks)
        picks = {key: _value(cfg, key) if key == RATE else value for key, value in picks.items()}
        run = self.folder / f"{self.cfg.search.stages[self.stage].name}-{root(own):03d}"
        about = {"picks": picks, "label": describe(picks), "run": str(run.resolve()), "settings": digest(cfg)}
        trial.set_user_attr(ABOUT, about)
        if (twin := _twin(trial.number, about["settings"], others)) is not None:
            trial.set_user_attr(SAME, twin.number)
            if twin.state == TrialState.PRUNED:
                raise optuna.TrialPruned
            return twin.value
        return self._train(trial, cfg.model_copy(update={"name": run.name}), run, set(own.intermediate_values))

    def _train(self, trial: Trial, cfg: Settings, run: Path, known: set[int]) -> float:
        def goes_on(epoch: int, score: float) -> bool:
            if not math.isfinite(score):
                raise JobFailed(f"{self.metric} is {score} after epoch {epoch}")
            if epoch not in known:
                trial.report(score, epoch)
            return epoch == cfg.train.epochs or not trial.should_prune()

        try:
            facts = run_job("train", cfg, run, goes_on, metric=self.metric, group=self.cfg.name,
                            memory=self.cfg.search.memory)  # fmt: skip
        except JobPruned as pruned:
            trial.set_user_attr(FACTS, pruned.facts)
            strip(run)
            raise optuna.TrialPruned from None
        except JobFailed:
            strip(run)
            raise
        strip(run, weights=False)
        trial.set_user_attr(FACTS, facts)
        return facts["value"]

    def _in_vain(self, own: FrozenTrial, others: Sequence[FrozenTrial]) -> bool:
        before = [trial for trial in counted(others) if trial.number < own.number]
        if "failed_trial" in own.system_attrs:
            return any(root(trial) == root(own) for trial in before)
        queued = own.system_attrs.get("fixed_params")
        if self.cfg.search.stages[self.stage].sampler == "grid":
            return queued is None or any(trial.system_attrs.get("fixed_params") == queued for trial in before)
        return self.most is not None and len(before) >= self.most

    def _picks(self, trial: Trial) -> Picks:
        """What the trial picks, beginning with one of the best of the stage before."""
        before: Picks = {}
        if self.candidates:
            names = [candidate.label for candidate in self.candidates]
            name = self.cfg.search.stages[self.stage - 1].name
            chosen = trial.suggest_categorical(name, names) if len(names) > 1 else names[0]
            before = self.candidates[names.index(chosen)].picks
        return suggest(trial, self.wanted, before)

    def _settings(self, picks: Picks) -> Settings:
        cfg = trial_settings(self.cfg, self.stage, self.metric)
        if not any(one.key == RATE and centred(one.span) and one.asked(picks) for one in self.wanted):
            return apply(cfg, picks)
        factor = picks[RATE]
        cfg = apply(cfg, {key: value for key, value in picks.items() if key != RATE})
        return with_rate(cfg, factor * self._centre(cfg, picks))

    def _centre(self, cfg: Settings, picks: Picks) -> float:
        """What lr_find says for a network, loss and optimiser, asked once in a study."""
        settings = (key for key in picks if key.startswith(("model", "loss")) or key == "train.optimizer")
        name = f"lr_find: {describe({key: picks[key] for key in settings})}"
        if name not in self.study.user_attrs:
            self.study.set_user_attr(name, run_job("rate", self._as_configured(cfg)))
        return self.study.user_attrs[name]

    def _as_configured(self, cfg: Settings) -> Settings:
        """With the batches and augmentation of the configuration, so that it matters not which trial asks first."""
        own = self.cfg.train
        train = cfg.train.model_copy(update={"batch_size": own.batch_size, "weight_decay": own.weight_decay})
        return cfg.model_copy(update={"train": train, "augment": self.cfg.augment})


def _value(cfg: Settings, key: str) -> Any:
    here: Any = cfg.model_dump(mode="json")
    for part in key.split("."):
        here = here[part]
    return here


def digest(cfg: Settings) -> str:
    """A word for settings, the same for equal ones."""
    return hashlib.sha256(cfg.model_dump_json(exclude={"name", "search"}).encode()).hexdigest()[:16]


def _twin(number: int, settings: str, others: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """An earlier trial of equal settings that has a result."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    found = (t for t in others if t.number < number and t.state in done and SAME not in t.user_attrs
             and t.user_attrs.get(ABOUT, {}).get("settings") == settings)  # fmt: skip
    return next(found, None)

"""Optuna's side of a search: storage, a study for each stage, its sampler and pruner, and trials that were lost."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fastseg.errors import InputError
from fastseg.search_settings import StageSettings
from fastseg.settings import Settings

STUDY = "study.db"
GRACE = 3  # heartbeats that may fail to come
RETRIES = 10  # of a trial whose process died
REDUCTION = 2  # one of so many trials goes on: halving, as its name says
SETTLING = 20.0  # seconds for another worker to fill a study's queue
# What a worker, or a search that goes on, may have otherwise.
FREE = ("search.budget", "search.storage", "search.heartbeat", "search.memory", "data.root", "data.workers",
        "data.cache", "out", "track", "live", "train.epochs", "train.frozen_epochs", "train.patience")  # fmt: skip
# User attributes of a trial.
REASON, UNUSED, OWNER = "reason", "unused", "owner"


def open_storage(cfg: Settings, folder: Path) -> BaseStorage:
    """The storage of a configuration; SQLite in the search's folder where it names none.

    Raises `InputError` where it cannot be reached, or its driver is missing.
    """
    place = cfg.search.storage or f"sqlite:///{folder.resolve() / STUDY}"
    if place.endswith(".journal"):
        from optuna.storages.journal import JournalFileBackend

        file = Path(place.removeprefix("journal:")).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(file)))
    for patience in (0.5, 1, 2, 4, None):
        try:
            return _connect(place, cfg.search.heartbeat)
        except ImportError as error:
            driver = "psycopg2-binary" if "postgres" in place else "the database's driver"
            raise InputError(f"search.storage: {_line(error)}; pip install {driver}") from None
        except Exception as error:
            # Two workers that begin at once both make the tables, and one of them fails.
            if patience is None:
                raise InputError(f"search.storage: {_line(error)}") from None
            time.sleep(patience)
    raise AssertionError


def _connect(place: str, heartbeat: int) -> BaseStorage:
    if place.startswith("redis"):
        return optuna.storages.get_storage(place)
    arguments = {"connect_args": {"timeout": 100}} if place.startswith("sqlite") else {"pool_pre_ping": True}
    return RDBStorage(place, engine_kwargs=arguments, heartbeat_interval=heartbeat, grace_period=GRACE * heartbeat,
                      heartbeat_stale_trial_callback=retry())  # fmt: skip


def retry() -> Any:
    """Optuna's own callback that puts a trial whose process died back into the queue."""
    return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)


def study_name(cfg: Settings, stage: StageSettings) -> str:
    """The name of a stage's study in the storage."""
    return f"{cfg.name}-{stage.name}"


def open_study(cfg: Settings, stage: StageSettings, storage: BaseStorage, queue: Sequence[Mapping[str, Any]],
               ready: Mapping[str, Any]) -> Study:  # fmt: skip
    """The study of a stage; who makes it fills its queue, once, and notes what belongs to it.

    Raises `InputError` where the search was begun with other settings.
    """
    name = study_name(cfg, stage)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=pruner(stage, cfg))
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner(stage, cfg))
        _wait_until_ready(study)
    if not study.user_attrs.get("ready"):
        for params in queue:
            study.enqueue_trial(dict(params), skip_if_exists=True)
        for key, value in {**ready, "settings": flat(cfg), "ready": True}.items():
            study.set_user_attr(key, value)
    _check_same(cfg, name, study.user_attrs["settings"])
    study.sampler = _sampler(stage, cfg, study)
    return study


def _wait_until_ready(study: Study) -> None:
    """Wait while whoever made the study fills its queue; not where it was killed meanwhile."""
    seen, since = -1, time.monotonic()
    while not study.user_attrs.get("ready") and time.monotonic() - since < SETTLING:
        count = len(study.get_trials(deepcopy=False))
        if count != seen:
            seen, since = count, time.monotonic()
        time.sleep(0.5)


def flat(cfg: Settings) -> dict[str, Any]:
    """The settings by their dotted keys, as they are compared; not those that may differ."""
    return dict(_walk(cfg.model_dump(mode="json"), ""))


def _walk(values: Mapping[str, Any], way: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        place = f"{way}{key}"
        if place.startswith(FREE):
            continue
        if isinstance(value, dict) and value and place not in ("hierarchy", "search.space"):
            yield from _walk(value, f"{place}.")
        else:
            yield place, value


def _check_same(cfg: Settings, name: str, before: Mapping[str, Any]) -> None:
    now, before = flat(cfg), {key: value for key, value in before.items() if not key.startswith(FREE)}
    for key in [*now, *(key for key in before if key not in now)]:
        if now.get(key) != before.get(key):
            raise InputError(f"{key}: the search {name} was begun with {before.get(key)}, not {now.get(key)}; leave "
                             "that out, or give another name or out")  # fmt: skip


def _sampler(stage: StageSettings, cfg: Settings, study: Study) -> BaseSampler:
    """The stage's sampler. Seeded anew by each process, it would draw its first trials again, hence the counts."""
    seed = cfg.train.seed + len(study.get_trials(deepcopy=False)) + worker_number(study)
    if stage.sampler == "grid":
        return RandomSampler(seed)
    total = stage.trials or cfg.search.budget.trials or 40
    return TPESampler(seed=seed, n_startup_trials=min(10, max(3, total // 4)), constant_liar=True)


def worker_number(study: Study) -> int:
    """How many processes have worked on a study before this one."""
    own = f"worker {uuid.uuid4().hex[:12]}"
    study.set_user_attr(own, [time.time(), *owner()])
    begun = sorted((value[0], key) for key, value in study.user_attrs.items() if key.startswith("worker "))
    return [key for _, key in begun].index(own)


def pruner(stage: StageSettings, cfg: Settings) -> BasePruner:
    """The stage's pruner; a step is an epoch."""
    epochs = stage.epochs or cfg.search.epochs
    if stage.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if stage.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(epochs, 1), reduction_factor=REDUCTION)
    return MedianPruner(n_startup_trials=4) if stage.pruner == "median" else NopPruner()


def revive(study: Study) -> None:
    """Fail the trials of dead processes and put them, and those that a stopped process left, back into the queue.

    By heartbeat, which a journal file does not have; of this machine's processes it is seen at once.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if _is_dead(trial.user_attrs.get(OWNER)):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
    for trial in trials:
        if is_lost(trial) and trial.number not in retried:
            retry()(study, trial)


def owner() -> list[Any]:
    """Who this process is: host, boot, process namespace (a container has its own), number."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return [socket.gethostname(), boot.read_text().strip() if boot.is_file() else "",
            os.readlink(space) if space.is_symlink() else "", os.getpid()]  # fmt: skip


def _is_dead(who: Sequence[Any] | None) -> bool:
    """Whether a process is known to be no more; of another machine nothing is known."""
    here = owner()
    if who is None or who[0] != here[0] or os.name == "nt":
        return False
    if who[1] != here[1]:
        return True
    if who[2] != here[2]:
        return False
    try:
        os.kill(who[3], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial ended without a result, because its process did, and is to be tried again."""
    again = len(trial.system_attrs.get("retry_history", [])) < RETRIES
    return again and trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: each once, however often its process died, and none that was asked for in vain."""
    return [trial for trial in trials if UNUSED not in trial.user_attrs and not is_lost(trial)]


def root(trial: FrozenTrial) -> int:
    """The number that a trial had before its process died."""
    return trial.system_attrs.get("failed_trial", trial.number)


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]

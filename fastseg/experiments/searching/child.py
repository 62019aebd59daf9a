"""What happens in the process of its own that each trial is trained in.

A trial that crashes, or that the system kills for its memory, then takes nothing else with it, and what it held of
memory and of a GPU is free again when it ends. The processes are forked from one that has loaded the packages.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback
from filelock import FileLock, Timeout

from fastseg.config import load_config
from fastseg.data.loaders import seg_dataloaders
from fastseg.errors import InputError
from fastseg.experiments.searching.facts import facts_of, size_and_speed
from fastseg.experiments.train import train
from fastseg.learning.learner import peak_rate
from fastseg.learning.trackers import Tracker, check_trackers
from fastseg.run import LOG, Run
from fastseg.settings import Settings

GIB = 1 << 30
PATIENCE = 30.0  # seconds for another process to leave a run folder alone
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


class Pruned(BaseException):
    """The search has no hope in this trial; no Exception, which would be a fault of the training."""

    def __init__(self, said: str, facts: dict[str, Any]):
        super().__init__(said)
        self.facts = facts


class AskAfterEpochs(Callback):
    """Tells each epoch's score, once its checkpoint is written, and ends the training where the answer is no."""

    order = 1002  # after Checkpoint

    def __init__(self, there: Connection, metric: str):
        self.there, self.metric, self.told = there, metric, 0

    def before_fit(self) -> None:
        """Tell what an earlier process may not have told."""
        self._tell()

    def after_epoch(self) -> None:
        """Tell an epoch."""
        if self.learn.history.added:
            self._tell()

    def _tell(self) -> None:
        for row in self.learn.history.rows[self.told :]:
            self.told = row["epoch"]
            self.there.send(("epoch", row["epoch"], float(row[self.metric])))
            if not self.there.recv():
                self._finish_trackers(row)
                raise Pruned(f"pruned after epoch {row['epoch']}", self._facts())

    def _facts(self) -> dict[str, Any]:
        loaders, seconds = self.learn.dls, self.learn.history.seconds
        parameters = sum(p.numel() for p in self.learn.model.parameters())
        return size_and_speed(parameters, [loaders.train.n, loaders.valid.n], seconds)

    def _finish_trackers(self, row: Mapping[str, Any]) -> None:
        scores = {"pixel_accuracy": None, "classes": {}, **row}
        for cb in self.learn.cbs:
            if isinstance(cb, Tracker):
                cb.finish(scores)


def serve(there: Connection, job: str, values: Mapping[str, Any], run: str | None, options: Mapping[str, Any]) -> None:
    """Do a job for the search and send what came of it: ("done", result), ("pruned", facts) or ("failed", reason)."""
    _settle(options)
    cfg, started = load_config(values), time.monotonic()
    try:
        if job == "train":
            answer = _train(there, cfg, Path(run), options["metric"])
            answer["run_seconds"] = round(time.monotonic() - started, 2)
        else:
            answer = {"rate": _rate, "prepare": _prepare}[job](cfg)
        there.send(("done", answer))
    except Pruned as pruned:
        there.send(("pruned", {**pruned.facts, "run_seconds": round(time.monotonic() - started, 2)}))
    except (KeyboardInterrupt, SystemExit):
        there.send(("stopped",))
    except BaseException as error:
        if run is not None:
            _note(Path(run))
        there.send(("failed", reason(error)))
    there.close()
    if job != "prepare":
        # All is written; to take torch down in order would keep the search waiting for nothing.
        os._exit(0)


def _settle(options: Mapping[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(options["environment"])
    if "group" in options:
        os.environ.setdefault("WANDB_RUN_GROUP", options["group"])
    # Ctrl-C in a terminal is for the search, which tells this process to stop.
    if hasattr(os, "setsid"):
        os.setsid()
    if options.get("silent"):
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
    parent = parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if sys.platform == "linux":
        # Where memory runs out, the system should end this process rather than the search.
        Path("/proc/self/oom_score_adj").write_text("1000")
        _limit_memory(options.get("memory"))


def _limit_memory(gib: float | None) -> None:
    if gib is None:
        return
    import resource

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = int(status["VmData"].split()[0]) * 1024
    most = own + int(gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _train(there: Connection, cfg: Settings, run: Path, metric: str) -> dict[str, Any]:
    run.mkdir(parents=True, exist_ok=True)
    try:
        # Of a search that was just killed, a process may still be on its way out.
        with FileLock(run / ".lock", timeout=PATIENCE):
            if not (run / "config.yaml").is_file():
                Run(run).write_config(cfg)
            train(cfg, run, cbs=[AskAfterEpochs(there, metric)])
            return facts_of(run, metric)
    except Timeout:
        raise InputError(f"{run}: another process is at work in it") from None


def _rate(cfg: Settings) -> float:
    """What lr_find says."""
    asking = cfg.model_copy(update={"train": cfg.train.model_copy(update={"lr": "auto", "encoder_lr": None})})
    return float(peak_rate(asking, seg_dataloaders(asking)))


def _prepare(cfg: Settings) -> None:
    """Draw the sample, fill the cache and find what is wrong with data and trackers, before any trial."""
    check_trackers(cfg)
    seg_dataloaders(cfg)


def reason(error: BaseException) -> str:
    """Why a trial failed, in a line."""
    said = " ".join(str(error).split())
    lost = isinstance(error, MemoryError) or any(words in said.lower() for words in MEMORY_WORDS)
    if isinstance(error, InputError):
        return said
    return f"{'out of memory: ' if lost else ''}{type(error).__name__}: {said[:300]}".rstrip(": ")


def _note(run: Path) -> None:
    try:
        with (run / LOG).open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
    except OSError:
        return

"""A run: the schedule of a configuration, its best weights, and the folder that all else starts from."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback
from fastai.learner import Learner
from fastcore.imports import IN_NOTEBOOK
from fastcore.xtras import ContextManagers

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.experiments.environment import environment
from fastseg.experiments.examples import write_examples
from fastseg.experiments.prepare import monitored_column, rate_to_reach, resumable_learner, watchers
from fastseg.experiments.report import report
from fastseg.experiments.resume import check_same, is_finished, run_config
from fastseg.experiments.run_log import RunLog
from fastseg.experiments.scoring import score_learner
from fastseg.inference.stored import keep_counts
from fastseg.learning.callbacks import print_line
from fastseg.learning.checkpoint import Checkpoint
from fastseg.learning.deterministic import deterministic
from fastseg.learning.learner import normalisation
from fastseg.learning.precision import limits_explained
from fastseg.learning.schedules import fit
from fastseg.learning.trackers import check_trackers, finish_trackers
from fastseg.plots import curves_figure, results_figure, save_figure
from fastseg.run import (
    CONFIG,
    ENVIRONMENT,
    HISTORY,
    LAST,
    LOG,
    METRICS,
    MODEL,
    TIMING,
    WEIGHTS,
    Run,
    model_card,
    new_run_folder,
    write_weights,
)
from fastseg.settings import Settings
from fastseg.writing import tidy, write_json, write_rows


def train(
    cfg: Settings | None = None, resume: str | Path | None = None, cbs: Sequence[Callback] = ()
) -> Path:
    """Train as configured and write a run folder; returns it.

    With `resume`, go on with that run, where it was cut off (on a CPU to the bit), under its own configuration; a `cfg`
    given beside it may differ in where data lie and how they are read. A finished run is returned as it is. `cbs` are
    added to our own callbacks.

    Everything that can be wrong before the first step raises `InputError` before the folder is made; a file that turns
    out bad later raises it and the folder stays. Ctrl-C and SIGTERM stop after the batch; once the best weights so far
    are written as a run (whose `metrics.json` says `interrupted`), KeyboardInterrupt or SystemExit is raised.
    """
    if resume is None:
        return _train(load_config() if cfg is None else cfg, None, cbs)
    run, own = run_config(resume)
    if cfg is not None:
        check_same(run, cfg)
    if is_finished(run):
        print_line(f"{run}: finished already, nothing to go on with")
        return run
    return _train(own if cfg is None else cfg, run, cbs)


def _train(cfg: Settings, run: Path | None, cbs: Sequence[Callback]) -> Path:
    check_trackers(cfg)
    with RunLog() as log, deterministic(cfg.train.deterministic):
        checkpoint = None
        if run is not None:
            log.open(run / LOG)
            checkpoint = Checkpoint(run, cfg.train.save_minutes, resume=True)
        learn = resumable_learner(cfg, known=checkpoint is not None and checkpoint.found is not None)
        learn.trained_by = "train"
        monitor = monitored_column(learn)
        noted = checkpoint.notes.get("rate") if checkpoint else None
        rate = rate_to_reach(cfg, learn) if noted is None else slice(*noted) if isinstance(noted, list) else noted
        if run is None:
            run = new_run_folder(cfg.out, cfg.name)
            log.open(run / LOG)
            checkpoint = Checkpoint(run, cfg.train.save_minutes)
        checkpoint.notes["rate"] = [rate.start, rate.stop] if isinstance(rate, slice) else rate
        tidy(run)
        Run(run).write_config(cfg)
        learn.history.file = run / HISTORY
        learn.add_cbs([checkpoint, *watchers(cfg, run, monitor, log), *cbs])
        _say_start(learn, run)
        return _fit_and_save(learn, rate, run)


def _say_start(learn: Learner, run: Path) -> None:
    settings, found = learn.cfg.train, learn.checkpoint.found
    total = settings.frozen_epochs + settings.epochs
    what = f"{len(learn.dls.train_ds)} photographs, {total} epochs"
    if learn.checkpoint.resume:
        at = "no checkpoint yet, from the beginning" if found is None else f"from epoch {found.epochs + 1}"
        batch = found and found.state["position"]["batch"]
        what += f", going on {at}" + (f", after batch {batch}" if batch else "")
    print_line(f"training on {learn.dls.device}: {what} → {run}")


def _fit_and_save(learn: Learner, rate: float | slice, run: Path) -> Path:
    stop, settings = learn.stop_on_signal, learn.cfg.train
    again = f"train(resume={str(run)!r})" if IN_NOTEBOOK else f"fastseg train --resume {shlex.quote(str(run))}"
    quiet = () if IN_NOTEBOOK else (learn.no_bar(), learn.no_logging())
    try:
        with ContextManagers([limits_explained(learn.cfg), stop.listening(), *quiet]):
            _fit(learn, rate)
    except KeyboardInterrupt:
        stop.asked = stop.asked or signal.SIGINT
        learn("after_fit")
    except Exception:
        # A signal to all processes of a job also ends workers, about which torch raises an error wherever this one is.
        if stop.asked is None:
            if learn.checkpoint.number:
                print_line(f"go on, once that is mended, with: {again}")
            raise
        learn("after_fit")
    done = len(learn.history.rows)
    if learn.stop_on_non_finite.found:
        raise InputError(
            f"train.lr: the loss became infinite or NaN in epoch {done + 1}; lower it ({run} is unfinished)"
        )
    if stop.asked is None or done == settings.frozen_epochs + settings.epochs:
        return _save_kept(learn, run, {})
    try:
        if done:
            print_line(f"stopped in epoch {done + 1}; scoring the weights so far (Ctrl-C leaves that out)")
            _save_kept(learn, run, {"interrupted": True})
        else:
            print_line("stopped before the first epoch was over, so there are no weights to keep yet")
    finally:
        print_line(f"go on with: {again}")
    raise KeyboardInterrupt if stop.asked == signal.SIGINT else SystemExit(128 + stop.asked)


def _fit(learn: Learner, rate: float | slice) -> None:
    settings = learn.cfg.train
    if settings.frozen_epochs:
        learn.freeze()
        highest = rate.stop if isinstance(rate, slice) else rate
        fit(learn, settings.frozen_epochs, highest, settings.schedule, settings.warmup)
        learn.unfreeze()
    if settings.epochs:
        fit(learn, settings.epochs, rate, settings.schedule, settings.warmup)


def _save_kept(learn: Learner, run: Path, marks: Mapping[str, Any]) -> Path:
    if learn.cfg.train.keep == "best":
        learn.model.load_state_dict(Run(run).weights())
    return save_run(learn, run, marks)


def save_run(learn: Learner, path: str | Path, marks: Mapping[str, Any] | None = None) -> Path:
    """Write the run folder of a Learner that `seg_learner` made, with its weights as they are; returns the folder.

    The scores are those of the valid split at native size; a learner with DataLoaders of its own is scored on these, at
    the network's size. `marks` go into metrics.json, too. Raises `InputError` for a folder that holds something else.
    """
    run = Path(path).expanduser()
    if not hasattr(learn, "cfg"):
        raise InputError("save_run: this Learner has no cfg; make it with seg_learner")
    if run.is_dir() and {file.name for file in run.iterdir()} - {LAST} and not (run / CONFIG).is_file():
        raise InputError(f"{run}: not empty, and not a run; name another folder")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run}: cannot be made ({error.strerror}); name another folder") from None
    cfg, model = learn.cfg, learn.model
    best = getattr(learn, "keep_best", None)
    keep = "last" if best is None else "best"
    Run(run).write_config(cfg.model_copy(update={"train": cfg.train.model_copy(update={"keep": keep})}))
    write_weights(run / WEIGHTS, model)
    card = model_card(cfg, normalisation(learn.dls))
    write_json(run / MODEL, card)
    scored = score_learner(learn, card)
    kept = len(learn.history.rows) if best is None else best.kept
    leaks = getattr(learn.dls, "leaks", [])
    # The word itself, so that nobody takes such scores for honest ones.
    words = {"keep": keep, "epoch": kept, **({"leak": leaks} if leaks else {}), **(marks or {})}
    if history := learn.history.rows:
        write_rows(run / HISTORY, history)
        write_rows(
            run / TIMING,
            [
                {"epoch": r["epoch"], "seconds": round(s, 2)}
                for r, s in zip(history, learn.history.seconds, strict=True)
            ],
        )
        columns = {key: [row[key] for row in history] for key in history[0]}
        save_figure(curves_figure(columns, cfg.classes(), kept if best is not None else None), run / "curves.png")
    save_figure(results_figure(scored.rows, cfg.classes()), run / "results.png")
    keep_counts(Run(run), scored.scores, scored.counts)
    write_examples(run, scored.examples)
    write_json(run / ENVIRONMENT, environment(learn))
    # After all that it stands for: a run that has it is taken for finished.
    write_json(run / METRICS, {**scored.scores, **words})
    finish_trackers(learn, scored.scores)
    report(run)
    return run

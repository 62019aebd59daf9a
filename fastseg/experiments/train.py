"""A run: the schedule of a configuration, its best weights, and the folder that all else starts from."""

from __future__ import annotations

import sys
from pathlib import Path

from fastai.callback.tracker import TerminateOnNaNCallback
from fastai.learner import Learner
from fastcore.imports import IN_NOTEBOOK

from fastseg.errors import InputError
from fastseg.experiments.environment import environment
from fastseg.experiments.examples import write_examples
from fastseg.experiments.report import report
from fastseg.experiments.scoring import score_learner
from fastseg.inference.stored import keep_counts
from fastseg.learning.callbacks import EpochLines, KeepBest
from fastseg.learning.learner import normalisation, peak_rate, seg_learner
from fastseg.learning.live import LiveView
from fastseg.learning.schedules import fit
from fastseg.learning.trackers import check_trackers, finish_trackers, trackers
from fastseg.plots import curves_figure, results_figure, save_figure
from fastseg.run import (
    CONFIG,
    ENVIRONMENT,
    HISTORY,
    METRICS,
    MODEL,
    TIMING,
    WEIGHTS,
    Run,
    model_card,
    new_run_folder,
    write_json,
    write_rows,
    write_weights,
)
from fastseg.settings import Settings


def train(cfg: Settings) -> Path:
    """Train as configured and write a run folder; returns it.

    Everything that can be wrong before the first step raises `InputError` before the folder is made; a file that turns
    out bad later raises it and the folder stays.
    """
    check_trackers(cfg)
    learn = seg_learner(cfg, cbs=TerminateOnNaNCallback())
    if cfg.train.lr == "auto":
        _say("train.lr: auto; asking lr_find")
    learn.trained_by = "train"
    rate = peak_rate(cfg, learn.dls)
    if cfg.train.lr == "auto":
        _say(f"train.lr: {rate.stop if isinstance(rate, slice) else rate:.1e}")
    run = new_run_folder(cfg.out, cfg.name)
    Run(run).write_config(cfg)
    learn.history.file = run / HISTORY
    total = cfg.train.frozen_epochs + cfg.train.epochs
    deepest = f"miou{cfg.classes().depth - 1}"
    if cfg.train.keep == "best":
        learn.add_cb(KeepBest(run / WEIGHTS, deepest))
    learn.add_cbs(trackers(cfg, run))
    if IN_NOTEBOOK:
        learn.add_cb(LiveView(cfg.live))
        _fit(learn, rate)
    else:
        learn.add_cb(EpochLines(total))
        _say(f"training on {learn.dls.device}: {len(learn.dls.train_ds)} photographs, {total} epochs → {run}")
        with learn.no_bar(), learn.no_logging():
            _fit(learn, rate)
    if (done := len(learn.history.rows)) < total:
        raise InputError(
            f"train.lr: the loss became infinite or NaN in epoch {done + 1}; lower it ({run} is unfinished)"
        )
    if cfg.train.keep == "best":
        learn.model.load_state_dict(Run(run).weights())
    return save_run(learn, run)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fit(learn: Learner, rate: float | slice) -> None:
    settings = learn.cfg.train
    if settings.frozen_epochs:
        learn.freeze()
        highest = rate.stop if isinstance(rate, slice) else rate
        fit(learn, settings.frozen_epochs, highest, settings.schedule, settings.warmup)
        learn.unfreeze()
    if settings.epochs:
        fit(learn, settings.epochs, rate, settings.schedule, settings.warmup)


def save_run(learn: Learner, path: str | Path) -> Path:
    """Write the run folder of a Learner that `seg_learner` made, with its weights as they are; returns the folder.

    The scores are those of the valid split at native size; a learner with DataLoaders of its own is scored on these, at
    the network's size. Raises `InputError` for a folder that holds something else.
    """
    run = Path(path).expanduser()
    if not hasattr(learn, "cfg"):
        raise InputError("save_run: this Learner has no cfg; make it with seg_learner")
    if run.is_dir() and any(run.iterdir()) and not (run / CONFIG).is_file():
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
    write_json(run / METRICS, {**scored.scores, "keep": keep, "epoch": kept, **({"leak": leaks} if leaks else {})})
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
    finish_trackers(learn, scored.scores)
    report(run)
    return run

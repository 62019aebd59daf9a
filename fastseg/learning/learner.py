"""`seg_learner`: the one place where data, network, loss, scores and callbacks meet."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from fastai.callback import schedule  # noqa: F401  gives Learner fit_one_cycle, fine_tune and lr_find
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastcore.basics import risinstance
from fastcore.foundation import L

from fastseg.data.loaders import seg_dataloaders, training_counts
from fastseg.learning.auxiliary import AuxiliaryLoss
from fastseg.learning.averaging import RawScore, WeightAverage
from fastseg.learning.callbacks import CountedRandomness, History
from fastseg.learning.encoders import encoder_stats
from fastseg.learning.losses import SumLoss, build_loss
from fastseg.learning.metrics import LevelIoU, LossPart
from fastseg.learning.model import create_model, place, seg_splitter
from fastseg.learning.optimizers import OPTIMIZERS
from fastseg.learning.precision import HalfPrecision, chosen_precision
from fastseg.settings import Settings


def seg_learner(
    cfg: Settings, dls: DataLoaders | None = None, metrics: Any = None, cbs: Any = None, **kwargs: Any
) -> Learner:
    """A fastai `Learner` for a configuration, on the device fastai detects; `cfg` stays on it as `learn.cfg`.

    `dls` takes the place of the configured data; normalisation with the encoder's statistics is added where they have
    none, as `vision_learner` does. `metrics` and `cbs` are added to our own; further arguments go to `Learner` and take
    the place of what the configuration says. Raises `InputError` for data and weights that are missing or do not fit.
    """
    tree = cfg.classes()
    dls = seg_dataloaders(cfg) if dls is None else dls
    precision = chosen_precision(cfg.train, dls.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.train.seed)
        model = place(create_model(cfg.model, tree.channels(cfg.head)), dls.device, cfg.train.channels_last)
    if cfg.train.compile:
        # In place: names of weights stay as they are.
        model.compile()
    _add_normalisation(dls, cfg.model.encoder)
    counted = any(loss.counted for loss in cfg.loss)
    loss = kwargs.pop("loss_func", None) or build_loss(cfg, training_counts(cfg, dls) if counted else None)
    parts = [LossPart(name) for name in loss.parts] if isinstance(loss, SumLoss) and len(loss.parts) > 1 else []
    own = {
        "loss_func": loss,
        "opt_func": OPTIMIZERS[cfg.train.optimizer],
        "splitter": seg_splitter,
        "wd": cfg.train.weight_decay,
        "path": cfg.out,
    }
    raw = [RawScore(LevelIoU(tree, head=cfg.head))] if cfg.train.ema else []
    metrics = [*LevelIoU(tree, head=cfg.head), *parts, *(score.column() for score in raw), *L(metrics)]
    cbs = [CountedRandomness(cfg.train.seed), History(), *_ingredients(cfg, precision), *raw, *L(cbs)]
    learn = Learner(dls, model, metrics=metrics, cbs=cbs, **{**own, **kwargs})
    learn.cfg, learn.own_dls = cfg, getattr(dls, "settings", None) != (cfg.data, cfg.augment)
    return learn


def peak_rate(cfg: Settings, dls: DataLoaders) -> float | slice:
    """The peak learning rate of a configuration; `auto` asks `lr_find` on a throw-away learner."""
    rate = cfg.train.lr
    if rate == "auto":
        with tempfile.TemporaryDirectory() as folder:
            trial = seg_learner(cfg, dls, path=folder)
            with trial.no_bar(), trial.no_logging():
                rate = float(trial.lr_find(show_plot=False).valley)
    if isinstance(rate, tuple):
        return slice(*rate)
    return rate if cfg.train.encoder_lr is None else slice(rate * cfg.train.encoder_lr, rate)


def _ingredients(cfg: Settings, precision: str) -> list[Callback]:
    """What the configuration adds to plain training."""
    settings = cfg.train
    chosen = [
        (cfg.model.auxiliary, lambda: AuxiliaryLoss(cfg.classes(), cfg.model.auxiliary, cfg.head)),
        (precision != "fp32", lambda: HalfPrecision(precision)),
        (settings.ema, lambda: WeightAverage(settings.ema)),
        (settings.clip, lambda: GradientClip(settings.clip)),
        (settings.accumulate > 1, lambda: GradientAccumulation(settings.accumulate * settings.batch_size)),
    ]
    return [make() for wanted, make in chosen if wanted]


def normalisation(dls: DataLoaders) -> tuple[list[float], list[float]]:
    """(mean, std) that the DataLoaders bring photographs in 0..1 by."""
    norm = dls.after_batch.fs.filter(risinstance(Normalize))[0]
    return norm.mean.flatten().tolist(), norm.std.flatten().tolist()


def _add_normalisation(dls: DataLoaders, encoder: str) -> None:
    if not dls.after_batch.fs.filter(risinstance(Normalize)):
        norm = Normalize.from_stats(*encoder_stats(encoder), cuda=False)
        norm.mean, norm.std = norm.mean.to(dls.device), norm.std.to(dls.device)
        dls.add_tfms([norm], "after_batch")

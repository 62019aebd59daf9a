"""Training that survives being cut off: the state of a learner, kept as it goes, and the way back into it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelEpochException, CancelFitException
from fastai.learner import Learner
from fastai.optimizer import Optimizer
from fastcore.foundation import L
from torch import Tensor

from fastseg.errors import InputError
from fastseg.learning.callbacks import print_line
from fastseg.learning.snapshots import Snapshot, newest_snapshot, remove_above, write_snapshot
from fastseg.run import LAST


class Checkpoint(Callback):
    """Keeps the state of training in RUN/last, after every epoch and within one every so many minutes.

    With `resume`, fits go on from the newest checkpoint of RUN where there is one, and start where there is none. So a
    notebook may hold these lines, and after a disconnect they are simply run again, from the first to the last:

        learn = seg_learner(cfg, cbs=Checkpoint("runs/mine", resume=True))
        learn.fit_one_cycle(10, 1e-3)

    Several fits are told apart by their order, so the same calls must follow; what is done of them is passed over
    without reading a photograph. On a CPU they end bit-equal to uninterrupted ones, as long as all that is random is
    `CountedRandomness`'s (as in `seg_learner` with our DataLoaders).

    Kept are weights, optimiser, gradients that are being accumulated, the position in the schedule, fastai's Recorder
    and gradient scaler, and what other callbacks give as `state_dict`; they get it back by `load_state_dict` after
    their `before_fit`. `minutes` None: after epochs only. `notes` are kept beside it, and found in `notes` again. Where
    the disk is full, a line says so and training goes on.

    Raises `InputError` for a folder of checkpoints that are not to be resumed, or that are all damaged, and, when a fit
    begins, for other epochs, batches or photographs than the checkpoint's.
    """

    # After all others: they have counted, written and said what belongs to a batch or an epoch.
    order = 1000

    def __init__(self, run: str | Path, minutes: float | None = 10.0, resume: bool = False,
                 notes: Mapping[str, Any] | None = None):  # fmt: skip
        self.keep_in, self.minutes, self.resume = Path(run).expanduser() / LAST, minutes, resume
        self.found = newest_snapshot(self.keep_in)
        if self.found and not resume:
            raise InputError(f"{self.keep_in}: checkpoints of an earlier training; go on with resume=True, or name "
                             "another run")  # fmt: skip
        self.notes = {**(self.found.state["notes"] if self.found else {}), **(notes or {})}
        self.fits, self.running, self.failing, self.asleep = 0, False, False, []
        self.number, self.first_epoch, self.first_batch = 0, 0, 0

    def before_fit(self) -> None:
        """Bring the state back if this is the fit it belongs to; pass over fits before that."""
        if self._aside():
            return
        if self.running and self.resume:
            self.found = newest_snapshot(self.keep_in)
        self.running, self.first_epoch, self.first_batch, self.saved = True, 0, 0, time.monotonic()
        if self.found is None:
            return
        position = self.found.state["position"]
        if self.fits < position["fit"]:
            raise CancelFitException
        self._check(self.found)
        if self.found.remark:
            print_line(self.found.remark)
        load_state(self.learn, self.found.state)
        self.number, self.first_epoch, self.first_batch = self.found.number, position["epoch"], position["batch"]
        remove_above(self.keep_in, self.number)
        self.share, self.found = position["pct_train"], None
        if self.first_epoch >= self.n_epoch:
            raise CancelFitException
        if self.first_epoch:
            # fastai's bar starts its clock at 0 alone.
            progress = vars(self.learn).get("progress")
            if progress is not None and getattr(progress, "mbar", None):
                progress.mbar.update(0)
            # For epochs that are not run, fastai would have all callbacks add empty rows.
            self.asleep = [(cb, cb.run) for cb in self.learn.cbs if cb is not self]
            for cb, _ in self.asleep:
                cb.run = False

    def before_epoch(self) -> None:
        """Pass over what is done."""
        if not self._aside() and self.epoch < self.first_epoch:
            raise CancelEpochException

    def before_train(self) -> None:
        """Leave out the batches that are done, without reading them."""
        if self._entering() and self.first_batch:
            loader = self.learn.dl
            loader.randomize()
            rest = loader.get_idxs()[self.first_batch * (loader.bs or 1) :]
            self.learn.dl = loader.new(get_idxs=_Constant(rest))
            self.learn.pct_train = self.share

    def before_batch(self) -> None:
        """Count the batches that were left out."""
        if self.training and self._entering():
            self.learn.iter += self.first_batch

    def after_batch(self) -> None:
        """Save, where it is time."""
        if not self.training or self.minutes is None or self._aside():
            return
        if time.monotonic() - self.saved >= 60 * self.minutes:
            self.save_within()

    def after_epoch(self) -> None:
        """Save, or wake the callbacks for the epoch that comes next."""
        if self._aside():
            return
        if self.epoch >= self.first_epoch:
            self._save(self.epoch + 1, 0)
        elif self.epoch == self.first_epoch - 1:
            self._wake()

    def after_fit(self) -> None:
        """Count a fit."""
        if not self._aside():
            self._wake()
            self.running, self.fits = False, self.fits + 1

    def save_within(self) -> None:
        """Save after a training batch, unless scores are being averaged over them, which would be cut."""
        if not self.recorder.train_metrics:
            self._save(self.epoch, self.iter + 1)

    def _aside(self) -> bool:
        """A search for the learning rate, or `validate` and its like, which hold the learner's lock."""
        return hasattr(self.learn, "lr_finder") or self.learn.lock.locked()

    def _entering(self) -> bool:
        """In the epoch that was interrupted."""
        return not self._aside() and self.epoch == self.first_epoch

    def _wake(self) -> None:
        for cb, run in self.asleep:
            cb.run = run
        self.asleep = []

    def _save(self, epoch: int, batch: int) -> None:
        self.saved = time.monotonic()
        position = {"fit": self.fits, "epoch": epoch, "batch": batch, "pct_train": self.pct_train,
                    "train_iter": self.train_iter, **_shape(self.learn)}  # fmt: skip
        state = {"position": position, "notes": self.notes, **take_state(self.learn)}
        try:
            write_snapshot(self.keep_in, self.number + 1, state)
        except OSError as error:
            if not self.failing:
                print_line(f"{self.keep_in}: no checkpoint written ({error.strerror}); training goes on")
            self.failing = True
        else:
            self.number, self.failing = self.number + 1, False

    def _check(self, found: Snapshot) -> None:
        for key, now in _shape(self.learn).items():
            then = found.state["position"][key]
            if then != now:
                what = f"{then} {key}, this one {now}" if key != "photographs" else "other photographs than this one"
                raise InputError(f"{found.file}: its training had {what}; resume with the same calls and data")


def take_state(learn: Learner) -> dict[str, Any]:
    """All that a training's future depends on, but for its position; between two batches or epochs."""
    gradients = {name: p.grad for name, p in learn.model.named_parameters() if p.grad is not None}
    recorder, scaler = learn.recorder, vars(learn).get("scaler")
    return {
        "model": learn.model.state_dict(),
        "optimizer": learn.opt.state_dict(),
        # An optimiser goes on moving what ever had a gradient, so those that are zero are named.
        "gradients": {name: grad if grad.any() else None for name, grad in gradients.items()},
        "accumulated": learn.gradient_accumulation.count if hasattr(learn, "gradient_accumulation") else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "recorder": {
            "smooth_loss": [recorder.smooth_loss.val, recorder.smooth_loss.count],
            "losses": torch.stack([loss.as_subclass(Tensor) for loss in recorder.losses]) if recorder.losses else None,
            **{key: getattr(recorder, key) for key in ("lrs", "iters", "values")},
        },
        "callbacks": {cb.name: cb.state_dict() for cb in _with_state(learn)},
    }


def load_state(learn: Learner, state: Mapping[str, Any]) -> None:
    """Bring a learner whose fit is about to begin into a state that `take_state` gave."""
    learn.model.load_state_dict(state["model"])
    _load_optimizer(learn.opt, dict(state["optimizer"]))
    for name, p in learn.model.named_parameters():
        grad = state["gradients"].get(name, False)
        p.grad = None if grad is False else torch.zeros_like(p) if grad is None else _like(p, grad)
    if state["accumulated"] is not None:
        learn.gradient_accumulation.count = state["accumulated"]
    if state["scaler"]:
        learn.scaler.load_state_dict(state["scaler"])
    learn.train_iter = state["position"]["train_iter"]
    kept, recorder = state["recorder"], learn.recorder
    recorder.smooth_loss.val, recorder.smooth_loss.count = kept["smooth_loss"][0].clone(), kept["smooth_loss"][1]
    recorder.losses = [] if kept["losses"] is None else list(kept["losses"].clone())
    recorder.lrs, recorder.iters, recorder.values = kept["lrs"], kept["iters"], [L(row) for row in kept["values"]]
    for cb in _with_state(learn):
        if cb.name in state["callbacks"]:
            cb.load_state_dict(state["callbacks"][cb.name])
    for epoch, row in enumerate(recorder.values):
        learn.logger([epoch, *row, ""])


def _with_state(learn: Learner) -> list[Callback]:
    # Of the class: a callback hands what it lacks on to the learner, and that to the network.
    return [cb for cb in learn.cbs if hasattr(type(cb), "state_dict")]


def _shape(learn: Learner) -> dict[str, Any]:
    """What must be the same in a fit that goes on."""
    loader = learn.dls.train
    names = None if getattr(learn, "own_dls", True) else "\n".join(map(str, learn.dls.train_ds.items))
    photographs = names and f"{zlib.crc32(names.encode()):08x}"
    return {"epochs": learn.n_epoch, "batches": len(loader), "batch size": loader.bs, "photographs": photographs}


def _load_optimizer(opt: Optimizer, state: dict[str, Any]) -> None:
    if "param_groups" not in state:
        params = list(opt.all_params().itemgot(0))
        kept = zip(params, state["state"], strict=True)
        state["state"] = [{key: _like(p, value) for key, value in own.items()} for p, own in kept]
        state["hypers"] = L(dict(hyper) for hyper in state["hypers"])
        if state.get("slow_weights"):
            groups = zip(opt.param_lists, state["slow_weights"], strict=True)
            state["slow_weights"] = L(L(map(_like, group, slow)) for group, slow in groups)
    opt.load_state_dict(state)


def _like(p: Tensor, value: Any) -> Any:
    """A value on a parameter's device; what has its shape lies in memory as it does, so that sums round alike."""
    if not isinstance(value, Tensor):
        return value
    own = torch.empty_like(p, dtype=value.dtype) if value.shape == p.shape else torch.empty_like(value, device=p.device)
    return own.detach().copy_(value)


class _Constant:
    """A function that gives the same indices always; a class, so that workers can be handed it."""

    def __init__(self, indices: list[int]):
        self.indices = indices

    def __call__(self) -> list[int]:
        return self.indices

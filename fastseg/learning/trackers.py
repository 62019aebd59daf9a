"""Trackers by name: scalars, learning rates, pictures and final scores to TensorBoard or Weights & Biases.

fastai's own callbacks for the two are not used: they start counting anew with every fit, show masks without a legend or
their classes, and fetch predictions in ways that wipe the Recorder. These write through the trackers' own interfaces.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback

from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy
from fastseg.learning.callbacks import print_line
from fastseg.learning.previews import Previews, Row
from fastseg.plots import results_figure
from fastseg.settings import Settings

PICTURES = 4
# The parameter groups of `seg_splitter`.
GROUPS = ("encoder", "decoder")


class Tracker(Callback):
    """Tells a tracker what happens in a Learner that `seg_learner` made, over all its fits.

    A step is a training batch, as `CountedRandomness` counts them, so a resumed run goes on where it was. Whatever
    fails in the tracker is said in one line, after which the run goes on without it. `finish` ends the tracking.
    """

    order = 65
    name = ""

    def __init__(self, cfg: Settings, folder: Path, say: Callable[[str], Any] | None = None):
        self.cfg, self.folder, self.failed, self.opened = cfg, folder, False, False
        self.every, self.previews = cfg.track_pictures, Previews(PICTURES)
        self.say = say or print_line

    def open(self) -> None:
        """Start tracking."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""

    def pictures(self, rows: Sequence[Row], step: int) -> None:
        """Take photographs with truth and prediction."""

    def close(self, scores: Mapping[str, Any]) -> None:
        """Take the final scores, and end tracking."""

    def before_train(self) -> None:
        """Open with the first epoch, when a resumed run knows at which step it is."""
        if not self.opened and not hasattr(self.learn, "lr_finder"):
            self.opened = True
            self._try(self.open)

    def after_batch(self) -> None:
        """Loss and learning rates of a training step."""
        if self.training and self._on():
            names = GROUPS if len(self.opt.hypers) == len(GROUPS) else range(len(self.opt.hypers))
            rates = {f"lr/{name}": hyper["lr"] for name, hyper in zip(names, self.opt.hypers, strict=True)}
            self._try(self.scalars, {"batch_loss": float(self.loss.detach()), **rates}, self._step)

    def after_epoch(self) -> None:
        """Losses and scores of an epoch, and pictures where their turn is."""
        if not self._on() or not self.learn.history.added:
            return
        row = dict(self.learn.history.rows[-1])
        row.pop("lr")
        self._try(self.scalars, row, self._step)
        if self.every and row["epoch"] % self.every == 0:
            self._try(lambda: self.pictures(self.previews.rows(self.learn), self._step))

    def finish(self, scores: Mapping[str, Any]) -> None:
        """Hand over the final scores, as `metrics.json` holds them; nothing is tracked afterwards."""
        if self.opened:
            self._try(self.close, scores)
            self.failed = True

    @property
    def _step(self) -> int:
        return self.learn.counted_randomness.steps

    def _on(self) -> bool:
        return self.opened and not self.failed and not hasattr(self.learn, "lr_finder")

    def _try(self, function: Callable[..., Any], *args: Any) -> None:
        if self.failed:
            return
        try:
            function(*args)
        except Exception as error:
            self.failed = True
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self.say(f"track: {self.name} failed ({said}); the run goes on without it")


class TensorBoard(Tracker):
    """Event files in the run's folder `tensorboard`, for `tensorboard --logdir runs`."""

    name = "tensorboard"

    def open(self) -> None:
        """Make the folder and its event file."""
        from torch.utils.tensorboard import SummaryWriter

        self.logs = self.folder / "tensorboard"
        # What a killed run has written beyond the step that it goes on from is dropped.
        self.writer = SummaryWriter(self.logs, purge_step=self._step + 1 if self._step else None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""
        _check_there(self.logs)
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        if "epoch" in values:
            self.writer.flush()

    def pictures(self, rows: Sequence[Row], step: int) -> None:
        """Photograph, truth and prediction with a legend, at every level."""
        _check_there(self.logs)
        tree = self.cfg.classes()
        for level in range(tree.depth):
            self.writer.add_figure(f"predictions/level {level}", results_figure(rows, tree, level), step)
        self.writer.flush()

    def close(self, scores: Mapping[str, Any]) -> None:
        """Hyper-parameters with the final scores, as the HParams page shows them."""
        _check_there(self.logs)
        final = {f"final/{key}": value for key, value in final_scores(scores, self.cfg.classes()).items()}
        # In the run's own folder: the default is a folder beside it, which would look like another run.
        self.writer.add_hparams(dict(hyper_parameters(self.cfg)), final, run_name=".")
        self.writer.close()


class WandB(Tracker):
    """A run of Weights & Biases, its files in the run's folder `wandb`; offline with WANDB_MODE=offline."""

    name = "wandb"

    def open(self) -> None:
        """Start the run."""
        import wandb

        self.package = wandb
        # With the same id a resumed run goes on in the same one.
        name = re.sub(r"[^\w.-]", "-", self.folder.resolve().name)
        self.tracked = wandb.init(project="fastseg", name=name, id=name, resume="allow", dir=str(self.folder),
                                  config=self.cfg.model_dump(mode="json"),
                                  settings=wandb.Settings(silent=True, console="off"))  # fmt: skip

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""
        _check_there(self.folder / "wandb")
        self.tracked.log(dict(values), step=step)

    def pictures(self, rows: Sequence[Row], step: int) -> None:
        """Photographs under masks of truth and prediction at every level, as W&B's own segmentation view takes them."""
        tree, images = self.cfg.classes(), []
        for title, image, truth, predicted in rows:
            masks = {}
            for level in range(tree.depth):
                labels = {**dict(enumerate(tree.names(level))), IGNORE_INDEX: "no class"}
                for what, ids in (("truth", truth), ("prediction", predicted)):
                    nodes = tree.merge(ids, level)
                    masks[f"{what}_{level}"] = {"mask_data": nodes, "class_labels": labels}
            images.append(self.package.Image(image, caption=title, masks=masks))
        self.tracked.log({"predictions": images}, step=step)

    def close(self, scores: Mapping[str, Any]) -> None:
        """Final scores in the summary."""
        for key, value in final_scores(scores, self.cfg.classes()).items():
            self.tracked.summary[f"final/{key}"] = value
        self.tracked.finish()


def _check_there(folder: Path) -> None:
    """Raise where a tracker's folder was taken away: its own thread or process would fail later, and at length."""
    if not folder.is_dir():
        raise OSError(f"{folder} is gone")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check_trackers(cfg: Settings) -> None:
    """Raise `InputError` where a tracker of `track` is not installed; nothing is imported."""
    for name in cfg.track:
        if name not in TRACKERS:
            continue
        found = importlib.util.find_spec(name)
        # A folder of that name, such as W&B itself leaves behind, is found too, as a package without an origin.
        if found is None or found.origin is None:
            raise InputError(f"track: {name} is not installed; pip install 'fastseg-parts[{name}]'")


def trackers(cfg: Settings, folder: str | Path, say: Callable[[str], Any] | None = None) -> list[Tracker]:
    """The callbacks of a configuration's `track`, writing into a run's folder; `csv` is the history, and needs none.

    `train` adds them itself; to a Learner fitted by hand they are given as `cbs`, and `save_run` ends them. `say` takes
    the line that a failing tracker leaves; without it, it goes to stderr. Raises `InputError` for one not installed.
    """
    check_trackers(cfg)
    return [TRACKERS[name](cfg, Path(folder), say) for name in cfg.track if name in TRACKERS]


def finish_trackers(learn: Any, scores: Mapping[str, Any]) -> None:
    """Hand the final scores to a Learner's trackers."""
    for cb in learn.cbs:
        if isinstance(cb, Tracker):
            cb.finish(scores)


def final_scores(scores: Mapping[str, Any], tree: Hierarchy) -> dict[str, float]:
    """The mean of each level, pixel accuracy and the IoU of each class, where there is one."""
    keys = (*(f"miou{level}" for level in range(tree.depth)), "pixel_accuracy")
    found = {key: scores[key] for key in keys}
    found |= {f"iou/{name}": entry["iou"] for name, entry in scores["classes"].items()}
    return {key: value for key, value in found.items() if value is not None}


def hyper_parameters(cfg: Settings) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of the settings, as numbers, truth values and text; not the tree, and not what is null."""

    def walk(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{path}{key}.")
            elif isinstance(value, (bool, int, float, str)):
                yield f"{path}{key}", value
            elif value:
                yield f"{path}{key}", str(value)

    plain = cfg.model_dump(mode="json", exclude={"hierarchy", "mirror", "loss", "track", "search", "out"})
    yield from walk(plain, "")
    yield "loss", " + ".join(loss.name for loss in cfg.loss)

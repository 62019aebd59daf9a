"""fastseg: people as a tree of parts: a fastai learner that trains, scores and decodes along it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastseg.config import dump_config, load_config
    from fastseg.data.augment import Augmentation
    from fastseg.data.check import check
    from fastseg.data.convert import convert
    from fastseg.data.files import GetImage, GetMask
    from fastseg.data.labels import convert_labels
    from fastseg.data.loaders import seg_dataloaders
    from fastseg.data.masks import PartMaskBlock
    from fastseg.data.sample import draw_sample
    from fastseg.errors import InputError
    from fastseg.experiments.report import report
    from fastseg.experiments.search import search
    from fastseg.experiments.train import save_run, train
    from fastseg.hierarchy import PASCAL_PART, Hierarchy
    from fastseg.inference.app import serve
    from fastseg.inference.compare import compare
    from fastseg.inference.evaluate import evaluate
    from fastseg.inference.predict import Predictor
    from fastseg.inference.score_masks import evaluate_masks
    from fastseg.learning.balance import class_weights
    from fastseg.learning.checkpoint import Checkpoint
    from fastseg.learning.deterministic import deterministic
    from fastseg.learning.learner import seg_learner
    from fastseg.learning.live import LiveView
    from fastseg.learning.losses import CrossEntropy, FocalLoss, SumLoss
    from fastseg.learning.metrics import LevelIoU
    from fastseg.learning.model import create_model, seg_splitter
    from fastseg.learning.overlap import DiceLoss, IoULoss, LovaszLoss, TverskyLoss
    from fastseg.learning.trackers import trackers
    from fastseg.learning.tree_losses import LevelCELoss, TreeMinLoss
    from fastseg.run import Run
    from fastseg.settings import Settings

# Public name → module; loaded on first use (PEP 562), so that `import fastseg` is instant.
_HOMES = {
    "config": ("dump_config", "load_config"),
    "data.augment": ("Augmentation",),
    "data.check": ("check",),
    "data.convert": ("convert",),
    "data.files": ("GetImage", "GetMask"),
    "data.labels": ("convert_labels",),
    "data.loaders": ("seg_dataloaders",),
    "data.masks": ("PartMaskBlock",),
    "data.sample": ("draw_sample",),
    "errors": ("InputError",),
    "experiments.report": ("report",),
    "experiments.search": ("search",),
    "experiments.train": ("save_run", "train"),
    "hierarchy": ("PASCAL_PART", "Hierarchy"),
    "inference.app": ("serve",),
    "inference.compare": ("compare",),
    "inference.evaluate": ("evaluate",),
    "inference.predict": ("Predictor",),
    "learning.balance": ("class_weights",),
    "inference.score_masks": ("evaluate_masks",),
    "learning.checkpoint": ("Checkpoint",),
    "learning.deterministic": ("deterministic",),
    "learning.learner": ("seg_learner",),
    "learning.live": ("LiveView",),
    "learning.losses": ("CrossEntropy", "FocalLoss", "SumLoss"),
    "learning.metrics": ("LevelIoU",),
    "learning.model": ("create_model", "seg_splitter"),
    "learning.overlap": ("DiceLoss", "IoULoss", "LovaszLoss", "TverskyLoss"),
    "learning.trackers": ("trackers",),
    "learning.tree_losses": ("LevelCELoss", "TreeMinLoss"),
    "run": ("Run",),
    "settings": ("Settings",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "PASCAL_PART",
    "Augmentation",
    "Checkpoint",
    "CrossEntropy",
    "DiceLoss",
    "FocalLoss",
    "GetImage",
    "GetMask",
    "Hierarchy",
    "InputError",
    "IoULoss",
    "LevelCELoss",
    "LevelIoU",
    "LiveView",
    "LovaszLoss",
    "PartMaskBlock",
    "Predictor",
    "Run",
    "Settings",
    "SumLoss",
    "TreeMinLoss",
    "TverskyLoss",
    "check",
    "class_weights",
    "compare",
    "convert",
    "convert_labels",
    "create_model",
    "deterministic",
    "draw_sample",
    "dump_config",
    "evaluate",
    "evaluate_masks",
    "load_config",
    "report",
    "save_run",
    "search",
    "seg_dataloaders",
    "seg_learner",
    "seg_splitter",
    "serve",
    "trackers",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastseg' has no attribute {name!r}")
    value = getattr(import_module(f"fastseg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

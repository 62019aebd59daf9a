"""Where a run took place, what it used of the machine, and how it can be repeated."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

import torch
from fastai.learner import Learner

from fastseg import __version__
from fastseg.data.machine import cores
from fastseg.learning.precision import HalfPrecision

PACKAGES = ("torch", "fastai", "segmentation-models-pytorch", "torchvision", "numpy")
MIB = 1 << 20


def environment(learn: Learner) -> dict[str, Any]:
    """What `environment.json` holds: versions, device, photographs in each split, peaks of memory in MiB.

    `trained_by` is `train` for a run that its configuration repeats, and `hand` for a Learner that somebody fitted.
    """
    device = learn.dls.device
    return {
        "fastseg": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "precision": next((cb.precision for cb in learn.cbs if isinstance(cb, HalfPrecision)), "fp32"),
        "parameters": sum(p.numel() for p in learn.model.parameters()),
        "photographs": {"train": getattr(learn.dls.train, "n", None), "valid": getattr(learn.dls.valid, "n", None)},
        "own_data": bool(learn.own_dls),
        "trained_by": getattr(learn, "trained_by", "hand"),
        "peak_memory_mib": peak_memory(device),
    }


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks so far, MiB: of this process, of the largest of its ended children, and of PyTorch on a CUDA device.

    Empty on Windows, which does not tell.
    """
    found = {}
    try:
        import resource
    except ImportError:
        pass
    else:
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        for name, who in (("process", resource.RUSAGE_SELF), ("largest worker", resource.RUSAGE_CHILDREN)):
            if peak := resource.getrusage(who).ru_maxrss:
                found[name] = round(peak * unit / MIB)
    if device.type == "cuda":
        found["GPU"] = round(torch.cuda.max_memory_allocated(device) / MIB)
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Arithmetic that repeats itself exactly, for as long as it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastseg.errors import InputError

# What cuBLAS needs to repeat itself; it is read when CUDA begins.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Within it torch uses only operations that give the same bits each time, and afterwards what it used before.

    Without `wanted` it does nothing. Raises `InputError` where a device has no such way of doing an operation.
    """
    if not wanted:
        yield
        return
    cudnn, space = torch.backends.cudnn, os.environ.get(WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        said = " ".join(str(error).split()).partition(", but you set")[0][-200:]
        raise InputError(f"train.deterministic: not possible with this network and loss here ({said}); "
                         "set it to false") from error  # fmt: skip
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if space is None:
            os.environ.pop(WORKSPACE, None)

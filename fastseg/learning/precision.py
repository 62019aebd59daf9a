"""The arithmetic of training: half precision where it pays, and a word where memory or a compiler is wanting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from fastai.callback.fp16 import MixedPrecision
from fastcore.foundation import L
from torch.amp import GradScaler, autocast

from fastseg.errors import InputError
from fastseg.settings import Settings, TrainSettings

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Where the errors of torch.compile are from.
COMPILERS = ("torch._dynamo", "torch._inductor")


def chosen_precision(settings: TrainSettings, device: torch.device) -> str:
    """fp32, fp16 or bf16; `auto` is bf16 on a GPU that has it, and fp32 elsewhere.

    A CPU without units for bf16 imitates it: a step was seen at 16 × the time. Raises `InputError` for
    fp16 on a CPU, and bf16 on a GPU that only imitates it.
    """
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "auto":
        return "bf16" if has_bf16 else "fp32"
    if settings.precision == "fp16" and device.type == "cpu":
        raise InputError("train.precision: fp16 needs a GPU; on a CPU use fp32 or bf16")
    if settings.precision == "bf16" and device.type == "cuda" and not has_bf16:
        raise InputError("train.precision: this GPU has no bf16; use fp16 or fp32")
    return settings.precision


class HalfPrecision(MixedPrecision):
    """fastai's `MixedPrecision` for any device, in which the network alone works: losses take float32.

    fastai's is for CUDA only, and stays switched on where a batch ends without a loss.
    """

    def __init__(self, precision: str):
        super().__init__(precision)
        self.precision, self.dtype, self.inside = precision, DTYPES[precision], None

    def before_fit(self) -> None:
        """Prepare; what an exception left switched on is switched off."""
        self._leave()
        kind = next(self.learn.model.parameters()).device.type
        self.learn.scaler, self.scales = GradScaler(kind, enabled=self.dtype is torch.float16), L()
        self.autocast = autocast(kind, dtype=self.dtype)

    def before_batch(self) -> None:
        """Switch on for the network."""
        self.autocast.__enter__()
        self.inside = self.autocast

    def after_pred(self) -> None:
        """Switch off before the loss."""
        super().after_pred()
        self._leave()

    def after_loss(self) -> None:
        """Nothing is left to switch off."""

    def after_cancel_batch(self) -> None:
        """Switch off where the network did not come to its end."""
        self._leave()

    def _leave(self) -> None:
        if self.inside is not None:
            self.inside.__exit__(None, None, None)
            self.inside = None


@contextmanager
def limits_explained(cfg: Settings) -> Iterator[None]:
    """Within it a want of memory, or of what compiling needs, becomes an `InputError` that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if _is_for_memory(error):
            high, wide = cfg.data.size
            raise InputError(
                f"out of memory: {cfg.train.batch_size} photographs of {high}x{wide} at a time do not fit; lower "
                "train.batch_size (train.accumulate makes up for that) or data.size"
            ) from error
        if cfg.train.compile and type(error).__module__.startswith(COMPILERS):
            said = " ".join(str(error).split())[:200]
            raise InputError(f"train.compile: not possible here ({said}); set it to false") from error
        raise


def _is_for_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)

"""What a quantised network loses on photographs, counted against the network in float once and for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastseg.inference.backends import open_backend
from fastseg.inference.parity import level_means
from fastseg.inference.passes import Batch
from fastseg.inference.plan import Plan
from fastseg.learning.model import mask_logits


class Judge:
    """Measures files of logits on the same batches again and again; one batch of reference logits is kept."""

    @torch.inference_mode()
    def __init__(self, network: nn.Module, plan: Plan, batches: Sequence[Batch]):
        self.plan, self.batches = plan, batches
        reference = mask_logits(network)
        self.logits = reference(batches[0].images[0])
        self.means = level_means(reference, plan, batches)

    def loss(self, path: Path) -> float:
        """Points of mean IoU that a file loses at the level where it loses most; below 0 where it gains."""
        backend = open_backend(path)
        found = level_means(lambda images: _tensor(backend.logits(images.numpy())), self.plan, self.batches)
        return float(np.nanmax(100 * (self.means - found)))

    @torch.inference_mode()
    def harm(self, path: Path) -> float:
        """Mean squared difference of a file's logits from the network's, in parts of their variance."""
        found = _tensor(open_backend(path).logits(self.batches[0].images[0].numpy()))
        return float((found - self.logits).square().mean() / self.logits.var().clamp(min=1e-12))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values))

"""smp's auxiliary head: beside the mask the network learns to tell which classes a photograph holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from torch import Tensor

from fastseg.decoding import Head
from fastseg.hierarchy import Hierarchy


class AuxiliaryLoss(Callback):
    """Adds `weight` × the binary cross-entropy of smp's classification head to what is minimised.

    The network returns logits (B, C, H, W) and, from its encoder's last features, one logit for each of these classes
    (B, C): whether the photograph has a pixel of it. The head is a help for training alone, in the manner of the
    semantic encoding loss of Zhang et al. (CVPR 2018): the losses that are shown do not count it, and
    predictions do not use it.
    """

    # Before fastai's accumulation of gradients (6), which scales the whole.
    order = 0

    def __init__(self, hierarchy: Hierarchy, weight: float, head: Head = "leaves"):
        self.hierarchy, self.weight, self.head = hierarchy, weight, head

    def after_pred(self) -> None:
        """Leave the mask's logits to loss and scores."""
        self.learn.pred, self.logits = self.learn.pred

    def after_loss(self) -> None:
        """Add the auxiliary loss to the gradient's."""
        if self.training:
            truth = presence(self.hierarchy, self.learn.y, self.head)
            extra = F.binary_cross_entropy_with_logits(self.logits.float(), truth)
            self.learn.loss_grad = self.learn.loss_grad + self.weight * extra


def presence(hierarchy: Hierarchy, target: Tensor, head: Head = "leaves") -> Tensor:
    """(B, ...) leaf ids → (B, C) float32, 1 where a photograph has a pixel of the channel's leaf or node, else 0."""
    target = target.as_subclass(Tensor).flatten(1)
    leaves = torch.stack([(target == leaf).any(1) for leaf in range(len(hierarchy))], 1).float()
    if head == "leaves":
        return leaves
    levels = [hierarchy.marginals(leaves, level).clamp(max=1) for level in reversed(range(hierarchy.depth))]
    return torch.cat(levels, 1)

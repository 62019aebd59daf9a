"""The optimisers by name: fastai's, and Adam's step for all tensors of a group at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from fastai.optimizer import SGD, Optimizer, RMSProp, ranger
from fastcore.basics import partialler
from torch import Tensor
from torch.optim.adamw import adamw


class FusedAdam(Optimizer):
    """fastai's `Adam` with decoupled weight decay, up to rounding, its step by torch's fused AdamW.

    `params` are lists of tensors on a CPU or a GPU, one for each group, as fastai's splitters give them. What fastai
    notes of a tensor holds: without `do_wd` there is no decay, and frozen ones with `force_train` are trained.
    fastai's own loop calls some ten operations for each tensor; this one calls two for each group.
    """

    def __init__(self, params: Iterable[Any], lr: float, mom: float = 0.9, sqr_mom: float = 0.99, eps: float = 1e-5,
                 wd: float = 0.01):  # fmt: skip
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Move all tensors that have a gradient. Raises NotImplementedError for a closure, as fastai's do."""
        if closure is not None:
            raise NotImplementedError("fastai optimizers do not support closure")
        for params, hyper in zip(self.param_lists, self.hypers, strict=True):
            moving = [p for p in params if p.grad is not None]
            decaying = [p for p in moving if self.state[p].get("do_wd", True)]
            still = [p for p in moving if not self.state[p].get("do_wd", True)]
            for chosen, decay in ((decaying, hyper["wd"]), (still, 0.0)):
                if chosen:
                    self._step(chosen, hyper, decay)

    def _step(self, params: list[Tensor], hyper: dict[str, float], decay: float) -> None:
        for p in params:
            if "step" not in self.state[p]:
                fresh = {"grad_avg": torch.zeros_like(p), "sqr_avg": torch.zeros_like(p)}
                self.state[p].update(fresh, step=torch.zeros((), device=p.device))
        averages, squares, steps = ([self.state[p][key] for p in params] for key in ("grad_avg", "sqr_avg", "step"))
        adamw(params, [p.grad for p in params], averages, squares, [], steps, fused=True, amsgrad=False,
              maximize=False, lr=hyper["lr"], beta1=hyper["mom"], beta2=hyper["sqr_mom"], eps=hyper["eps"],
              weight_decay=decay)  # fmt: skip


OPTIMIZERS = {"adam": FusedAdam, "sgd": partialler(SGD, mom=0.9), "rmsprop": RMSProp, "ranger": ranger}

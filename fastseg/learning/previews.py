"""What a network makes of a few photographs of its validation split, at any moment of its training."""

from __future__ import annotations

import numpy as np
import torch
from fastai.data.core import TfmdDL
from fastai.learner import Learner

# (title, photograph (H, W, 3) uint8, truth (H, W) uint8 leaf ids, prediction likewise), as `results_figure` takes them.
Row = tuple[str, np.ndarray, np.ndarray, np.ndarray]


def photographs(dl: TfmdDL, images: torch.Tensor, masks: torch.Tensor) -> list[np.ndarray]:
    """A batch's photographs as they were before the batch transforms, (H, W, 3) uint8."""
    shown = dl.decode((images, masks))[0].as_subclass(torch.Tensor)
    shown = shown * 255 if shown.is_floating_point() else shown
    return list(shown.clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8))


def ids(mask: torch.Tensor) -> np.ndarray:
    """A mask as an array of uint8 leaf ids."""
    return mask.as_subclass(torch.Tensor).cpu().numpy().astype(np.uint8)


class Previews:
    """The first `count` photographs of a Learner's validation split; read once, predicted whenever asked."""

    def __init__(self, count: int):
        self.count = count
        self.batch: tuple[torch.Tensor, torch.Tensor] | None = None

    @torch.inference_mode()
    def rows(self, learn: Learner) -> list[Row]:
        """Photograph, truth and the present prediction of each, at the network's size."""
        if self.batch is None:
            x, y = learn.dls.valid.one_batch()[:2]
            self.batch = x[: self.count], y[: self.count]
        x, y = self.batch
        model, tree = learn.model, learn.cfg.classes()
        was = model.training
        model.eval()
        guesses = tree.decode(model(x.as_subclass(torch.Tensor)).float(), head=learn.cfg.head)
        model.train(was)
        images = photographs(learn.dls.valid, x, y)
        return [(f"photograph {i + 1}", image, ids(truth), guess.cpu().numpy())
                for i, (image, truth, guess) in enumerate(zip(images, y, guesses, strict=True))]  # fmt: skip

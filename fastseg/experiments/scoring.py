"""The scores that a run ends with, and the photographs that stand for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.learner import Learner

from fastseg.data.frames import Framing
from fastseg.experiments.examples import Example, choose
from fastseg.inference.evaluate import named, picture_rows, split_files
from fastseg.inference.passes import Batch, count, photograph_batches, predicted
from fastseg.inference.plan import Plan
from fastseg.inference.scores import Counts, summary
from fastseg.learning.previews import Row, ids, photographs

SHOWN = 5


@dataclass(frozen=True)
class Scored:
    """Scores as `summary` gives them, what was counted, rows for the picture of results, and examples."""

    scores: dict[str, Any]
    counts: Counts
    rows: list[Row]
    examples: list[Example]


def score_learner(learn: Learner, card: Mapping[str, Any]) -> Scored:
    """Score a Learner's network on the valid split at native size, or on DataLoaders of its own at the network's.

    `card` is the content of `model.json`.
    """
    return (_own if learn.own_dls else _native)(learn, card)


def _native(learn: Learner, card: Mapping[str, Any]) -> Scored:
    cfg, plan, stats = learn.cfg, Plan.of_card(card, Framing), (card["mean"], card["std"])
    files, names = split_files(cfg, "valid")
    counts = count(learn.model, plan, photograph_batches(files, names, plan, stats, cfg), names)
    shown, chosen = _spread(len(names)), choose(plan.tree, counts.matrices)
    titles = {names[i]: names[i] for i in [*shown, *(i for _, i, _ in chosen)]}
    rows = dict(zip(titles, picture_rows(learn.model, plan, files, titles, stats, cfg), strict=True))
    examples = [Example(names[i], group, score, *rows[names[i]][1:]) for group, i, score in chosen]
    scores = summary(plan.tree, counts, "dataset", named(plan, "valid", files))
    return Scored(scores, counts, [rows[names[i]] for i in shown], examples)


def _own(learn: Learner, card: Mapping[str, Any]) -> Scored:
    """The same from the learner's own DataLoaders, whose files we do not know."""
    valid, tree = learn.dls.valid, learn.cfg.classes()
    plan = Plan(tree, protocol="resized", head=card.get("head", "leaves"))
    counts = count(learn.model, plan, (_as_batch(x, y) for x, y in valid))
    shown, chosen = _spread(len(counts.names)), choose(tree, counts.matrices)
    rows = _own_rows(learn, plan, {*shown, *(i for _, i, _ in chosen)})
    examples = [Example(counts.names[i], group, score, *rows[i][1:]) for group, i, score in chosen]
    scores = summary(tree, counts, "dataset", named(plan, "valid", None))
    return Scored(scores, counts, [rows[i] for i in shown], examples)


def _own_rows(learn: Learner, plan: Plan, places: Iterable[int]) -> dict[int, Row]:
    """Rows of the photographs at some places of the validation loader's order."""
    found, start, places = {}, 0, set(places)
    for x, y in learn.dls.valid:
        here = [i for i in range(len(x)) if start + i in places]
        if here:
            images, masks = photographs(learn.dls.valid, x, y), y[here]
            guesses = predicted(learn.model, plan, [_as_batch(x[here], masks)])
            for i, truth, guess in zip(here, masks, guesses, strict=True):
                found[start + i] = (f"photograph {start + i + 1}", images[i], ids(truth), guess)
        start += len(x)
    return found


def _spread(total: int) -> list[int]:
    return [int(i) for i in np.linspace(0, total - 1, min(SHOWN, total))]


def _as_batch(images: torch.Tensor, masks: torch.Tensor) -> Batch:
    masks = list(masks.as_subclass(torch.Tensor))
    return Batch([images.as_subclass(torch.Tensor)], masks, [tuple(mask.shape) for mask in masks])

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from test_hierarchy import TREE

from fastseg.errors import InputError
from fastseg.experiments.train import train
from fastseg.inference.evaluate import evaluate, load_model
from fastseg.learning.auxiliary import presence
from fastseg.learning.model import create_model
from fastseg.run import Run
from fastseg.settings import ModelSettings


def test_presence_by_hand():
    target = torch.tensor([[[0, 2], [2, 255]], [[3, 3], [3, 3]], [[255, 255], [255, 255]]])
    leaves = [[1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0] * 7]
    assert presence(TREE, target).tolist() == leaves
    # bg, upper, lower; bg, body: a torso makes upper_body and body, a lower leg lower_body and body.
    nodes = [[1, 1, 0, 1, 1], [0, 0, 1, 0, 1], [0] * 5]
    assert presence(TREE, target, "nodes").tolist() == [a + b for a, b in zip(leaves, nodes, strict=True)]


class Seen(Callback):
    """What is minimised and what is shown, batch by batch."""

    order = 5

    def __init__(self):
        self.values = []

    def after_loss(self):
        self.values.append((self.training, self.learn.loss_grad.item(), self.learn.loss.item()))


def test_it_adds_to_the_gradient_and_to_nothing_that_is_shown(quiet):
    seen = Seen()
    learn = quiet("model.auxiliary=0.5", cbs=seen)
    start = learn.model.classification_head[3].weight.detach().clone()
    learn.fit(1)
    assert {training for training, _, _ in seen.values} == {True, False}
    assert all(grad > loss if training else grad == loss for training, grad, loss in seen.values)
    assert not torch.equal(start, learn.model.classification_head[3].weight)
    assert learn.get_preds()[0].shape == (2, 7, 32, 64)


def test_what_is_added_is_the_cross_entropy_of_presence_times_the_weight(quiet):
    learn = quiet("model.auxiliary=0.25")
    masks, labels, y = torch.randn(2, 7, 4, 4), torch.randn(2, 7), torch.randint(0, 7, (2, 4, 4))
    learn.pred, learn.xb, learn.yb = (masks, labels), (None,), (y,)
    learn.training, learn.loss_grad = True, torch.tensor(2.0)
    learn.auxiliary_loss.after_pred()
    learn.auxiliary_loss.after_loss()
    assert learn.pred is masks
    terms = [F.softplus(-x if leaf in y[i] else x) for i in range(2) for leaf, x in enumerate(labels[i])]
    assert float(learn.loss_grad) == pytest.approx(2 + 0.25 * float(sum(terms)) / 14, rel=1e-5)


@pytest.mark.parametrize("more", [[], ["loss=[tree_min]", "train.accumulate=2", "train.ema=0.9"]])
def test_a_run_with_it_is_scored_and_read_like_any_other(tiny, more):
    run = train(tiny("model.auxiliary=0.1", *more))
    card = Run.open(run).card
    assert card["model"]["auxiliary"] == 0.1
    scores = evaluate(run)
    assert scores["miou2"] is not None
    model = load_model(Run.open(run))
    assert model.classification_head is not None


def test_it_is_smps_own_head_for_every_channel():
    model = create_model(ModelSettings(weights="none", auxiliary=0.1), 12)
    assert model.classification_head[3].out_features == 12
    assert create_model(ModelSettings(weights="none"), 12).classification_head is None
    with pytest.raises(InputError, match=r"model\.args\.aux_params"):
        create_model(ModelSettings(weights="none", args={"aux_params": {"classes": 3}}), 7)

"""The fused Adam against fastai's own, tensor by tensor."""

import copy

import pytest
import torch
from fastai.optimizer import Adam
from torch import nn

from fastseg.learning.optimizers import FusedAdam


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))


def optimizer(kind, model):
    opt = kind([list(model[0].parameters()), [*model[1].parameters(), *model[3].parameters()]], lr=1e-2)
    # As Learner notes norms and biases.
    for p in (*model[1].parameters(), model[0].bias, model[3].bias):
        opt.state[p]["do_wd"] = False
    return opt


def step(model, opt, i):
    opt.set_hypers(lr=[1e-3 * (i + 1), 1e-2 / (i + 1)], mom=0.95 - 0.02 * i, wd=0.1)
    # Given, not computed: of gradients that are nothing but rounding Adam makes whole steps.
    chance = torch.Generator().manual_seed(i)
    for p in model.parameters():
        gradient = torch.randn(p.shape, generator=chance)
        p.grad = gradient if p.requires_grad else None
    opt.step()


def assert_alike(ours, theirs):
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.fixture
def both():
    ours = network()
    theirs = copy.deepcopy(ours)
    return (ours, optimizer(FusedAdam, ours)), (theirs, optimizer(Adam, theirs))


def test_the_same_steps_as_fastais(both):
    start = [p.clone() for p in both[0][0].parameters()]
    for i in range(6):
        for model, opt in both:
            step(model, opt, i)
    assert_alike(both[0][0], both[1][0])
    assert all(not torch.equal(a, b) for a, b in zip(start, both[0][0].parameters(), strict=True))


def test_frozen_groups_stay_and_go_on_without_a_memory(both):
    ours, opt = both[0]
    before = ours[0].weight.clone()
    for model, own in both:
        own.freeze_to(-1)
        for i in range(2):
            step(model, own, i)
        own.freeze_to(0)
        own.clear_state()
    assert torch.equal(ours[0].weight, before)
    assert set(opt.state[ours[3].bias]) == {"do_wd"}
    for model, own in both:
        for i in range(2):
            step(model, own, i)
    assert_alike(ours, both[1][0])


def test_it_goes_on_from_its_state_exactly(both):
    ours, opt = both[0]
    for i in range(3):
        step(ours, opt, i)
    other = copy.deepcopy(ours)
    again = optimizer(FusedAdam, other)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    for model, own in ((ours, opt), (other, again)):
        step(model, own, 3)
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_closure(both):
    with pytest.raises(NotImplementedError, match="closure"):
        both[0][1].step(lambda: 0)

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import TREE, batch, pixels
from fastai.torch_core import TensorImage, TensorMask
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.learning.balance import class_weights
from fastseg.learning.losses import CrossEntropy, FocalLoss, SumLoss, build_loss
from fastseg.learning.overlap import DiceLoss, IoULoss, LovaszLoss, TverskyLoss
from fastseg.learning.tree_losses import LevelCELoss, TreeMinLoss


@pytest.mark.parametrize("weights", [None, [0.1, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_the_formula_pixel_by_pixel(weights, smoothing):
    logits, target = batch()
    loss = CrossEntropy(weights, smoothing)
    w = weights or [1.0] * 7
    each, per_image = [], []
    for b in range(3):
        total = norm = 0.0
        for spot in np.ndindex(*target.shape[1:]):
            t = int(target[(b, *spot)])
            if t == 255:
                continue
            logp = logits[(b, slice(None), *spot)].log_softmax(0)
            smooth = sum(w[c] * float(logp[c]) for c in range(7)) / 7
            total += -(1 - smoothing) * w[t] * float(logp[t]) - smoothing * smooth
            norm += w[t]
        each.append((total, norm))
        per_image.append(total / norm)
    expected = sum(t for t, _ in each) / sum(n for _, n in each)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-6)
    if not weights:
        assert expected == pytest.approx(
            F.cross_entropy(logits, target, ignore_index=255, label_smoothing=smoothing).item(), abs=1e-12)  # fmt: skip
    loss.reduction = "none"
    assert loss(logits, target).tolist() == pytest.approx(per_image, abs=1e-6)


@pytest.mark.parametrize("alpha", [None, [0.1, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_equals_the_formula_pixel_by_pixel(alpha, gamma):
    logits, target = batch()
    total = norm = 0.0
    for x, t in pixels(logits, target):
        p = math.exp(x[t]) / sum(math.exp(v) for v in x)
        total -= (alpha or [1] * 7)[t] * (1 - p) ** gamma * math.log(p)
        norm += (alpha or [1] * 7)[t]
    assert FocalLoss(gamma, alpha)(logits, target).item() == pytest.approx(total / norm, abs=1e-7)
    if gamma == 0:
        assert total / norm == pytest.approx(CrossEntropy(alpha)(logits, target).item(), abs=1e-7)
    if alpha is None:
        target[target == 255] = 0
        smp = softmax_focal_loss_with_logits(logits, target, gamma).item()
        assert FocalLoss(gamma)(logits, target).item() == pytest.approx(smp, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_certain_pixels_has_a_finite_slope(gamma):
    logits = torch.full((1, 7, 1, 2), -500.0)
    logits[:, 3] = 500
    logits.requires_grad_()
    FocalLoss(gamma)(logits, torch.tensor([[[3, 1]]])).backward()
    assert torch.isfinite(logits.grad).all()


LOSSES = {
    "cross_entropy": lambda: CrossEntropy(),
    "weighted": lambda: CrossEntropy([1, 2, 3, 4, 5, 6, 7]),
    "focal": lambda: FocalLoss(),
    "focal, weighted": lambda: FocalLoss(1.5, [1, 2, 3, 4, 5, 6, 7]),
    "iou": lambda: IoULoss(TREE),
    "iou, all levels": lambda: IoULoss(TREE, {0: 1, 1: 1, 2: 1}, per_image=True, background=True),
    "dice": lambda: DiceLoss(TREE),
    "tversky": lambda: TverskyLoss(TREE, [0, 2], classes="all"),
    "lovasz": lambda: LovaszLoss(TREE),
    "lovasz, per photograph": lambda: LovaszLoss(TREE, [1, 2], per_image=True),
    "level_ce": lambda: LevelCELoss(TREE, {0: 0.5, 2: 1}),
    "tree_min": lambda: TreeMinLoss(TREE),
    "sum": lambda: SumLoss({"a": (0.5, CrossEntropy()), "b": (2.0, IoULoss(TREE))}),
    "sum on nodes": lambda: SumLoss({"a": (1.0, CrossEntropy(leaves=7)), "b": (0.5, TreeMinLoss(TREE))}),
}
NODES = ("tree_min", "sum on nodes")


def batch_for(name, *args, **kwargs):
    return batch(*args, channels=12 if name in NODES else 7, **kwargs)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    logits, target = batch_for(name, 1, (2, 2, 3))
    for reduction in ("mean", "none"):
        loss = LOSSES[name]()
        loss.reduction = reduction
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_typed_tensors_half_precision_and_float64(name):
    loss, (logits, target) = LOSSES[name](), batch_for(name, dtype=torch.float32)
    plain = loss(logits, target)
    typed = loss(TensorImage(logits), TensorMask(target))
    assert type(plain) is type(typed) is torch.Tensor
    assert plain == typed
    assert loss(logits.double(), target).dtype == torch.float64
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            half = loss(logits.to(dtype), target.to(torch.uint8))
        assert half.dtype == torch.float32
        assert half.item() == loss(logits.to(dtype).float(), target).item()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_to_count_is_zero_with_a_gradient(name):
    logits, target = batch_for(name, dtype=torch.float32)
    for reduction in ("mean", "none"):
        loss = LOSSES[name]()
        loss.reduction = reduction
        x = logits.clone().requires_grad_()
        value = loss(x, torch.full_like(target, 255))
        assert value.sum().item() == 0
        assert value.shape == ((3,) if reduction == "none" else ())
        value.sum().backward()
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_do_not_matter(name):
    loss, (logits, target) = LOSSES[name](), batch_for(name)
    changed = logits.clone()
    changed[0, :, 0] = 50
    assert loss(changed, target) == loss(logits, target)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_one_photograph_is_its_value(name):
    """`none` gives each photograph's loss as if it were alone, and `sum` their sum."""
    loss, (logits, target) = LOSSES[name](), batch_for(name)
    alone = [loss(logits[i : i + 1], target[i : i + 1]).item() for i in range(3)]
    loss.reduction = "none"
    assert loss(logits, target).tolist() == pytest.approx(alone)
    loss.reduction = "sum"
    assert loss(logits, target).item() == pytest.approx(sum(alone))


@pytest.mark.parametrize("name", LOSSES)
def test_right_logits_cost_less_than_wrong_ones(name):
    loss, (logits, target) = LOSSES[name](), batch_for(name)
    safe = torch.where(target == 255, 0, target)
    right = torch.full_like(logits, -8)
    for level, at in enumerate(TREE.node_slices):
        if at.stop <= logits.shape[1]:
            nodes = F.one_hot(TREE.merge(safe, level), len(TREE.names(level))).movedim(-1, 1)
            right[:, at] += 16 * nodes
    assert loss(right, target).item() < 0.02 < 0.3 < loss(logits, target).item()
    assert loss(right[:, :, 1:], target[:, 1:]).item() < 0.02
    assert torch.equal(loss.decodes(right), safe)


@pytest.mark.parametrize("name", LOSSES)
def test_fastai_asks_for_probabilities_and_ids(name):
    loss, (logits, _) = LOSSES[name](), batch_for(name)
    probs = loss.activation(logits)
    assert probs.shape == (3, 7, 4, 5)
    assert torch.allclose(probs.sum(1), torch.ones(3, 4, 5, dtype=torch.float64))
    assert torch.equal(loss.decodes(probs), loss.decodes(logits))
    if name not in NODES:
        assert torch.equal(loss.decodes(logits), logits.argmax(1))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in NODES])
def test_losses_of_leaves_read_the_first_channels_of_a_larger_head(name):
    loss, (logits, target) = LOSSES[name](), batch(channels=12)
    leaves = logits[:, :7].contiguous()
    wide = SumLoss({"a": (1.0, CrossEntropy(leaves=7)), "b": (2.0, IoULoss(TREE))}) if name == "sum" else loss
    wide.leaves = 7
    assert wide(logits, target).item() == wide(leaves, target).item()
    assert torch.equal(wide.activation(logits), leaves.softmax(1))


def test_the_sum_weights_its_parts_and_keeps_their_values():
    logits, target = batch()
    a, b = CrossEntropy(), IoULoss(TREE)
    loss = SumLoss({"a": (0.5, a), "b": (2.0, b)})
    assert loss(logits, target).item() == pytest.approx(0.5 * a(logits, target).item() + 2 * b(logits, target).item())
    assert {name: value.item() for name, value in loss.values.items()} == {
        "a": pytest.approx(a(logits, target).item()), "b": pytest.approx(b(logits, target).item())}  # fmt: skip
    loss.reduction = "none"
    assert (a.reduction, b.reduction, loss(logits, target).shape) == ("none", "none", (3,))


def test_class_weights_follow_the_device_but_stay_out_of_the_weights_file():
    assert [name for name, _ in CrossEntropy([1.0, 2.0]).named_buffers()] == ["class_weights"]
    assert CrossEntropy([1.0, 2.0]).state_dict() == {}


def test_losses_of_a_configuration():
    assert isinstance(build_loss(load_config("loss=cross_entropy")), CrossEntropy)
    loss = build_loss(load_config("loss=[{name: iou, levels: {0: 0.5, 2: 1}, per_image: true, weight: 3}]"))
    assert list(loss.weights.values()) == [3.0]
    assert (loss.parts["iou"].levels, loss.parts["iou"].per_image) == ({0: 0.5, 2: 1.0}, True)
    twice = build_loss(load_config("loss=[iou, cross_entropy, {name: iou, per_image: true}]"))
    assert list(twice.parts) == ["iou", "cross_entropy", "iou-2"]


ALL = ["cross_entropy", "focal", "iou", "dice", "tversky", "lovasz", "level_ce", "tree_min"]


@pytest.mark.parametrize("name", ALL)
def test_every_loss_of_a_configuration(name):
    cfg = load_config(f"loss=[{name}, {{name: {name}, weight: 0.5}}]")
    loss, channels = build_loss(cfg), cfg.classes().channels(cfg.head)
    assert list(loss.parts) == [name, f"{name}-2"]
    logits, target = batch(channels=channels)
    assert (cfg.head, channels) == (("nodes", 12) if name == "tree_min" else ("leaves", 7))
    one = build_loss(load_config(f"loss={name}"))
    assert type(one) is type(loss.parts[name])
    assert loss(logits, target).item() == pytest.approx(1.5 * one(logits, target).item())


def test_the_keys_of_a_configuration_reach_the_losses():
    losses = (
        "{name: focal, gamma: 1, alpha: [1, 2, 3, 4, 5, 6, 7]}, {name: tversky, alpha: 0.2, beta: 0.8}, "
        "{name: lovasz, per_image: true, classes: all, background: true}, {name: level_ce, levels: {0: 3}}, "
        "{name: tree_min, gamma: 0, levels: [1]}"
    )
    made = build_loss(load_config(f"loss=[{losses}]"))
    focal, tversky, lovasz, level_ce, tree_min = made.parts.values()
    assert (focal.gamma, focal.alpha.tolist()) == (1, [1, 2, 3, 4, 5, 6, 7])
    assert (tversky.alpha, tversky.beta) == (0.2, 0.8)
    assert (lovasz.per_image, lovasz.classes, lovasz.background) == (True, "all", True)
    assert (level_ce.levels, tree_min.levels, tree_min.gamma) == ({0: 3.0}, {1: 1.0}, 0)
    assert made.activation(batch(channels=12)[0]).shape[1] == 7


def test_counted_class_weights():
    counts = np.array([1000, 10, 20, 30, 40, 0, 60])
    cfg = load_config("loss=[{name: cross_entropy, class_weights: inverse}, {name: focal, alpha: effective, "
                      "class_beta: 0.99}]")  # fmt: skip
    loss = build_loss(cfg, counts)
    assert loss.parts["cross_entropy"].class_weights.tolist() == pytest.approx(class_weights(counts, "inverse"))
    assert loss.parts["focal"].alpha.tolist() == pytest.approx(class_weights(counts, "effective", 0.99))
    with pytest.raises(InputError, match=r"cross_entropy's class_weights: inverse counts .* dls.pixel_counts"):
        build_loss(cfg)


def test_wrong_use():
    with pytest.raises(ValueError, match=r"\(3, 7, 4, 5\)"):
        CrossEntropy()(batch()[0], batch()[1][:, :3])
    with pytest.raises(InputError, match="gamma -1"):
        FocalLoss(-1)

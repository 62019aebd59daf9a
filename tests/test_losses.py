import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.torch_core import TensorImage, TensorMask

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.learning.losses import CrossEntropy, IoULoss, SumLoss, build_loss

TREE = Hierarchy(PASCAL_PART)
GROUPS = [
    [[0], [1, 2, 3, 4, 5, 6]],
    [[0], [1, 2, 4, 6], [3, 5]],
    [[i] for i in range(7)],
]  # the nodes of each level of Pascal-Part, by hand


def batch(seed=0, shape=(3, 4, 5), dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], 7, *shape[1:], generator=g, dtype=dtype) * 2
    target = torch.randint(0, 7, shape, generator=g)
    target[0, 0] = 255
    target[target == 5] = 2
    return logits, target


def slow_iou(logits, target, levels, per_image=False, background=False, present=True, smooth=1e-3):
    """The formula, pixel by pixel in plain Python; None where no class counts."""
    groups = [[i] for i in range(len(target))] if per_image else [range(len(target))]
    values = []
    for images in groups:
        total, weights, counted = 0.0, 0.0, 0.0
        for level, weight in levels.items():
            losses = []
            for leaves in GROUPS[level][0 if background else 1 :]:
                both = ps = ys = 0.0
                for b in images:
                    for spot in np.ndindex(*target.shape[1:]):
                        t = int(target[(b, *spot)])
                        if t == 255:
                            continue
                        e = [math.exp(float(v)) for v in logits[(b, slice(None), *spot)]]
                        p, y = sum(e[leaf] for leaf in leaves) / sum(e), float(t in leaves)
                        both, ps, ys = both + p * y, ps + p, ys + y
                if ys > 0 or not present:
                    losses.append(1 - (both + smooth) / (ps + ys - both + smooth))
            weights += weight
            counted += weight * bool(losses)
            total += weight * (sum(losses) / len(losses) if losses else 0)
        values.append((total / weights, counted / weights))
    return sum(v for v, _ in values) / max(sum(c for _, c in values), 1), [v for v, _ in values]


@pytest.mark.parametrize("levels", [None, {0: 1.0}, {1: 2.0}, {0: 0.5, 1: 1.0, 2: 3.0}])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(("background", "classes"), [(False, "present"), (True, "all"), (False, "all")])
def test_iou_loss_equals_the_formula_pixel_by_pixel(levels, per_image, background, classes):
    logits, target = batch()
    loss = IoULoss(TREE, levels, per_image, background, classes)
    args = (logits, target, levels or {2: 1.0})
    kwargs = {"background": background, "present": classes == "present"}
    expected, _ = slow_iou(*args, per_image=per_image, **kwargs)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-12)
    loss.reduction = "none"
    _, each = slow_iou(*args, per_image=True, **kwargs)
    assert loss(logits, target).tolist() == pytest.approx(each, abs=1e-12)
    loss.reduction = "sum"
    assert loss(logits, target).item() == pytest.approx(sum(each), abs=1e-12)


def test_iou_loss_by_hand():
    # Two pixels, classes 0 (background), 1 and 2 with probabilities (.5, .3, .2) and (.1, .1, .8); truths 1 and 2.
    probs = torch.tensor([[[0.5, 0.1], [0.3, 0.1], [0.2, 0.8]]], dtype=torch.float64)
    target = torch.tensor([[1, 2]])
    one, two = 1 - 0.3 / (0.4 + 1 - 0.3), 1 - 0.8 / (1.0 + 1 - 0.8)
    assert IoULoss(smooth=1e-12)(probs.log(), target).item() == pytest.approx((one + two) / 2)


def test_a_small_class_missed_costs_nearly_one():
    logits = torch.zeros(1, 7, 100, 100)
    logits[:, 0] = 30
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target[0, 0, 0] = 3
    assert IoULoss(TREE)(logits, target).item() > 0.99


@pytest.mark.parametrize(("wide", "level"), [(False, 0), (True, 0), (False, 1)])
def test_iou_loss_is_the_twin_of_the_score(wide, level):
    """On hard predictions 1 − loss is the mean IoU of the level, over classes present in the truth."""
    from sklearn.metrics import jaccard_score

    logits, target = batch(3)
    target[target == 255] = 0
    guess = logits.argmax(1)
    hard = F.one_hot(guess, 7).movedim(-1, 1).double() * 200
    scores = []
    for leaves in GROUPS[level][1:]:
        truth, found = np.isin(target, leaves), np.isin(guess, leaves)
        scores.append(jaccard_score(truth.ravel(), found.ravel()))
    loss = IoULoss(TREE, {level: 1.0}, smooth=1e-9)(hard, target)
    assert 1 - loss.item() == pytest.approx(np.mean(scores), abs=1e-8)


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


LOSSES = {
    "cross_entropy": lambda: CrossEntropy(),
    "weighted": lambda: CrossEntropy([1, 2, 3, 4, 5, 6, 7]),
    "iou": lambda: IoULoss(TREE),
    "iou all levels": lambda: IoULoss(TREE, {0: 1, 1: 1, 2: 1}, per_image=True, background=True),
    "sum": lambda: SumLoss({"a": (0.5, CrossEntropy()), "b": (2.0, IoULoss(TREE))}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    logits, target = batch(1, (2, 2, 3))
    for reduction in ("mean", "none"):
        loss = LOSSES[name]()
        loss.reduction = reduction
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_typed_tensors_half_precision_and_float64(name):
    loss, (logits, target) = LOSSES[name](), batch(dtype=torch.float32)
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
    logits, target = batch(dtype=torch.float32)
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
    loss, (logits, target) = LOSSES[name](), batch()
    changed = logits.clone()
    changed[0, :, 0] = 50
    assert loss(changed, target) == loss(logits, target)


def test_fastai_asks_for_probabilities_and_ids():
    loss, (logits, _) = IoULoss(TREE), batch()
    assert torch.allclose(loss.activation(logits).sum(1), torch.ones(3, 4, 5, dtype=torch.float64))
    assert torch.equal(loss.decodes(loss.activation(logits)), logits.argmax(1))


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


def test_a_list_of_levels_means_equal_weights():
    logits, target = batch()
    assert IoULoss(TREE, [0, 2])(logits, target) == IoULoss(TREE, {0: 1, 2: 1})(logits, target)
    with pytest.raises(InputError, match="level 5"):
        IoULoss(TREE, [5])


def test_wrong_use():
    with pytest.raises(InputError, match="need a hierarchy"):
        IoULoss(levels={0: 1})
    with pytest.raises(InputError, match="nor all 0"):
        IoULoss(TREE, {0: 0})
    with pytest.raises(InputError, match="neither"):
        IoULoss(classes="some")
    with pytest.raises(ValueError, match=r"\(3, 7, 4, 5\)"):
        CrossEntropy()(batch()[0], batch()[1][:, :3])

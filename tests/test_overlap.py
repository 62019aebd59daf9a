import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import GROUPS, TREE, batch, pixels
from segmentation_models_pytorch import losses as smp

from fastseg.errors import InputError
from fastseg.learning.overlap import DiceLoss, IoULoss, LovaszLoss, TverskyLoss, _jaccard_growth


def probability(logits, leaves):
    e = [math.exp(v) for v in logits]
    return sum(e[leaf] for leaf in leaves) / sum(e)


def slow_tversky(alpha, beta, smooth=1e-3):
    def loss(found, truth):
        tp = sum(p * y for p, y in zip(found, truth, strict=True))
        fp = sum(p * (1 - y) for p, y in zip(found, truth, strict=True))
        fn = sum((1 - p) * y for p, y in zip(found, truth, strict=True))
        return 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)

    return loss


def slow_lovasz(found, truth):
    """Lovász extension of the set function 1 − IoU over sets of wrong pixels, with sets."""
    errors = [abs(y - p) for p, y in zip(found, truth, strict=True)]
    of_class = {i for i, y in enumerate(truth) if y}

    def jaccard_loss(wrong):
        return len(wrong) / len(of_class | wrong) if wrong else 0

    total, wrong = 0.0, set()
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        total += errors[i] * (jaccard_loss(wrong | {i}) - jaccard_loss(wrong))
        wrong.add(i)
    return total


def slow_loss(of_class, logits, target, levels, per_image=False, background=False, present=True):
    """(mean, each group's value) of a loss of one class's pixels, averaged over classes, levels and groups."""
    groups = [[i] for i in range(len(target))] if per_image else [range(len(target))]
    values = []
    for images in groups:
        total, counted, some = 0.0, 0.0, list(pixels(logits, target, images))
        for level, weight in levels.items():
            losses = []
            for leaves in GROUPS[level][0 if background else 1 :]:
                truth = [float(t in leaves) for _, t in some]
                if any(truth) or not present:
                    losses.append(of_class([probability(x, leaves) for x, _ in some], truth))
            counted += weight * bool(losses)
            total += weight * (sum(losses) / len(losses) if losses else 0)
        values.append((total / sum(levels.values()), counted / sum(levels.values())))
    return sum(v for v, _ in values) / max(sum(c for _, c in values), 1), [v for v, _ in values]


KINDS = {
    "iou": (IoULoss, slow_tversky(1, 1)),
    "dice": (DiceLoss, slow_tversky(0.5, 0.5)),
    "tversky": (TverskyLoss, slow_tversky(0.3, 0.7)),
    "lovasz": (LovaszLoss, slow_lovasz),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [None, {1: 2.0}, {0: 0.5, 1: 1.0, 2: 3.0}])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(("background", "classes"), [(False, "present"), (True, "all"), (False, "all")])
def test_equal_to_the_formula_pixel_by_pixel(kind, levels, per_image, background, classes):
    logits, target = batch()
    make, of_class = KINDS[kind]
    loss = make(TREE, levels, per_image, background, classes)
    args = (of_class, logits, target, levels or {2: 1.0})
    kwargs = {"background": background, "present": classes == "present"}
    expected, _ = slow_loss(*args, per_image=per_image, **kwargs)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-12)
    loss.reduction = "none"
    _, each = slow_loss(*args, per_image=True, **kwargs)
    assert loss(logits, target).tolist() == pytest.approx(each, abs=1e-12)
    loss.reduction = "sum"
    assert loss(logits, target).item() == pytest.approx(sum(each), abs=1e-12)


def test_iou_loss_by_hand():
    # Two pixels, classes 0 (background), 1 and 2 with probabilities (.5, .3, .2) and (.1, .1, .8); truths 1 and 2.
    probs = torch.tensor([[[0.5, 0.1], [0.3, 0.1], [0.2, 0.8]]], dtype=torch.float64)
    target = torch.tensor([[1, 2]])
    one, two = 1 - 0.3 / (0.4 + 1 - 0.3), 1 - 0.8 / (1.0 + 1 - 0.8)
    assert IoULoss(smooth=1e-12)(probs.log(), target).item() == pytest.approx((one + two) / 2)
    # Errors of class 1: .7 (missed), .1; of class 2: .2 (false), .2 (missed): 1 − IoU grows by 1, 0 and by ½, ½.
    assert LovaszLoss()(probs.log(), target).item() == pytest.approx((0.7 + 0.2) / 2)


def test_a_small_class_missed_costs_nearly_one():
    logits = torch.zeros(1, 7, 100, 100)
    logits[:, 0] = 30
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target[0, 0, 0] = 3
    for make, _ in KINDS.values():
        assert make(TREE)(logits, target).item() > 0.99


@pytest.mark.parametrize("make", [IoULoss, LovaszLoss])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_twins_of_the_score(make, level):
    """On hard predictions 1 − loss is the mean IoU of the level, over classes present in the truth."""
    from sklearn.metrics import jaccard_score

    logits, target = batch(3)
    target[target == 255] = 0
    guess = logits.argmax(1)
    hard = F.one_hot(guess, 7).movedim(-1, 1).double() * 200
    scores = []
    for leaves in GROUPS[level][1:]:
        truth, found = np.isin(target, leaves), np.isin(guess, leaves)
        if truth.any():
            scores.append(jaccard_score(truth.ravel(), found.ravel()))
    loss = make(TREE, {level: 1.0}, **({"smooth": 1e-9} if make is IoULoss else {}))
    assert 1 - loss(hard, target).item() == pytest.approx(np.mean(scores), abs=1e-8)


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_is_smps_where_every_photograph_has_pixels(per_image):
    logits, target = batch(1, dtype=torch.float32)
    ours, theirs = LovaszLoss(per_image=per_image, background=True), smp.LovaszLoss("multiclass", per_image, 255)
    x, z = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    assert ours(x, target).item() == pytest.approx(theirs(z, target).item(), abs=1e-6)
    ours(x, target).backward()
    theirs(z, target).backward()
    assert torch.allclose(x.grad, z.grad, atol=1e-7)


@pytest.mark.parametrize(("make", "theirs"), [(DiceLoss, smp.DiceLoss), (TverskyLoss, smp.TverskyLoss)])
def test_dice_and_tversky_are_smps_but_for_absent_classes(make, theirs):
    logits, target = batch(1)
    more = {"alpha": 0.3, "beta": 0.7} if make is TverskyLoss else {}
    value = theirs("multiclass", ignore_index=255, smooth=1e-3, **more)(logits, target).item()
    present = len(target[target != 255].unique())
    assert present == 6
    assert make(background=True)(logits, target).item() == pytest.approx(value * 7 / present, abs=1e-12)


def test_the_growth_of_the_jaccard_loss_stays_exact_in_float32():
    """Over two million pixels, where differences of 1 − IoU would have two or three right digits."""
    truth = (torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)) < 0.02).double()
    exact, single = _jaccard_growth(truth), _jaccard_growth(truth.float())
    assert ((single - exact).abs() / exact.clamp(min=1e-30))[exact > 0].max() < 1e-5
    size, hits = truth.sum(), truth.cumsum(0)
    jaccard = 1 - (size - hits) / (size + (1 - truth).cumsum(0))
    assert torch.allclose(exact.cumsum(0), jaccard, atol=1e-9)


def test_a_photograph_without_any_class_leaves_the_others_as_they_are():
    logits, target = batch()
    target[1] = 255
    for make, _ in KINDS.values():
        loss = make(TREE, per_image=True)
        both = torch.tensor([0, 2])
        assert loss(logits, target).item() == pytest.approx(loss(logits[both], target[both]).item(), abs=1e-12)


def test_a_list_of_levels_means_equal_weights():
    logits, target = batch()
    assert IoULoss(TREE, [0, 2])(logits, target) == IoULoss(TREE, {0: 1, 2: 1})(logits, target)
    with pytest.raises(InputError, match="level 5"):
        IoULoss(TREE, [5])


def test_wrong_use():
    with pytest.raises(InputError, match="need a hierarchy"):
        IoULoss(levels={0: 1})
    with pytest.raises(InputError, match=r"DiceLoss: the levels' weights .* nor all 0"):
        DiceLoss(TREE, {0: 0})
    with pytest.raises(InputError, match="LovaszLoss: classes 'some' is neither"):
        LovaszLoss(classes="some")
    with pytest.raises(InputError, match="alpha -1 and beta"):
        TverskyLoss(alpha=-1)

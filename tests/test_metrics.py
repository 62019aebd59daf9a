import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torchmetrics.segmentation import MeanIoU

from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.learning.metrics import LevelIoU, confusion_matrix

TREES = {
    1: Hierarchy({"background": 0, "a": 1, "b": 2}),
    2: Hierarchy({"b": 3, "x": {"a": 1, "c": 0}, "background": 2, "y": {"d": 4}}),
    3: Hierarchy(PASCAL_PART),
    4: Hierarchy({"p": {"q": {"r": {"a": 4, "b": 0}, "c": 2}, "d": 5}, "e": 1, "bg": 3}),
}
NO_BACKGROUND = Hierarchy({"a": 0, "x": {"b": 1, "c": 2}})


def masks(tree, seed, images=7, ignored=True, absent=True):
    """Random truths and predictions; one leaf nowhere, others missing from some photographs."""
    rng = np.random.default_rng(seed)
    leaves = [i for i in range(len(tree)) if not (absent and i == (tree.background or 0) + 1)]
    truth, guess = np.empty((2, images, 6, 9), np.int64)
    for i in range(images):
        some = rng.choice(leaves, max(1, len(leaves) - 2), replace=False)
        truth[i], guess[i] = rng.choice(some, (6, 9)), rng.choice(leaves, (6, 9))
        if ignored:
            truth[i][rng.random((6, 9)) < 0.2] = 255
    return torch.from_numpy(truth), torch.from_numpy(guess)


def scored(tree, truth, guess, definition="dataset", step=3):
    metric = LevelIoU(tree, definition)
    for i in range(0, len(truth), step):
        metric.update(guess[i : i + step], truth[i : i + step])
    return metric


def naive(tree, truth, guess, level, node):
    """(intersection, union) of a node, photograph by photograph and pixel by pixel."""
    counts = []
    for t_image, g_image in zip(truth.tolist(), guess.tolist(), strict=True):
        hit = union = 0
        for t, g in zip(chain(*t_image), chain(*g_image), strict=True):
            if t != 255:
                a, b = tree.levels[level].table[t] == node, tree.levels[level].table[g] == node
                hit, union = hit + (a and b), union + (a or b)
        counts.append((hit, union))
    return counts


@pytest.mark.parametrize("tree", [*TREES.values(), NO_BACKGROUND])
@pytest.mark.parametrize("seed", range(3))
def test_dataset_definition_against_scikit_learn_and_a_naive_loop(tree, seed):
    truth, guess = masks(tree, seed)
    metric = scored(tree, truth, guess)
    valid = truth != 255
    for level in range(tree.depth):
        t, g = tree.merge(truth[valid], level).numpy(), tree.merge(guess[valid], level).numpy()
        expected = []
        for node in tree.foreground(level):
            pairs = naive(tree, truth, guess, level, node)
            hit, union = sum(h for h, _ in pairs), sum(u for _, u in pairs)
            got = metric.class_iou(level)[node].item()
            if union == 0:
                assert np.isnan(got)
                continue
            expected.append(hit / union)
            assert got == hit / union
            assert got == jaccard_score(t == node, g == node)
        assert metric.compute()[f"miou{level}"].item() == pytest.approx(np.mean(expected), abs=1e-15)
        present = [node for node in tree.foreground(level) if (t == node).any() or (g == node).any()]
        assert np.mean(expected) == pytest.approx(
            jaccard_score(t, g, labels=present, average="macro"), abs=1e-15)  # fmt: skip
    assert metric.compute()["pixel_accuracy"].item() == (truth == guess)[valid].double().mean().item()


@pytest.mark.parametrize("tree", [*TREES.values(), NO_BACKGROUND])
@pytest.mark.parametrize("definition", ["image", "image_class"])
def test_image_definitions_against_a_naive_loop(tree, definition):
    truth, guess = masks(tree, 5)
    truth[2], guess[2] = (tree.background, tree.background) if tree.background is not None else (255, 0)
    metric = scored(tree, truth, guess, definition)
    for level in range(tree.depth):
        table = [naive(tree, truth, guess, level, node) for node in tree.foreground(level)]
        per_image = [[h / u for h, u in column if u] for column in zip(*table, strict=True)]
        if definition == "image":
            expected = np.mean([np.mean(values) for values in per_image if values])
        else:
            expected = np.mean([*chain(*per_image)])
        assert metric.compute()[f"miou{level}"].item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("tree", [TREES[1], TREES[3]])
def test_image_class_is_torchmetrics_mean_iou(tree):
    truth, guess = masks(tree, 9, ignored=False)
    ours = scored(tree, truth, guess, "image_class")
    for level in range(tree.depth):
        theirs = MeanIoU(num_classes=len(tree.names(level)), include_background=False, input_format="index")
        for i in range(0, len(truth), 3):
            theirs.update(tree.merge(guess[i : i + 3], level), tree.merge(truth[i : i + 3], level))
        assert ours.compute()[f"miou{level}"].item() == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_the_definitions_differ_on_two_photographs_by_hand():
    # The first photograph has IoUs 0, 1/2, 1/2 over three classes, the second one class at 1.
    tree = Hierarchy({"background": 0, "a": 1, "b": 2, "c": 3})
    truth = torch.tensor([[1, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1]])
    guess = torch.tensor([[0, 2, 0, 3, 0, 0], [1, 1, 1, 1, 1, 1]])
    expected = {
        "image": (1 / 3 + 1) / 2,
        "image_class": (0 + 1 / 2 + 1 / 2 + 1) / 4,
        "dataset": (6 / 7 + 1 / 2 + 1 / 2) / 3,
    }
    for definition, value in expected.items():
        assert scored(tree, truth, guess, definition).compute()["miou0"].item() == pytest.approx(value)


def test_pascal_part_by_hand():
    # head 4 taken for torso 2 stays right at level 1 and 0; up_leg 5 taken for torso stays right at level 0 alone.
    truth = torch.tensor([[4, 4, 2, 5, 0, 255]])
    guess = torch.tensor([[4, 2, 2, 2, 5, 3]])
    scores = LevelIoU(TREES[3], per_class=True)
    scores.update(guess, truth)
    got = {name: value.item() for name, value in scores.compute().items()}
    assert got["iou2_head"] == 1 / 2
    assert got["iou2_torso"] == 1 / 3
    assert got["iou2_up_leg"] == 0
    assert np.isnan(got["iou2_low_leg"])
    assert got["miou2"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert got["miou1"] == pytest.approx((3 / 4 + 0) / 2)
    assert got["miou0"] == 4 / 5
    assert got["pixel_accuracy"] == 2 / 5


@pytest.mark.parametrize("leaves", [2, 7, 15, 16, 40, 200])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_counting_in_bytes_and_beyond(leaves, dtype):
    rng = np.random.default_rng(leaves)
    truth, guess = rng.integers(0, leaves, (2, 3, 500))
    truth[rng.random(truth.shape) < 0.1] = 255
    expected = np.zeros((3, leaves, leaves), np.int64)
    for b in range(3):
        keep = truth[b] != 255
        np.add.at(expected[b], (truth[b][keep], guess[b][keep]), 1)
    t, g = torch.from_numpy(truth).to(dtype), torch.from_numpy(guess).to(dtype)
    np.testing.assert_array_equal(confusion_matrix(g, t, leaves, per_image=True).numpy(), expected)
    np.testing.assert_array_equal(confusion_matrix(g, t, leaves).numpy(), expected.sum(0))


@pytest.mark.parametrize(
    ("guess", "truth", "said"),
    [
        ([7], [0], "prediction: id 7"),
        ([255], [0], "prediction: id 255"),
        ([-1], [0], "prediction: id -1"),
        ([0], [7], "target: id 7"),
        ([0], [37], "target: id 37"),
        ([0], [254], "target: id 254"),
        ([0], [256], "target: id 256"),
        ([0, 0], [0], "shape"),
        ([0], [0.0], "float"),
    ],
)
def test_ids_outside_the_tree_are_refused(guess, truth, said):
    with pytest.raises(InputError, match=said):
        confusion_matrix(torch.tensor(guess)[None], torch.tensor(truth)[None], 7)


def test_scores_from_logits_and_typed_tensors():
    from fastai.torch_core import TensorImage, TensorMask

    truth, guess = masks(TREES[3], 1)
    logits = torch.nn.functional.one_hot(guess, 7).movedim(-1, 1).float()
    metric = LevelIoU(TREES[3])
    metric.update(TensorImage(logits), TensorMask(truth))
    assert metric.compute() == scored(TREES[3], truth, guess).compute()


def test_states_of_processes_add_up():
    truth, guess = masks(TREES[3], 2)
    for definition in ("dataset", "image", "image_class"):
        whole = scored(TREES[3], truth, guess, definition)
        parts = [scored(TREES[3], truth[:4], guess[:4], definition), scored(TREES[3], truth[4:], guess[4:], definition)]
        for state, reduce in whole._reductions.items():
            assert reduce is not None
            assert torch.allclose(getattr(whole, state), sum(getattr(part, state) for part in parts))


def test_before_any_batch_and_after_a_reset():
    metric = LevelIoU(TREES[3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(value.isnan() for value in metric.compute().values())
    truth, guess = masks(TREES[3], 2)
    first = scored(TREES[3], truth, guess)
    first.reset()
    first.update(guess[:2], truth[:2])
    assert first.compute() == scored(TREES[3], truth[:2], guess[:2]).compute()
    with pytest.raises(InputError, match="definition"):
        LevelIoU(TREES[3], "median")

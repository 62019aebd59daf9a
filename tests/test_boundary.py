import numpy as np
import pytest
from test_decoding import UNEVEN
from test_hierarchy import TREE

from fastseg.inference.boundary import boundary_counts
from fastseg.inference.scores import Counts, summary


def naive_boundary(mask, reach):
    """Pixels of a class with a pixel of another, or the outside, in the square of `reach` around: one by one."""
    high, wide = mask.shape
    out = np.zeros_like(mask)
    for y in range(high):
        for x in range(wide):
            around = [(y + dy, x + dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
            inside = all(0 <= a < high and 0 <= b < wide and mask[a, b] for a, b in around)
            out[y, x] = mask[y, x] and not inside
    return out


def naive(tree, guess, truth, width):
    reach = max(1, round(width * (truth.shape[0] ** 2 + truth.shape[1] ** 2) ** 0.5))
    found = np.zeros((tree.node_count, 2), int)
    for level, own in enumerate(tree.node_slices):
        for node in range(len(tree.names(level))):
            members = tree.levels[level].members(node)
            ours = naive_boundary(np.isin(guess, members) & (truth != 255), reach)
            theirs = naive_boundary(np.isin(truth, members), reach)
            found[own.start + node] = (ours & theirs).sum(), (ours | theirs).sum()
    return found


def blobs(leaves, seed, shape=(24, 30)):
    """Patches of classes, so that there is an inside."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for _ in range(6):
        y, x, h, w = (int(v) for v in rng.integers(0, 20, 4))
        mask[y : y + h, x : x + w] = rng.integers(0, leaves)
    return mask


@pytest.mark.parametrize("tree", [TREE, UNEVEN])
@pytest.mark.parametrize("width", [0.02, 0.08])
@pytest.mark.parametrize("seed", range(3))
def test_boundaries_against_a_naive_version(tree, width, seed):
    truth, guess = blobs(len(tree), seed), blobs(len(tree), seed + 9)
    guess[:12] = truth[:12]
    truth[5:9, 5:20] = 255
    np.testing.assert_array_equal(boundary_counts(tree, guess, truth, width), naive(tree, guess, truth, width))


def test_a_square_one_pixel_too_far_by_hand():
    # Two outlines of 20 pixels; moved sideways by one, they share 5 pixels above and 5 below.
    truth, guess = np.zeros((2, 12, 14), np.uint8)
    truth[3:9, 3:9], guess[3:9, 4:10] = 2, 2
    counts = boundary_counts(TREE, guess, truth)
    torso = TREE.node_slices[2].start + 2
    assert counts[torso].tolist() == [10, 30]
    scores = summary(TREE, Counts(["p"], np.eye(7, dtype=np.int32)[None], counts[None]), "dataset", {})
    assert scores["boundary"]["miou2"] == scores["boundary"]["classes"]["torso"] == 10 / 30
    assert scores["boundary"]["classes"]["head"] is None
    assert scores["boundary"]["width"] == 0.02


def test_means_follow_the_definition():
    matrices = np.zeros((2, 7, 7), np.int32)
    counts = np.zeros((2, 12, 2), np.int32)
    counts[0, 2], counts[1, 2], counts[1, 4] = (1, 2), (1, 10), (3, 3)
    means = {d: summary(TREE, Counts(["a", "b"], matrices, counts), d, {})["boundary"]["miou2"]
             for d in ("dataset", "image", "image_class")}  # fmt: skip
    assert means["dataset"] == pytest.approx((2 / 12 + 1) / 2)
    assert means["image"] == pytest.approx((1 / 2 + (1 / 10 + 1) / 2) / 2)
    assert means["image_class"] == pytest.approx((1 / 2 + 1 / 10 + 1) / 3)

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from batches import GROUPS, TREE, batch, pixels

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.learning.losses import CrossEntropy
from fastseg.learning.tree_losses import LevelCELoss, TreeMinLoss

# Pascal-Part's nodes by hand, in the order of the head: parts 0-6, then background, upper, lower, background, body.
ABOVE = {0: 7, 1: 8, 2: 8, 3: 9, 4: 8, 5: 9, 6: 8, 7: 10, 8: 11, 9: 11}
LEVEL = [2] * 7 + [1] * 3 + [0] * 2
TREES = [
    Hierarchy({"p": {"q": {"r": {"a": 4, "b": 0}, "c": 2}, "d": 5}, "e": 1, "bg": 3}),
    Hierarchy({"a": 0, "x": {"b": 2, "c": 1}}),
    Hierarchy({"background": 0, "a": 1, "b": 2}),
]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def chain(node, above):
    """A node and its ancestors."""
    return [node, *(chain(above[node], above) if node in above else [])]


def slow_tree_min(some, above, level, gamma=2.0, levels=None):
    """The formula, pixel by pixel and node by node; each level divided by its own number of nodes."""
    total = 0.0
    for logits, t in some:
        s = [sigmoid(x) for x in logits]
        for v in range(len(s)):
            weight = (levels or {}).get(level[v], 0.0 if levels else 1.0) / level.count(level[v])
            if v in chain(t, above):
                p = min(s[u] for u in chain(v, above))
                total -= weight * (1 - p) ** gamma * math.log(p)
            else:
                p = max(s[u] for u in range(len(s)) if v in chain(u, above))
                total -= weight * p**gamma * math.log(1 - p)
    return total / max(len(some), 1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("levels", [None, {0: 0.5, 2: 2.0}])
def test_tree_min_equals_the_formula_pixel_by_pixel(gamma, levels):
    logits, target = batch(channels=12)
    loss = TreeMinLoss(TREE, levels, gamma)
    expected = slow_tree_min(list(pixels(logits, target)), ABOVE, LEVEL, gamma, levels)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-7)
    loss.reduction = "none"
    each = [slow_tree_min(list(pixels(logits, target, [b])), ABOVE, LEVEL, gamma, levels) for b in range(3)]
    assert loss(logits, target).tolist() == pytest.approx(each, abs=1e-7)


def test_tree_min_of_two_pixels_by_hand():
    """A thigh (5) whose lower body is doubted, and background taken for an upper arm (6)."""
    thigh = [0.1, 0.2, 0.1, 0.3, 0.1, 0.6, 0.2, 0.1, 0.4, 0.5, 0.2, 0.9]
    ground = [0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8, 0.6, 0.3, 0.2, 0.9, 0.4]
    logits = torch.tensor([thigh, ground], dtype=torch.float64).T.reshape(1, 12, 1, 2).logit()
    target = torch.tensor([[[5, 0]]])

    def yes(p):
        return -((1 - p) ** 2) * math.log(p)

    def no(p):
        return -(p**2) * math.log(1 - p)

    # The part itself says .6, but its group .5; that a knee was seen at .3 weighs on no group that is true.
    leaves = yes(0.5) + 3 * no(0.1) + 2 * no(0.2) + no(0.3)
    groups = yes(0.5) + no(0.1) + no(0.4)
    roots = yes(0.9) + no(0.2)
    # Background is .7 but .6 on the level above; the upper arm's .8 weighs on upper body and on body.
    leaves_2 = yes(0.6) + 5 * no(0.1) + no(0.8)
    groups_2 = yes(0.6) + no(0.8) + no(0.2)
    roots_2 = yes(0.9) + no(0.8)
    expected = ((leaves + leaves_2) / 7 + (groups + groups_2) / 3 + (roots + roots_2) / 2) / 2
    assert TreeMinLoss(TREE)(logits, target).item() == pytest.approx(expected, abs=1e-9)


def test_only_the_deciding_node_is_blamed():
    logits = torch.zeros(1, 12, 1, 1, dtype=torch.float64)
    logits[0, [5, 9, 11]] = torch.tensor([3.0, -4.0, 2.0], dtype=torch.float64).view(3, 1, 1)
    logits.requires_grad_()
    TreeMinLoss(TREE, {2: 1})(logits, torch.tensor([[[5]]])).backward()
    assert logits.grad[0, 9] < 0
    assert logits.grad[0, [5, 7, 8, 10, 11]].abs().sum() == 0


@pytest.mark.parametrize("tree", TREES)
def test_tree_min_on_other_trees(tree):
    """Leaves of several depths, which stand for themselves further down; no background; one level."""
    places = [range(*at.indices(tree.node_count)) for at in tree.node_slices]
    above = {places[d][tree.levels[d].table[leaf]]: places[d - 1][tree.levels[d - 1].table[leaf]]
             for d in range(1, tree.depth) for leaf in range(len(tree))}  # fmt: skip
    level = [d for d in reversed(range(tree.depth)) for _ in tree.names(d)]
    logits = torch.randn(2, tree.node_count, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.randint(0, len(tree), (2, 4, 3), generator=torch.Generator().manual_seed(2))
    target[0, 0] = 255
    expected = slow_tree_min(list(pixels(logits, target)), above, level)
    assert TreeMinLoss(tree)(logits, target).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("tree", [TREE, *TREES])
def test_leaf_probabilities_of_a_head_of_nodes_are_those_of_its_coherent_states(tree):
    """Every assignment of yes and no to the nodes that makes one path true, weighed by the sigmoids."""
    paths = [{tree.node_slices[d].start + tree.levels[d].table[leaf] for d in range(tree.depth)}
             for leaf in range(len(tree))]  # fmt: skip
    logits = torch.randn(tree.node_count, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    weights = dict.fromkeys(range(len(tree)), 0.0)
    for state in product([False, True], repeat=tree.node_count):
        true = {v for v, yes in enumerate(state) if yes}
        if true in paths:
            chances = (sigmoid(x) if yes else 1 - sigmoid(x) for x, yes in zip(logits.tolist(), state, strict=True))
            weights[paths.index(true)] = math.prod(chances)
    loss, batched = TreeMinLoss(tree), logits.view(1, -1, 1, 1)
    found = loss.activation(batched)
    expected = torch.tensor([w / sum(weights.values()) for w in weights.values()], dtype=torch.float64)
    assert torch.allclose(found.flatten(), expected)
    assert loss.decodes(batched).item() == loss.decodes(found).item() == int(expected.argmax())


def test_decoding_follows_the_path_and_not_the_leaf():
    logits = torch.full((1, 12, 1, 1), -3.0)
    # The head alone is likeliest, but the path to the thigh is.
    logits[0, 4], logits[0, 5], logits[0, 9], logits[0, 11] = 2.0, 1.0, 2.0, 2.0
    loss = TreeMinLoss(TREE)
    assert logits[:, :7].argmax(1).item() == 4
    assert loss.decodes(logits).item() == loss.decodes(loss.activation(logits)).item() == 5


@pytest.mark.parametrize("levels", [None, {0: 1.0}, {1: 1.0}, {0: 0.5, 1: 1.0, 2: 3.0}])
def test_level_ce_equals_the_formula_pixel_by_pixel(levels):
    logits, target = batch()
    weights, total, some = levels or {0: 1, 1: 1, 2: 1}, 0.0, list(pixels(logits, target))
    for x, t in some:
        e = [math.exp(v) for v in x]
        for level, weight in weights.items():
            (leaves,) = (leaves for leaves in GROUPS[level] if t in leaves)
            total -= weight * math.log(sum(e[leaf] for leaf in leaves) / sum(e))
    expected = total / sum(weights.values()) / len(some)
    assert LevelCELoss(TREE, levels)(logits, target).item() == pytest.approx(expected, abs=1e-12)


def test_level_ce_on_the_leaves_is_cross_entropy_and_at_the_top_is_binary():
    logits, target = batch()
    assert LevelCELoss(TREE, [2])(logits, target).item() == pytest.approx(CrossEntropy()(logits, target).item())
    valid = target != 255
    odds = logits[:, 1:].logsumexp(1) - logits[:, 0]
    binary = F.binary_cross_entropy_with_logits(odds[valid], (target[valid] > 0).double())
    assert LevelCELoss(TREE, [0])(logits, target).item() == pytest.approx(binary.item())


@pytest.mark.parametrize("make", [LevelCELoss, TreeMinLoss])
def test_far_logits_are_finite(make):
    logits = torch.full((1, 12 if make is TreeMinLoss else 7, 1, 2), -500.0)
    logits[:, 3] = 500
    for gamma in [{"gamma": g} for g in (0, 0.5, 2)] if make is TreeMinLoss else [{}]:
        x = logits.clone().requires_grad_()
        make(TREE, **gamma)(x, torch.tensor([[[3, 1]]])).backward()
        assert torch.isfinite(x.grad).all()


def test_wrong_use():
    with pytest.raises(InputError, match="level 3"):
        TreeMinLoss(TREE, [3])
    with pytest.raises(InputError, match="LevelCELoss: the levels' weights"):
        LevelCELoss(TREE, {1: 0})
    with pytest.raises(InputError, match="gamma -1"):
        TreeMinLoss(TREE, gamma=-1)
    with pytest.raises(ValueError, match="7 channels, the tree has 12 nodes"):
        TreeMinLoss(TREE)(*batch())
    with pytest.raises(ValueError, match="3 channels, the classes are 7"):
        LevelCELoss(TREE)(*batch(channels=3))

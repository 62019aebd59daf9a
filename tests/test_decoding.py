import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hierarchy import TREE, UNEVEN, trees

from fastseg.decoding import DECODERS, HEADS, leaf_ids
from fastseg.errors import InputError
from fastseg.learning.metrics import LevelIoU


def node_values(tree, logits, head):
    """By level a list of node values of one pixel: log marginals by plain sums, or the head's own logits."""
    if head == "nodes":
        below = [sum(len(tree.names(d)) for d in range(level + 1, tree.depth)) for level in range(tree.depth)]
        return [
            [logits[start + node] for node in range(len(tree.names(d)))]
            for d, start in zip(range(tree.depth), below, strict=True)
        ]
    total = sum(math.exp(v) for v in logits)
    sums = [[0.0] * len(level.names) for level in tree.levels]
    for level, row in zip(tree.levels, sums, strict=True):
        for leaf, value in enumerate(logits):
            row[level.table[leaf]] += math.exp(value) / total
    return [[math.log(v) for v in row] for row in sums]


def naive(tree, logits, how, head):
    """One pixel's leaf, from the definitions."""
    values = node_values(tree, logits, head)
    if how == "leaf":
        return max(range(len(tree)), key=lambda leaf: values[-1][leaf])
    if how == "path":
        tables = [level.table for level in tree.levels]
        return max(range(len(tree)), key=lambda leaf: sum(v[t[leaf]] for v, t in zip(values, tables, strict=True)))
    node = max(range(len(values[0])), key=lambda n: values[0][n])
    for level in range(1, tree.depth):
        children = [n for n, parent in enumerate(tree.parents(level)) if parent == node]
        node = max(children, key=lambda n: values[level][n])
    return node


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("how", DECODERS)
@settings(max_examples=30, deadline=None)
@given(tree=trees(), seed=st.integers(0, 2**32 - 1))
def test_ways_against_their_definitions_and_all_levels_agree(how, head, tree, seed):
    channels = len(tree) if head == "leaves" else tree.node_count
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (2, channels, 3, 4)))
    ids = tree.decode(logits, how, head=head)
    assert ids.dtype == torch.uint8
    assert ids.shape == (2, 3, 4)
    assert int(ids.max()) < len(tree)
    expected = [naive(tree, pixel, how, head) for pixel in logits.movedim(1, -1).reshape(-1, channels).tolist()]
    assert ids.flatten().tolist() == expected
    for level in range(1, tree.depth):
        above, parents = tree.merge(ids, level - 1), torch.tensor(tree.parents(level), dtype=torch.uint8)
        assert torch.equal(parents[tree.merge(ids, level).long()], above)


def test_three_ways_differ_by_hand():
    # Leaf probabilities: background .3, torso .19, head .18, low_hand .02, up_hand .01 (upper .4), low_leg .28, up_leg
    # .02 (lower .3). Largest leaf: background. Body .7 over background, upper .4 over lower .3, there torso. Products
    # along the path: background .3 × .3 × .3 = .027; torso .7 × .4 × .19 = .0532; low_leg .7 × .3 × .28 = .0588.
    probs = torch.tensor([0.3, 0.02, 0.19, 0.28, 0.18, 0.02, 0.01])
    ways = {how: TREE.leaves[int(TREE.decode(probs.log()[None], how)[0])] for how in DECODERS}
    assert ways == {"leaf": "background", "top_down": "torso", "path": "low_leg"}


def test_nodes_by_hand_are_hssns_rule():
    """Leaf + its middle + its top logit, as encoder_decoder.py of the published code adds them up."""
    logits = torch.zeros(1, 12)
    logits[0, :7] = torch.tensor([2.0, 0, 1.5, 1.9, 1.0, 0, 0])  # leaves
    logits[0, 7:10] = torch.tensor([-1.0, 0.2, 0.9])  # background, upper, lower
    logits[0, 10:] = torch.tensor([0.0, -0.5])  # background, body
    scores = [2.0 - 1 + 0, 1.5 + 0.2 - 0.5, 1.9 + 0.9 - 0.5]
    assert max(scores) == scores[2]
    assert [TREE.leaves[int(TREE.decode(logits, how, head="nodes")[0])] for how in DECODERS] == [
        "background", "background", "low_leg"]  # fmt: skip


def test_node_slices_are_deepest_first():
    assert TREE.node_slices == (slice(10, 12), slice(7, 10), slice(0, 7))
    assert TREE.node_count == 12
    assert UNEVEN.node_slices == (slice(9, 12), slice(5, 9), slice(0, 5))


def test_leaf_ids_are_argmax_ties_included():
    for seed in range(5):
        logits = torch.randint(0, 4, (2, 7, 33, 21), generator=torch.Generator().manual_seed(seed)).float()
        assert torch.equal(leaf_ids(logits).long(), logits.argmax(1))
        assert torch.equal(leaf_ids(logits.movedim(1, -1), -1).long(), logits.argmax(1))
    assert leaf_ids(torch.rand(2, 300, 4)).dtype == torch.int64


@pytest.mark.parametrize("how", DECODERS)
def test_numpy_dimensions_and_extreme_logits(how):
    logits = np.random.default_rng(0).normal(0, 1, (2, 7, 5)).astype(np.float32)
    ids = TREE.decode(logits, how)
    assert isinstance(ids, np.ndarray)
    np.testing.assert_array_equal(ids, TREE.decode(np.moveaxis(logits, 1, -1), how, dim=-1))
    far = torch.full((1, 7), -1e4)
    far[0, 5] = 1e4
    assert TREE.decode(far, how).tolist() == [5]
    assert TREE.decode(far.half(), how).tolist() == [5]
    only = torch.full((1, 7), -torch.inf)
    only[0, 3] = 0
    assert TREE.decode(only, how).tolist() == [3]
    for value in (-torch.inf, torch.nan):
        assert int(TREE.decode(torch.full((1, 7), value), how)) < 7


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("how", DECODERS)
def test_scores_use_the_way_they_are_told(how, head):
    logits = torch.randn(3, 7 if head == "leaves" else 12, 6, 9, generator=torch.Generator().manual_seed(1))
    truth = torch.randint(0, 7, (3, 6, 9), generator=torch.Generator().manual_seed(2))
    ours, plain = LevelIoU(TREE, decode=how, head=head), LevelIoU(TREE)
    ours.update(logits, truth)
    plain.update(TREE.decode(logits, how, head=head), truth)
    assert ours.compute() == plain.compute()


def test_what_there_is_not():
    logits = torch.zeros(1, 7, 2, 2)
    with pytest.raises(InputError, match="decode 'best' is none of leaf, top_down, path"):
        TREE.decode(logits, "best")
    with pytest.raises(InputError, match="head 'trees'"):
        LevelIoU(TREE, head="trees")
    with pytest.raises(InputError, match="7 channels; the head 'nodes' of this tree has 12"):
        TREE.decode(logits, head="nodes")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("how", DECODERS)
@pytest.mark.parametrize("dim", [1, -1])
def test_numpy_decodes_as_torch_does(how, head, dim):
    channels = len(TREE) if head == "leaves" else TREE.node_count
    logits = np.random.default_rng(0).normal(0, 2, (2, channels, 9, 11)).astype(np.float32)
    logits = np.moveaxis(logits, 1, dim)
    before = logits.copy()
    ids = TREE.decode(logits, how, dim, head)
    assert isinstance(ids, np.ndarray)
    assert ids.dtype == np.uint8
    assert (ids == TREE.decode(torch.from_numpy(logits), how, dim, head).numpy()).all()
    assert (logits == before).all()

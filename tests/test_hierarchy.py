import itertools

import numpy as np
import pytest
import torch
from fastai.torch_core import TensorMask
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
UNEVEN = Hierarchy({"person": {"carried": 2, "body": {"hair": 0, "skin": 4}}, "scene": {"background": 3}, "dog": 1})
LIP = {
    "background": 0, "head": {"hat": 1, "hair": 2, "sunglasses": 4, "face": 13},
    "clothes": {"glove": 3, "upper": 5, "dress": 6, "coat": 7, "socks": 8, "pants": 9, "jumpsuits": 10, "scarf": 11,
                "skirt": 12},
    "arms": {"left-arm": 14, "right-arm": 15},
    "legs": {"left-leg": 16, "right-leg": 17, "left-shoe": 18, "right-shoe": 19},
}  # fmt: skip
SIDES = [("left-arm", "right-arm"), ("left-leg", "right-leg"), ("left-shoe", "right-shoe")]


def test_levels_of_pascal_part():
    assert TREE.names(0) == ["background", "body"]
    assert TREE.names(1) == ["background", "upper_body", "lower_body"]
    assert TREE.names() == ["background", "low_hand", "torso", "low_leg", "head", "up_leg", "up_hand"]
    assert [TREE.foreground(level) for level in range(3)] == [[1], [1, 2], [1, 2, 3, 4, 5, 6]]
    assert TREE.parents() == [0, 1, 1, 2, 1, 2, 1]
    assert TREE.parents(1) == [0, 1, 1]


def test_a_shallow_leaf_stands_for_itself_and_background_belongs_nowhere():
    assert UNEVEN.names(0) == ["person", "dog", "background"]
    assert UNEVEN.names(1) == ["body", "dog", "carried", "background"]
    assert UNEVEN.names(2) == ["hair", "dog", "carried", "background", "skin"]
    assert UNEVEN.levels[0].table == (0, 1, 0, 2, 0)
    assert UNEVEN.foreground(0) == [0, 1]
    assert UNEVEN.foreground(2) == [0, 1, 2, 4]
    assert UNEVEN.parents(2) == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16])
def test_merge_keeps_dtype_and_shape_in_numpy_and_torch(dtype):
    mask = np.array([[0, 1, 2, 3], [4, 5, 6, 0]], dtype)
    expected = np.array([[0, 1, 1, 2], [1, 2, 1, 0]], dtype)
    merged = TREE.merge(mask, 1)
    assert merged.dtype == dtype
    np.testing.assert_array_equal(merged, expected)
    if dtype != np.uint16:
        tensor = TREE.merge(torch.from_numpy(mask), 1)
        assert tensor.dtype == torch.from_numpy(mask).dtype
        np.testing.assert_array_equal(tensor.numpy(), expected)


def test_merge_lets_255_through_and_refuses_strangers():
    assert TREE.merge(np.array([255, 5], np.uint8), 1).tolist() == [255, 2]
    assert TREE.merge(TensorMask(torch.tensor([255, 5])), 0).tolist() == [255, 1]
    assert TREE.merge(np.zeros((0, 3), np.uint8)).shape == (0, 3)
    for bad in (7, 254, 256, -1):
        with pytest.raises(InputError, match=f"id {bad} is not in the tree"):
            TREE.merge(np.array([0, bad], np.int64))
        with pytest.raises(InputError, match=f"id {bad} is not in the tree"):
            TREE.merge(torch.tensor([0, bad]))
    with pytest.raises(InputError, match="float"):
        TREE.merge(np.zeros(3))
    with pytest.raises(InputError, match="level 3"):
        TREE.merge(np.array([0]), 3)


@st.composite
def trees(draw, depth=4):
    """A random tree: leaves get shuffled ids, background may hang anywhere or be missing."""
    names = (f"n{i}" for i in itertools.count())

    def node(left):
        size = draw(st.integers(1, 3))
        if left == 0 or draw(st.booleans()):
            return None
        return {next(names): node(left - 1) for _ in range(size)}

    tree = {next(names): node(depth - 1) for _ in range(draw(st.integers(1, 3)))}
    places = []

    def collect(group):
        for name, child in group.items():
            collect(child) if isinstance(child, dict) else places.append((group, name))

    if draw(st.booleans()):
        tree["background"] = None
    collect(tree)
    for (group, name), leaf in zip(places, draw(st.permutations(range(len(places)))), strict=True):
        group[name] = leaf
    return Hierarchy(tree) if len(places) > ("background" in tree) else Hierarchy({**tree, "more": len(places)})


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1))
def test_fold_equals_counting_merged_masks(tree, seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, len(tree), (2, 200))
    counts = np.zeros((len(tree), len(tree)), np.int64)
    np.add.at(counts, (truth, guess), 1)
    for level in range(tree.depth):
        n = len(tree.names(level))
        expected = np.zeros((n, n), np.int64)
        np.add.at(expected, (tree.merge(truth, level), tree.merge(guess, level)), 1)
        np.testing.assert_array_equal(tree.fold(counts, level), expected)
        np.testing.assert_array_equal(tree.fold(torch.from_numpy(counts), level).numpy(), expected)
        np.testing.assert_array_equal(tree.fold(np.stack([counts, 2 * counts]), level)[1], 2 * expected)


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1))
def test_marginals_are_sums_over_leaves_and_add_up_along_the_tree(tree, seed):
    probs = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(len(tree)), (2, 3))).movedim(-1, 1)
    for level in range(tree.depth):
        got = tree.marginals(probs, level)
        for node, name in enumerate(tree.names(level)):
            leaves = [i for i in range(len(tree)) if tree.levels[level].table[i] == node]
            assert torch.allclose(got[:, node], sum(probs[:, i] for i in leaves)), name
        np.testing.assert_allclose(tree.marginals(probs.numpy(), level), got.numpy())
        if level:
            above, parents = tree.marginals(probs, level - 1), tree.parents(level)
            for node in range(above.shape[1]):
                below = [i for i, parent in enumerate(parents) if parent == node]
                assert torch.allclose(above[:, node], got[:, below].sum(1))


@settings(max_examples=30, deadline=None)
@given(trees())
def test_yaml_round_trip(tree):
    assert Hierarchy.from_yaml(tree.to_yaml()) == tree


def test_yaml_keeps_mirror_pairs(tmp_path):
    tree = Hierarchy(LIP, SIDES)
    assert tree.mirror == ((14, 15), (16, 17), (18, 19))
    (tmp_path / "tree.yaml").write_text(tree.to_yaml())
    assert Hierarchy.from_yaml(tmp_path / "tree.yaml") == tree
    assert Hierarchy.from_yaml("background: 0\nbody: 1\n").names() == ["background", "body"]
    assert TREE.mirror == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{a: 0, b: {c: 1, d: 1}}", "'c' and 'd'"),
        ("{a: 0, b: 2}", "id 1 is missing"),
        ("{a: 0, b: {}}", "'b' is empty"),
        ("{}", "empty"),
        ("{a: 0, b: null}", "'b' has None"),
        ("{a: 0, b: true}", "'b' has True"),
        ("{a: 0, b: c}", "'b' has 'c'"),
        ("{a: -1, b: 0}", "'a' has id -1"),
        ("{a: 0, b: {a: 1}}", "'a' stands twice"),
        ("{background: 0, bg: 1}", "background"),
        ("{background: 0}", "nothing but background"),
        ("{1: 0, b: 1}", "name 1"),
        ("[a, b]", "not a mapping"),
        ("a: &x {b: 0, c: *x}", "contains itself"),
    ],
)
def test_wrong_trees_are_refused_by_name(text, named):
    with pytest.raises(InputError, match=named):
        Hierarchy.from_yaml(text)


@pytest.mark.parametrize(
    ("pairs", "named"),
    [([("head", "tail")], "'tail'"), ([("head",)], "head"), ([("head", "torso"), ("torso", "low_leg")], "two pairs")],
)
def test_wrong_mirrors_are_refused(pairs, named):
    with pytest.raises(InputError, match=named):
        Hierarchy(PASCAL_PART, pairs)


def test_a_head_of_nodes_has_the_leaves_first_and_the_roots_last():
    assert TREE.node_slices == (slice(10, 12), slice(7, 10), slice(0, 7))
    assert (TREE.node_count, TREE.channels("nodes"), TREE.channels("leaves")) == (12, 12, 7)
    hanging = Hierarchy({"p": {"q": {"a": 0, "b": 2}, "c": 1}, "background": 3})
    assert hanging.node_slices == (slice(7, 9), slice(4, 7), slice(0, 4))
    for level, at in enumerate(hanging.node_slices):
        assert at.stop - at.start == len(hanging.names(level))

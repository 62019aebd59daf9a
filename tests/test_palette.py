"""Colours show who hangs where, and stay apart for eyes with a colour deficiency."""

import colorsys
import itertools

import numpy as np
import pytest

from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
UNEVEN = Hierarchy({"person": {"carried": 2, "body": {"hair": 0, "skin": 4}}, "scene": {"background": 3}, "dog": 1})


def test_children_are_shades_of_their_parents_hue():
    colours = TREE.colours()
    hues = [colorsys.rgb_to_hsv(*(colours[i] / 255))[0] for i in range(7)]
    parent_hues = [colorsys.rgb_to_hsv(*(c / 255))[0] for c in TREE.colours(1)]
    for leaf, parent in enumerate(TREE.parents()):
        if leaf:
            assert abs(hues[leaf] - parent_hues[parent]) < 0.09
    assert colours[0].tolist() == [0, 0, 0]


def _seen(rgb, matrix):
    """Linear RGB as a dichromat sees it (Viénot, Brettel & Mollon 1999)."""
    linear = (rgb / 255.0) ** 2.2
    return (linear @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2) * 255


@pytest.mark.parametrize("matrix", [
    np.eye(3),
    [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
])  # fmt: skip
@pytest.mark.parametrize("tree", [TREE, UNEVEN, Hierarchy({f"c{i}": i for i in range(7)})])
def test_colours_stay_apart_for_the_colour_blind(tree, matrix):
    for level in range(tree.depth):
        seen = _seen(tree.colours(level).astype(float), matrix)
        for a, b in itertools.combinations(seen, 2):
            assert np.linalg.norm(a - b) > 25, (level, a, b)

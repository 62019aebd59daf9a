import numpy as np
import pytest

from fastseg.experiments.examples import Example, choose, read_examples, write_examples
from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)


def matrices(scores):
    """One photograph for each score: so many of 100 pixels of class 2 are found; None is all background."""
    found = np.zeros((len(scores), 7, 7), np.int32)
    for matrix, score in zip(found, scores, strict=True):
        if score is None:
            matrix[0, 0] = 100
        else:
            matrix[2, 2], matrix[2, 0] = score, 100 - score
    return found


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([50, 10, 90], {"best": [2], "median": [0], "worst": [1]}),
        ([50, None, 90], {"best": [2], "worst": [0]}),
        ([50], {"best": [0]}),
        ([None], {}),
        (list(range(0, 99, 3)), {"best": [32, 31, 30], "median": [17, 16, 15], "worst": [2, 1, 0]}),
    ],
)
def test_best_median_and_worst_each_once(scores, chosen):
    found = choose(TREE, matrices(scores))
    groups = {}
    for group, place, score in found:
        groups.setdefault(group, []).append(place)
        assert score == pytest.approx(scores[place] / 100)
    assert groups == chosen


def test_small_copies_in_the_run_folder(tmp_path):
    image = np.full((300, 900, 3), 90, np.uint8)
    truth = np.zeros((300, 900), np.uint8)
    truth[:, 450:], truth[0] = 6, 255
    small = Example("<small>", "worst", 0.1, image[:30, :40], truth[:30, :40], truth[:30, :40])
    write_examples(tmp_path, [Example("wide", "best", 0.5, image, truth, 6 - truth.clip(0, 6)), small])
    wide, other = read_examples(tmp_path)
    assert (wide.name, wide.group, wide.score) == ("wide", "best", 0.5)
    assert wide.image.shape == (133, 400, 3)
    assert set(np.unique(wide.truth)) <= {0, 6, 255}
    assert (wide.predicted[50, 300], wide.truth[50, 300]) == (0, 6)
    assert other.image.shape == (30, 40, 3)
    assert (other.truth == small.truth).all()
    write_examples(tmp_path, [small])
    assert [one.name for one in read_examples(tmp_path)] == ["<small>"]
    assert [path.name for path in tmp_path.iterdir()] == ["examples"]
    (tmp_path / "examples" / "1.jpg").write_bytes(b"nothing")
    assert read_examples(tmp_path) == []

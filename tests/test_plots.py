import numpy as np
import pytest

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.plots import confusion_figure, curves_figure, overlay, results_figure, save_figure

TREE = Hierarchy(PASCAL_PART)
GREY = np.full((2, 3, 3), 100, np.uint8)


def test_overlay_by_hand():
    ids = np.array([[0, 4, 255], [0, 5, 0]], np.uint8)
    picture = overlay(GREY, ids, TREE, level=1, alpha=0.5)
    assert picture.dtype == np.uint8
    assert (picture[ids == 0] == 100).all()
    upper, lower = TREE.colours(1)[1:].astype(int)
    assert np.abs(picture[0, 1] - (100 + upper) / 2).max() <= 1
    assert np.abs(picture[1, 1] - (100 + lower) / 2).max() <= 1
    assert picture[0, 2].tolist() == [130, 130, 130]


def test_results_show_photograph_truth_and_prediction_with_a_legend(tmp_path):
    ids = np.array([[0, 4, 255], [0, 5, 0]], np.uint8)
    figure = results_figure([("one", GREY, ids, ids), ("two", GREY.transpose(1, 0, 2), ids.T, ids.T)], TREE)
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes[:3]] == ["one", "truth", "prediction"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["low hand", "torso", "low leg", "head", "up leg", "up hand"]
    save_figure(figure, tmp_path / "results.png")
    assert [path.name for path in tmp_path.iterdir()] == ["results.png"]


@pytest.mark.parametrize("best", [None, 2])
def test_curves_plot_what_the_history_says(best):
    history = {"epoch": [1, 2], "train_loss": [2.0, 1.0], "valid_loss": [3.0, 2.5]}
    history |= {f"miou{level}": [0.1 * level, 0.2 * level] for level in range(3)}
    losses, scores = curves_figure(history, TREE, best).axes
    assert [list(line.get_ydata()) for line in losses.lines] == [[2.0, 1.0], [3.0, 2.5]]
    assert [list(line.get_ydata()) for line in scores.lines[:3]] == [[0, 0], [0.1, 0.2], [0.2, 0.4]]
    assert list(scores.lines[0].get_xdata()) == [1, 2]
    labels = [text.get_text() for text in scores.get_legend().get_texts()]
    assert labels[:3] == ["miou0 (body)", "miou1 (2 classes)", "miou2 (6 classes)"]
    assert ("kept: epoch 2" in labels) == (best is not None)


def test_confusion_at_every_level_in_percent():
    counts = np.zeros((7, 7), np.int64)
    counts[4, 4], counts[4, 2], counts[0, 0] = 3, 1, 5
    figure = confusion_figure(counts, TREE)
    shares = [ax.images[0].get_array() for ax in figure.axes]
    assert [array.shape for array in shares] == [(2, 2), (3, 3), (7, 7)]
    assert shares[2][4].tolist() == [0, 0, 25, 0, 75, 0, 0]
    assert shares[1][1].tolist() == [0, 100, 0]
    assert not shares[2][3].any()
    assert sorted(text.get_text() for text in figure.axes[2].texts) == ["100", "25", "75"]

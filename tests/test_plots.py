import numpy as np
import pytest

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.plots import confusion_figure, curves_figure, results_figure, save_figure

TREE = Hierarchy(PASCAL_PART)
GREY = np.full((2, 3, 3), 100, np.uint8)


def test_results_show_photograph_truth_and_prediction_with_a_legend(tmp_path):
    ids = np.array([[0, 4, 255], [0, 5, 0]], np.uint8)
    figure = results_figure([("one", GREY, ids, ids), ("two", GREY.transpose(1, 0, 2), ids.T, ids.T)], TREE)
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes[:3]] == ["one", "truth", "prediction"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["low hand", "torso", "low leg", "head", "up leg", "up hand"]
    save_figure(figure, tmp_path / "results.png")
    assert [path.name for path in tmp_path.iterdir()] == ["results.png"]


def course(epochs):
    """A history that falls in training, and in validation until the second epoch."""
    history = {"epoch": list(range(1, epochs + 1)), "train_loss": [3.0 - 0.5 * i for i in range(epochs)]}
    history["valid_loss"] = [3.0, *(2.0 + 0.2 * i for i in range(epochs - 1))]
    history["lr"] = [1e-3 / (i + 1) for i in range(epochs)]
    return history | {f"miou{level}": [0.1 * level + 0.01 * i for i in range(epochs)] for level in range(3)}


@pytest.mark.parametrize("best", [None, 1])
def test_curves_plot_what_the_history_says(best):
    history = course(2)
    losses, scores, rates = curves_figure(history, TREE, best).axes
    assert [list(line.get_ydata()) for line in losses.lines[:2]] == [[3.0, 2.5], [3.0, 2.0]]
    assert [list(line.get_ydata()) for line in scores.lines[:3]] == [history[f"miou{level}"] for level in range(3)]
    assert list(scores.lines[0].get_xdata()) == [1, 2]
    assert list(rates.lines[0].get_ydata()) == history["lr"]
    labels = [text.get_text() for text in scores.get_legend().get_texts()]
    assert labels == ["miou0 (body)", "miou1 (2 classes)", "miou2 (6 classes)",
                      "highest: epoch 2" if best is None else "kept: epoch 1"]  # fmt: skip
    assert [list(ax.lines[-1].get_xdata()) for ax in (losses, scores, rates)] == [[best or 2] * 2] * 3
    assert losses.get_title() == "Loss"


def test_curves_say_overfitting_in_words(tmp_path):
    figure = curves_figure(course(5), TREE, 2)
    assert figure.axes[0].get_title().startswith("overfitting after epoch 2:\nvalidation loss up 30%")
    save_figure(figure, tmp_path / "curves.png")
    nothing = {**course(2), "valid_loss": [float("nan")] * 2, "miou2": [float("nan")] * 2}
    assert len(curves_figure(nothing, TREE).axes[0].lines) == 2


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

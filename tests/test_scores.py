import json

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_score, recall_score
from test_metrics import TREES, masks, scored

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.inference.scores import Counts, body_shares, interval, resamplings, summary, weighted_scores
from fastseg.inference.tables import score_table
from fastseg.learning.metrics import DEFINITIONS, confusion_matrix

TREE = Hierarchy(PASCAL_PART)
NAMED = {"protocol": "native", "decode": "leaf", "tta": None, "split": "valid", "data": []}


def counted(tree, truth, guess):
    matrices = confusion_matrix(guess, truth, len(tree), per_image=True).int().numpy()
    return Counts([f"p{i}" for i in range(len(truth))], matrices)


def drawn(tree, seed, images=7):
    truth, guess = masks(tree, seed, images)
    return truth, guess, counted(tree, truth, guess)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("tree", TREES.values())
def test_the_same_as_the_metric_that_watches_training(tree, definition):
    truth, guess, counts = drawn(tree, 4)
    metric = scored(tree, truth, guess, definition)
    got = summary(tree, counts, definition, NAMED)
    for name, value in metric.compute().items():
        assert got[name] == pytest.approx(value.item(), abs=1e-12)
    for level in range(tree.depth):
        for name, value in zip(tree.names(level), metric.class_iou(level).tolist(), strict=True):
            expected = None if np.isnan(value) else pytest.approx(value, abs=1e-12)
            assert got["classes"][name]["iou"] == expected
            assert (name in got["absent"]) == np.isnan(value)


def test_precision_and_recall_against_scikit_learn():
    truth, guess, counts = drawn(TREE, 2)
    classes, valid = summary(TREE, counts, "dataset", NAMED)["classes"], truth != 255
    for level in range(3):
        t, g = TREE.merge(truth[valid], level).numpy(), TREE.merge(guess[valid], level).numpy()
        for node, name in enumerate(TREE.names(level)):
            for key, score in (("precision", precision_score), ("recall", recall_score)):
                if (g if key == "precision" else t)[(g if key == "precision" else t) == node].size:
                    assert classes[name][key] == pytest.approx(score(t == node, g == node))
                else:
                    assert classes[name][key] is None


def test_two_photographs_by_hand():
    # One row of six pixels each: torso 2 and head 4 against background.
    truth = torch.tensor([[2, 2, 4, 0, 0, 255], [0, 0, 0, 0, 0, 0]])
    guess = torch.tensor([[2, 4, 4, 2, 0, 1], [0, 0, 0, 0, 0, 2]])
    counts = counted(TREE, truth, guess)
    got = summary(TREE, counts, "dataset", NAMED)
    assert got["classes"]["torso"] == {"level": 2, "iou": 1 / 4, "precision": 1 / 3, "recall": 1 / 2}
    assert got["classes"]["head"] == {"level": 2, "iou": 1 / 2, "precision": 1 / 2, "recall": 1}
    assert got["classes"]["body"] == {"level": 0, "iou": 3 / 5, "precision": 3 / 5, "recall": 1}
    assert got["classes"]["low_leg"] == {"level": 2, "iou": None, "precision": None, "recall": None}
    assert got["absent"] == ["lower_body", "low_hand", "low_leg", "up_leg", "up_hand"]
    assert got["miou2"] == (1 / 4 + 1 / 2) / 2
    assert got["pixel_accuracy"] == 8 / 11
    assert [got["by_size"][key]["images"] for key in ("<5%", "5-20%", ">20%")] == [1, 0, 1]
    assert got["by_size"][">20%"]["miou2"] == (1 / 3 + 1 / 2) / 2
    assert got["by_size"]["5-20%"]["miou2"] is None
    assert got["worst"] == [{"id": "p1", "miou2": 0}, {"id": "p0", "miou2": (1 / 3 + 1 / 2) / 2}]
    assert body_shares(TREE, counts.matrices).tolist() == [3 / 5, 0]
    by_image = summary(TREE, counts, "image", NAMED)
    assert by_image["miou2"] == pytest.approx(((1 / 3 + 1 / 2) / 2 + 0) / 2)
    assert by_image["classes"]["torso"]["recall"] == 1 / 2
    assert by_image["classes"]["torso"]["precision"] == (1 / 2 + 0) / 2
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    table = score_table(got, TREE).splitlines()
    assert table[0] == ("2 photographs, valid split, native size, dataset definition, leaf decoding, "
                        "background excluded")  # fmt: skip
    assert next(line.split() for line in table if "torso" in line)[-2:] == ["0.333", "0.500"]
    assert "body 5 to 20 % of the photograph: 0 photographs" in table


def test_shares_of_the_photograph_at_their_bounds():
    truth = torch.zeros(4, 100, dtype=torch.long)
    for i, pixels in enumerate((4, 5, 20, 21)):
        truth[i, :pixels] = 2
    by_size = summary(TREE, counted(TREE, truth, truth), "dataset", NAMED)["by_size"]
    assert [part["images"] for part in by_size.values()] == [1, 2, 1]
    tree = Hierarchy({"a": 0, "b": 1})
    assert summary(tree, counted(tree, truth // 2, truth // 2), "dataset", NAMED)["by_size"] == {}


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_bootstraps_draw_is_the_score_of_the_photographs_drawn(definition):
    truth, guess, counts = drawn(TREE, 8, images=6)
    weights = resamplings(6, draws=5, seed=3)
    assert weights.sum(1).tolist() == [6] * 5
    scores = weighted_scores(TREE, counts.matrices, definition, weights)
    for row, weight in enumerate(weights.astype(int)):
        chosen = np.repeat(np.arange(6), weight)
        metric = scored(TREE, truth[chosen], guess[chosen], definition)
        for level in range(3):
            assert scores.means[row, level] == pytest.approx(metric.mean_iou(level).item(), nan_ok=True)
            classes = metric.class_iou(level).numpy()
            np.testing.assert_allclose(scores.classes[level][row, :, 0], classes, atol=1e-12)


@pytest.mark.parametrize("definition", ["dataset", "image"])
def test_intervals_cover_the_truth_as_often_as_they_say(definition):
    """Photographs drawn from a known population: the 95 % interval holds its score 90 to 99 times in a hundred."""
    tree, rng = Hierarchy({"background": 0, "a": 1, "b": 2}), np.random.default_rng(0)
    sizes, quality = rng.integers(200, 2000, (5000, 3)), rng.beta(5, 2, 5000)
    population = np.zeros((5000, 3, 3), np.int32)
    for leaf in range(3):
        shares = np.stack([(1 - quality) / 2] * 3, 1)
        shares[:, leaf] = quality
        population[:, leaf] = rng.multinomial(sizes[:, leaf], shares)
    truth = weighted_scores(tree, population, definition, np.ones((1, 5000))).means[0, 0]
    covered = 0
    for seed in range(200):
        sample = population[rng.integers(0, 5000, 60)]
        low, high = interval(weighted_scores(tree, sample, definition, resamplings(60, seed=seed)).means[:, 0])
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals_are_seeded_and_none_for_a_single_photograph():
    _, _, counts = drawn(TREE, 1)
    first, second = (summary(TREE, counts, "dataset", NAMED)["intervals"] for _ in range(2))
    assert first == second
    assert first["miou2"][0] < first["miou2"][1]
    assert first["classes"]["low_hand"] is None
    one = Counts(["p0"], counts.matrices[:1])
    assert summary(TREE, one, "dataset", NAMED)["intervals"] is None
    assert "to" not in score_table(summary(TREE, one, "dataset", NAMED), TREE).splitlines()[2]

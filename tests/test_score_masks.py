"""Mask files under one honest ruler, beside what the peers' rules would have said of the same files."""

import json

import numpy as np
import pytest
from PIL import Image

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference.score_masks import evaluate_masks

# Three photographs of 4x6. A: 8 pixels of torso (2), all found, and 8 of background taken for it. B: 4 pixels of head
# (4), of which 3 are found. C: nobody, and nobody found.
A, A_GUESS, B, B_GUESS, C = np.zeros((5, 4, 6), np.uint8)
A[:2, :4], A_GUESS[:, :4] = 2, 2
B[0, :4], B_GUESS[0, :3] = 4, 4
TRUTHS, GUESSES = {"a": A, "b": B, "c": C}, {"a": A_GUESS, "b": B_GUESS, "c": C}


@pytest.fixture
def files(tmp_path):
    """A dataset of the three photographs, and a folder of guesses: (root, guesses)."""
    for folder in ("data/JPEGImages", "data/gt_masks", "guesses"):
        (tmp_path / folder).mkdir(parents=True)
    for name in TRUTHS:
        Image.new("RGB", (6, 4)).save(tmp_path / "data/JPEGImages" / f"{name}.jpg")
        np.save(tmp_path / "data/gt_masks" / f"{name}.npy", TRUTHS[name])
        Image.fromarray(GUESSES[name]).save(tmp_path / "guesses" / f"{name}.png")
    (tmp_path / "data/val_id.txt").write_text("a\nb\nc\n")
    return tmp_path / "data", tmp_path / "guesses"


UPPER = [1, 2, 4, 6]
LEVEL2, LEVEL1, LEVEL0 = [[1], [2], [3], [4], [5], [6]], [UPPER, [3, 5]], [[1, 2, 3, 4, 5, 6]]


def iou_over(names, leaves, where=lambda truth: truth < 255):
    """(intersection, union) of a group of leaves over some photographs, on the pixels `where` says."""
    hit = union = 0
    for name in names:
        truth, guess, kept = TRUTHS[name], GUESSES[name], where(TRUTHS[name])
        a, b = np.isin(truth, leaves) & kept, np.isin(guess, leaves) & kept
        hit, union = hit + int((a & b).sum()), union + int((a | b).sum())
    return hit, union


def without_background_false_positives(level):
    """Bagzhan/Pascal_Semantic_Segmentation, metrics.py:71-75, 88-92: counted only where the truth is a part."""
    pairs = [iou_over("abc", leaves, lambda truth: truth != 0) for leaves in level]
    return np.mean([h / u for h, u in pairs if u])


def absent_as(value, level):
    """Each photograph's mean over all classes, an absent one counting 0 (cybberowl) or 1 (Viktor-Sok)."""
    means = [[h / u if u else value for h, u in (iou_over(name, leaves) for leaves in level)] for name in "abc"]
    return np.mean(means)


def averaged_by_batch(level, batches):
    """The public notebook, cells 11 and 31: a batch's score, absent classes 0, averaged over batches."""
    pairs = [[iou_over(batch, leaves) for leaves in level] for batch in batches]
    return np.mean([np.mean([h / u if u else 0 for h, u in batch]) for batch in pairs])


def test_true_values_beside_the_peers_wrong_ones(files):
    root, guesses = files
    ours = evaluate_masks(guesses, root)
    # Torso 8 of 16, head 3 of 4; both upper body, 11 of 20; no other class anywhere.
    assert ours["classes"]["torso"]["iou"] == 0.5
    assert ours["classes"]["head"]["iou"] == 0.75
    assert ours["miou2"] == 0.625
    assert ours["miou1"] == ours["miou0"] == 0.55
    assert ours["classes"]["torso"]["precision"] == 0.5
    assert set(ours["absent"]) == {"low_hand", "low_leg", "up_leg", "up_hand", "lower_body"}
    # By photograph 0.5 and 0.75, with or without the third, which has nothing to score.
    assert evaluate_masks(guesses, root, definition="image")["miou2"] == 0.625
    assert evaluate_masks(guesses, root, definition="image")["miou0"] == 0.625

    # The eight false positives vanish: torso 8 of 8, upper body 11 of 12.
    assert without_background_false_positives(LEVEL2) == 0.875
    assert without_background_false_positives(LEVEL1) == pytest.approx(11 / 12)
    # Five or six absent classes a photograph drown the present one, downwards or upwards.
    assert absent_as(0, LEVEL2) == pytest.approx((0.5 / 6 + 0.75 / 6 + 0) / 3)
    assert absent_as(1, LEVEL2) == pytest.approx((5.5 / 6 + 5.75 / 6 + 1) / 3)
    # The score hangs on the size and order of batches.
    assert averaged_by_batch(LEVEL0, ["ab", "c"]) == pytest.approx(0.55 / 2)
    assert averaged_by_batch(LEVEL0, ["ac", "b"]) == pytest.approx((0.5 + 0.75) / 2)
    wrong = [without_background_false_positives(LEVEL2), absent_as(0, LEVEL2), absent_as(1, LEVEL2)]
    assert all(abs(value - ours["miou2"]) > 0.2 for value in wrong)


def test_from_the_command_line_with_another_tree_and_ids(files, tmp_path, capsys):
    root, guesses = files
    np.save(guesses / "a.npy", A_GUESS.astype(np.int64))
    (guesses / "a.png").unlink()
    (tmp_path / "ids.txt").write_text("a\n")
    (tmp_path / "tree.yaml").write_text("hierarchy: {bg: 0, odd: {p: 1, q: 3, r: 5}, even: {s: 2, t: 4, u: 6}}\n")
    words = ["evaluate", "--masks", str(guesses), "--data.root", str(root), "--json"]
    assert main([*words, "--split", str(tmp_path / "ids.txt"), "--config", str(tmp_path / "tree.yaml")]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["images"], scores["miou0"], scores["classes"]["s"]["iou"]) == (1, 0.5, 0.5)
    assert (scores["protocol"], scores["decode"], scores["masks"]) == ("native", None, str(guesses))
    # A setting's value is not taken for a run, wherever it stands.
    assert main(["evaluate", "--data.limit_valid", "2", *words[1:], "--boundary"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["images"] == 2
    assert 0 < scores["boundary"]["miou0"] < 1
    assert main(words[:-1]) == 0
    assert capsys.readouterr().out.startswith("3 photographs, valid split, native size, dataset definition, background")


def test_masks_that_do_not_fit_are_named(files):
    root, guesses = files
    (guesses / "b.png").unlink()
    with pytest.raises(InputError, match=r"b: no mask .*b\.png or \.npy; every id needs one"):
        evaluate_masks(guesses, root)
    Image.fromarray(B_GUESS.repeat(2, 0)).save(guesses / "b.png")
    with pytest.raises(InputError, match=r"b\.png: 8x6 \(height x width\), but the photograph is 4x6"):
        evaluate_masks(guesses, root)
    for value, said in ((255, r"b\.png: 24 pixels are 255"), (9, r"b\.png: class id 9 is not in the tree")):
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(guesses / "b.png")
        with pytest.raises(InputError, match=said):
            evaluate_masks(guesses, root)
    with pytest.raises(InputError, match="--masks: no folder"):
        evaluate_masks(guesses / "nowhere", root)


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "either a run or --masks"), (["RUN", "--masks", "D"], "either a run or --masks"),
     (["--masks", "D", "--decode", "path"], "scored as they are"), (["RUN", "--config", "sample"], "goes with --masks"),
     (["RUN", "--train.epochs", "3"], "'train.epochs' is no option")],
)  # fmt: skip
def test_words_that_do_not_go_together(words, said, capsys):
    assert main(["evaluate", *words]) == 2
    assert said in capsys.readouterr().err

import numpy as np
import pytest
import torch
from PIL import Image

from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.inference.evaluate import evaluate, load_model
from fastseg.run import Run

TREE = Hierarchy(PASCAL_PART)


def test_evaluate_is_what_a_plain_loop_over_the_files_gives(run, drawn):
    """Logits brought to the photograph's size, argmax, one count: written again without any of our pieces."""
    from sklearn.metrics import jaccard_score

    model, card = load_model(Run.open(run)), Run.open(run).card
    truths, guesses = [], []
    for name in (drawn / "val_id.txt").read_text().split():
        image = Image.open(drawn / "JPEGImages" / f"{name}.jpg").resize(tuple(card["size"])[::-1], Image.BILINEAR)
        x = (np.asarray(image) / 255 - card["mean"]) / card["std"]
        truth = np.load(drawn / "gt_masks" / f"{name}.npy")
        with torch.no_grad():
            logits = model(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])
        full = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
        truths.append(truth.ravel())
        guesses.append(full.argmax(1).numpy().ravel())
    truth, guess = np.concatenate(truths), np.concatenate(guesses)
    scores = evaluate(run)
    for leaf, name in enumerate(TREE.names()):
        if (truth == leaf).any() or (guess == leaf).any():
            expected = jaccard_score(truth == leaf, guess == leaf)
            assert scores["classes"][name]["iou"] == pytest.approx(expected, abs=1e-4)
        else:
            assert name in scores["absent"]
    assert scores["miou0"] == pytest.approx(jaccard_score(truth > 0, guess > 0), abs=1e-4)


def test_evaluate_on_another_folder_and_split(run, drawn_copy):
    name = (drawn_copy / "val_id.txt").read_text().split()[0]
    (drawn_copy / "train_id.txt").write_text(name)
    assert evaluate(run, root=drawn_copy, split="train")["images"] == 1
    with pytest.raises(InputError, match="split 'test'"):
        evaluate(run, split="test")
    np.save(drawn_copy / "gt_masks" / f"{name}.npy", np.full((3, 3), 1))
    with pytest.raises(InputError, match="its mask is 3x3"):
        evaluate(run, root=drawn_copy)

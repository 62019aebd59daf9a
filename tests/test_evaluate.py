import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastseg.data.files import Files
from fastseg.data.frames import Framing, decode_image
from fastseg.data.pictures import read_mask
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


@pytest.mark.parametrize("resize", ["pad", "crop"])
def test_a_run_that_pads_is_scored_on_the_photograph_alone(tiny, resize):
    from fastseg.experiments.train import train

    run = train(tiny(f"data.resize={resize}", "data.size=64x64", "augment.preset=light"))
    metrics = json.loads((run / "metrics.json").read_text())
    again = evaluate(run)
    assert {key: metrics[key] for key in again} == again
    # The same by hand: frame, network, the frame's inner part, the photograph's size.
    opened = Run.open(run)
    model, framing = load_model(opened), Framing((64, 64), pad=True)
    files = Files(Path(opened.cfg.data.root))
    right = seen = 0
    for name in files.ids("val_id.txt"):
        ids = torch.from_numpy(read_mask(files.mask(name)))
        x = framing.image(decode_image(files.image(name)))[None] / 255
        mean, std = (torch.tensor(opened.card[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        with torch.inference_mode():
            logits = model((x - mean) / std)
        top, left, high, wide = framing.box(ids.shape)
        inner = logits[:, :, top : top + high, left : left + wide]
        full = torch.nn.functional.interpolate(inner, ids.shape, mode="bilinear", align_corners=False)
        right += int((full.argmax(1)[0] == ids).sum())
        seen += ids.numel()
    assert metrics["pixel_accuracy"] == pytest.approx(right / seen, abs=1e-4)

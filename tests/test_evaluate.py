import csv
import json
import shutil
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


def test_resized_scores_are_those_of_the_epoch_table(run, tiny):
    from fastseg.experiments.train import train

    padded = train(tiny("data.resize=pad", "data.size=64x64"))
    for folder in (run, padded):
        with (folder / "history.csv").open() as file:
            rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
        kept = rows[json.loads((folder / "metrics.json").read_text())["epoch"]]
        scores = evaluate(folder, protocol="resized")
        assert scores["protocol"] == "resized"
        for level in range(3):
            assert scores[f"miou{level}"] == pytest.approx(float(kept[f"miou{level}"]), abs=1e-4)


def test_what_is_written_and_what_is_left_alone(run, drawn, tmp_path):
    metrics = (run / "metrics.json").read_text()
    (tmp_path / "legs.txt").write_text((drawn / "train_id.txt").read_text().split()[0] + "\n")
    scores = evaluate(run, split=tmp_path / "legs.txt", definition="image", decode="path", tta="flip,1,0.5")
    stem = "legs.txt-native-image-path-tta"
    names = [f"{stem}-confusion.png", f"{stem}-worst.png", f"{stem}.json", "legs.txt-native-path-tta.npz"]
    assert sorted(path.name for path in (run / "scores").iterdir()) == [*names, "valid-native-leaf.npz"]
    assert json.loads((run / "scores" / f"{stem}.json").read_text()) == scores
    assert {key: scores[key] for key in ("definition", "protocol", "decode", "tta", "images")} == {
        "definition": "image", "protocol": "native", "decode": "path", "tta": "flip,1,0.5", "images": 1}  # fmt: skip
    assert scores["split"] == str(tmp_path / "legs.txt")
    assert scores["data"] == [str(drawn)]
    for name in names[:2]:
        assert min(Image.open(run / "scores" / name).size) > 100
    assert (run / "metrics.json").read_text() == metrics
    with np.load(run / "scores" / names[3], allow_pickle=False) as stored:
        assert stored["matrices"].shape == (1, 7, 7)
        assert stored["matrices"].dtype == np.int32


def test_ways_of_decoding_by_a_plain_loop(run, drawn):
    model, card = load_model(Run.open(run)), Run.open(run).card
    files = Files(drawn)
    for how in ("leaf", "top_down", "path"):
        right = seen = 0
        for name in files.ids("val_id.txt"):
            truth = read_mask(files.mask(name))
            x = Framing(tuple(card["size"])).image(decode_image(files.image(name)))[None] / 255
            mean, std = (torch.tensor(card[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
            with torch.inference_mode():
                logits = model((x - mean) / std)
            full = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
            right += int((TREE.decode(full, how)[0].numpy() == truth).sum())
            seen += truth.size
        scores = evaluate(run, decode=how, write=False)
        assert scores["pixel_accuracy"] == pytest.approx(right / seen, abs=1e-4)
        assert scores["decode"] == how


def test_a_head_of_nodes_is_loaded_and_decoded(tiny, tmp_path):
    """A run whose card says so has a channel for each of the twelve nodes."""
    from fastseg.learning.model import create_model
    from fastseg.run import model_card, write_weights
    from fastseg.writing import write_json

    cfg = tiny()
    run = tmp_path / "nodes"
    run.mkdir()
    Run(run).write_config(cfg)
    write_json(run / "model.json", {**model_card(cfg, ([0.5] * 3, [0.25] * 3)), "head": "nodes"})
    write_weights(run / "model.safetensors", create_model(cfg.model, TREE.node_count))
    scores = [evaluate(run, decode=how, tta=tta) for how in ("leaf", "top_down", "path") for tta in (None, "flip")]
    assert all(0 <= one["pixel_accuracy"] <= 1 for one in scores)
    assert len({one["pixel_accuracy"] for one in scores}) > 1


def test_settings_of_data_can_be_changed_and_no_others(run, drawn_copy):
    assert evaluate(run, overrides=["data.limit_valid=1", "data.workers=0"], write=False)["images"] == 1
    (drawn_copy / "gt_masks").rename(drawn_copy / "others")
    assert evaluate(run, root=drawn_copy, overrides=["data.masks=others"], write=False)["images"] == 2
    with pytest.raises(InputError, match=r"data\.size: is the run's own"):
        evaluate(run, overrides=["data.size=64"])
    for choice, said in (({"protocol": "square"}, "protocol 'square'"), ({"decode": "best"}, "decode 'best'"),
                         ({"definition": "pixel"}, "definition 'pixel'"), ({"tta": "spin"}, "'spin'")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            evaluate(run, **choice)
    shutil.rmtree(run / "scores")
    (run / "scores").write_text("in the way")
    with pytest.raises(InputError, match="scores: cannot be made"):
        evaluate(run)


def test_progress_counts_photographs(run):
    seen = []
    evaluate(run, split="train", progress=lambda done, total: seen.append((done, total)), write=False)
    assert seen == [(4, 8), (8, 8)]


def test_a_head_of_nodes_from_training_to_every_decoding(tiny):
    from fastseg.experiments.train import train

    run = train(tiny("loss=[cross_entropy, {name: tree_min, weight: 0.5}]"))
    assert Run.open(run).card["head"] == "nodes"
    metrics = json.loads((run / "metrics.json").read_text())
    for decode in ("leaf", "top_down", "path"):
        scores = evaluate(run, decode=decode, write=False)
        assert scores["decode"] == decode
        if decode == metrics["decode"]:
            assert scores["classes"] == metrics["classes"]

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.experiments.train import save_run, train
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.inference.evaluate import evaluate, load_model
from fastseg.run import Run

TREE = Hierarchy(PASCAL_PART)

FILES = ["config.yaml", "curves.png", "environment.json", "examples", "history.csv", "metrics.json", "model.json",
         "model.safetensors", "report.html", "results.png", "scores", "timing.csv"]  # fmt: skip


def test_a_run_folder_is_whole_and_repeats_the_run(run, tiny):
    assert sorted(path.name for path in run.iterdir()) == sorted([*FILES, "last", "log.txt"])
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    parts = {"cross_entropy", "iou"}
    assert set(rows[0]) == {"epoch", "train_loss", "valid_loss", "miou0", "miou1", "miou2", "lr"} | parts
    for picture in ("curves.png", "results.png"):
        assert min(Image.open(run / picture).size) > 300
    again = train(load_config(run / "config.yaml"))
    assert (again / "history.csv").read_text() == (run / "history.csv").read_text()
    assert (again / "metrics.json").read_text() == (run / "metrics.json").read_text()
    assert again != run


def test_metrics_are_the_saved_weights_at_native_size(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert {key: metrics[key] for key in ("definition", "protocol", "decode", "split", "images")} == {
        "definition": "dataset", "protocol": "native", "decode": "leaf", "split": "valid", "images": 2}  # fmt: skip
    scores = evaluate(run)
    assert {key: metrics[key] for key in scores} == scores
    assert set(metrics) - set(scores) == {"keep", "epoch"}
    assert list(metrics["classes"]) == ["background", "body", "upper_body", "lower_body", *TREE.names()[1:]]


def test_best_weights_are_the_epochs_they_say(tiny):
    run = train(tiny("train.epochs=3", "train.keep=best", "train.lr=3e-3"))
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "history.csv").open() as file:
        scores = [float(row["miou2"]) for row in csv.DictReader(file)]
    assert metrics["keep"] == "best"
    assert metrics["epoch"] == int(np.nanargmax(scores)) + 1


def test_what_save_run_wrote_gives_the_same_scores_when_loaded(tiny, tmp_path):
    from fastseg.learning.learner import seg_learner

    learn = seg_learner(tiny())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
    run = save_run(learn, tmp_path / "mine")
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert save_run(learn, run) == run
    model = load_model(Run.open(run)).to(learn.dls.device)
    x = learn.dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    with torch.no_grad():
        assert torch.equal(model(x), learn.model.eval()(x))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty, and not a run"):
        save_run(learn, tmp_path / "notes")


def test_a_run_says_what_was_done_not_what_was_configured(tiny, tmp_path):
    from fastseg.learning.learner import seg_learner

    learn = seg_learner(tiny("train.keep=best"))
    run = save_run(learn, tmp_path / "untrained")
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["keep"], metrics["epoch"], Run.open(run).cfg.train.keep) == ("last", 0, "last")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        save_run(learn, tmp_path / "file")


def test_training_that_diverges_is_no_success(tiny, tmp_path):
    with pytest.raises(InputError, match=r"train\.lr: the loss became infinite or NaN in epoch 1"):
        train(tiny("train.lr=1e30"))


def test_a_file_that_turns_out_bad_stops_the_run_and_keeps_the_folder(tiny, drawn_copy, tmp_path):
    name = (drawn_copy / "train_id.txt").read_text().split()[2]
    mask = drawn_copy / "gt_masks" / f"{name}.npy"
    ids = np.load(mask)
    ids[0, 0] = 77
    np.save(mask, ids)
    for workers in (0, 1):
        with pytest.raises(InputError) as caught:
            train(tiny(f"data.workers={workers}", root=drawn_copy))
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert f"{name}.npy: class id 77 is not in the tree" in message
    assert len(list((tmp_path / "runs").glob("*_tiny*/config.yaml"))) == 2


def test_pascal_part_preset_builds_the_notebooks_network_and_steps(tmp_path, drawn):
    small = ["model.weights=none", "data.size=64x64", "train.batch_size=4", "train.epochs=1", "data.workers=0"]
    cfg = load_config("pascal_part", f"data.root={drawn}", f"out={tmp_path}", *small)
    run = Run.open(train(cfg))
    assert type(load_model(run)).__name__ == "DeepLabV3"
    assert run.card["mean"] == [0.5] * 3
    assert run.cfg.name == "pascal_part"


@pytest.mark.parametrize("preset", ["pascal_part_fast", "pascal_part_best"])
def test_the_other_presets_build_and_step(preset, tmp_path, drawn, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    # The smallest of the same kind of encoder, as a step of mit_b3 takes seconds.
    small = ["model.weights=none", "data.size=64x64", "train.batch_size=4", "train.epochs=1", "data.workers=0"]
    small += ["model.encoder=mit_b0"] if preset == "pascal_part_best" else []
    run = Run.open(train(load_config(preset, f"data.root={drawn}", f"out={tmp_path}", *small)))
    assert evaluate(run, tta="flip,0.5,1")["miou2"] is not None


def test_a_leak_that_is_allowed_stands_in_the_scores(tiny, drawn_copy):
    with (drawn_copy / "val_id.txt").open("a") as ids:
        ids.write("sample_000003\n")
    with pytest.raises(InputError, match=r"sample_000003: .*data\.allow_leak: true"):
        train(tiny(root=drawn_copy))
    run = train(tiny("data.allow_leak=true", root=drawn_copy))
    assert json.loads((run / "metrics.json").read_text())["leak"] == ["sample_000003"]

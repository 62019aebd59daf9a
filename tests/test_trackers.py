import csv
import importlib.util
import json
import shutil
import socket
import sys

import numpy as np
import pytest
from fastai.callback.core import Callback
from wandb_files import wandb_records

from fastseg.errors import InputError
from fastseg.experiments.train import save_run, train
from fastseg.learning.trackers import Tracker, hyper_parameters, trackers
from fastseg.run import Run


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """W&B without a network, and an alarm where anything asks for one."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    def connect(self, address, real=socket.socket.connect):
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "localhost", "::1"), address
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def read_history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_tensorboards_own_reader_finds_everything(tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    small = ("train.epochs=2", "train.frozen_epochs=1", "track_pictures=2", "train.lr=[1e-4, 1e-3]")
    run = train(tiny("track=tensorboard", *small))
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    assert Run.open(run).cfg.track == ["csv", "tensorboard"]
    rows, tags = read_history(run), events.Tags()
    for key in ("train_loss", "valid_loss", "miou0", "miou2"):
        scalars = events.Scalars(key)
        assert [scalar.step for scalar in scalars] == [2, 4, 6]
        assert [s.value for s in scalars] == pytest.approx([float(row[key]) for row in rows], nan_ok=True)
    assert [scalar.step for scalar in events.Scalars("batch_loss")] == [1, 2, 3, 4, 5, 6]
    rates = [[scalar.value for scalar in events.Scalars(f"lr/{group}")] for group in ("encoder", "decoder")]
    assert len(rates[1]) == 6
    assert rates[0][4] < rates[1][4]
    assert sorted(tags["images"]) == [f"predictions/level {level}" for level in range(3)]
    for tag in tags["images"]:
        assert [image.step for image in events.Images(tag)] == [4]
        assert events.Images(tag)[0].width > 300
    scores = json.loads((run / "metrics.json").read_text())
    assert events.Scalars("final/miou2")[0].value == pytest.approx(scores["miou2"])
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(data).session_start_info.hparams
    assert found["train.epochs"].number_value == 2
    assert found["model.arch"].string_value == "FPN"
    assert found["loss"].string_value == "cross_entropy + iou"
    plain = train(tiny(*small))
    assert (plain / "history.csv").read_text() == (run / "history.csv").read_text()


def test_wandbs_offline_folder_holds_everything(tiny):
    from PIL import Image

    run = train(tiny("track=[csv, wandb]"))
    config, logged, summary = {}, [], {}
    for kind, record in wandb_records(run):
        if kind == "run":
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            logged.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                           for item in record.history.item})  # fmt: skip
        elif kind == "summary":
            summary |= {item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.summary.update}  # fmt: skip
    assert config["train"]["epochs"] == 1
    assert config["data"]["size"] == [32, 64]
    together = {key: value for step in logged for key, value in step.items()}
    (row,) = read_history(run)
    assert together["valid_loss"] == pytest.approx(float(row["valid_loss"]))
    assert {"miou0", "batch_loss", "lr/decoder"} <= set(together)
    assert together["predictions/_type"] == "images/separated"
    assert set(together["predictions/all_masks"][0]) == {f"{w}_{n}" for w in ("truth", "prediction") for n in range(3)}
    metrics = json.loads((run / "metrics.json").read_text())
    assert summary["final/miou2"] == pytest.approx(metrics["miou2"])
    files = next((run / "wandb").glob("offline-run-*")) / "files"
    assert len(list((files / "media" / "images").glob("*.png"))) == 2
    masks = [mask["path"] for photograph in together["predictions/all_masks"] for mask in photograph.values()]
    assert len(masks) == 2 * 2 * 3
    assert all(np.asarray(Image.open(files / mask)).shape == (32, 64) for mask in masks)


class Pull(Callback):
    """Takes a tracker's directory away after the first epoch."""

    order = 66

    def __init__(self, folder, file=False):
        self.folder, self.file = folder, file

    def after_epoch(self):
        if self.learn.history.added and len(self.learn.history.rows) == 1:
            shutil.rmtree(self.folder)
            if self.file:
                self.folder.write_text("in the way")


@pytest.mark.parametrize(("name", "file"), [("tensorboard", False), ("tensorboard", True), ("wandb", False)])
def test_a_directory_pulled_away_leaves_the_run_alive(quiet, tmp_path, name, file):
    learn = quiet(f"track={name}")
    said, run = [], tmp_path / "run"
    learn.add_cbs([*trackers(learn.cfg, run, said.append), Pull(run / name, file)])
    run.mkdir()
    learn.fit(3, 1e-3)
    assert len(learn.history.rows) == 3
    assert len(said) == 1
    assert said[0].startswith(f"track: {name} failed (")
    assert said[0].endswith("the run goes on without it")
    (run / "config.yaml").write_text("")
    save_run(learn, run)
    assert (run / "metrics.json").is_file()
    assert len(said) == 1


def test_whatever_fails_is_one_line(quiet, tmp_path):
    said = []

    class Broken(Tracker):
        name = "broken"

        def scalars(self, values, step):
            raise ValueError("two\nlines")

    learn = quiet(cbs=[])
    learn.add_cb(Broken(learn.cfg, tmp_path, said.append))
    learn.fit(2, 1e-3)
    assert said == ["track: broken failed (two lines); the run goes on without it"]


def test_a_search_for_the_rate_and_validation_are_not_tracked(quiet, tmp_path):
    calls = []

    class Listener(Tracker):
        def scalars(self, values, step):
            calls.append((step, "epoch" in values))

        def pictures(self, rows, step):
            calls.append((step, [row[1].shape for row in rows]))

    learn = quiet("track_pictures=2")
    learn.add_cb(Listener(learn.cfg, tmp_path))
    learn.lr_find(num_it=6, show_plot=False)
    learn.validate()
    assert calls == []
    learn.fit(2, 1e-3)
    learn.validate()
    assert calls == [(1, False), (2, False), (2, True), (3, False), (4, False), (4, True), (4, [(32, 64, 3)] * 2)]


@pytest.mark.parametrize("found", [None, importlib.util.find_spec("encodings").__class__("wandb", None)])
def test_a_missing_package_is_one_line_before_anything_starts(tiny, tmp_path, monkeypatch, found):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: found if name == "wandb" else real(name, *a))
    with pytest.raises(InputError, match=r"^track: wandb is not installed; pip install 'fastseg-parts\[wandb\]'$"):
        train(tiny("track=[wandb]", "data.root=nowhere"))
    assert not (tmp_path / "runs").exists()


def test_packages_that_were_not_asked_for_need_not_be_there(tiny, monkeypatch):
    for name in ("wandb", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train(tiny()).is_dir()


def test_names_and_hyper_parameters(tiny):
    assert tiny("track=wandb").track == ["csv", "wandb"]
    assert tiny("track=[]").track == ["csv"]
    with pytest.raises(InputError, match="did you mean tensorboard"):
        tiny("track=[tensorbord]")
    found = dict(hyper_parameters(tiny("loss=[cross_entropy, iou]")))
    assert (found["loss"], found["train.epochs"], found["data.size"]) == ("cross_entropy + iou", 1, "[32, 64]")
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())

import json
import threading

import pytest
import torch
import yaml

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.inference.evaluate import load_model
from fastseg.run import Run, new_run_folder, write_json, write_weights


def test_a_damaged_run_is_named(run):
    with pytest.raises(InputError, match="no such folder"):
        Run.open(run / "away")
    with pytest.raises(InputError, match="not a finished run"):
        Run.open(run.parent)
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(InputError, match="not readable as weights"):
        load_model(Run.open(run))
    (run / "model.safetensors").write_bytes(weights)
    card = run / "model.json"
    text = card.read_text()
    card.write_text(text.replace('"FPN"', '"Unet"'))
    with pytest.raises(InputError, match="weights do not fit its network"):
        load_model(Run.open(run))
    card.write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(InputError, match="format 9"):
        load_model(Run.open(run))
    card.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_model(Run.open(run))


def test_run_folders_of_one_second_get_numbers(tmp_path):
    folders = [new_run_folder(tmp_path / "runs", "a") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and "_a" in folder.name for folder in folders)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: cannot make"):
        new_run_folder(tmp_path / "file", "a")


def test_the_configuration_of_a_run_works_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run(tmp_path).write_config(load_config("data.root=data", "model.weights=my.pth"))
    cfg = Run(tmp_path).cfg
    assert (cfg.data.root, cfg.model.weights) == (str(tmp_path / "data"), str(tmp_path / "my.pth"))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]["epochs"] == 4


def test_nothing_is_ever_half_written(tmp_path):
    """A reader beside a writer sees whole files only."""
    path, seen = tmp_path / "a.json", set()
    write_json(path, [0] * 50_000)
    writer = threading.Thread(target=lambda: [write_json(path, [i] * 50_000) for i in range(8)])
    writer.start()
    while writer.is_alive():
        seen.add(len(json.loads(path.read_text())))
    assert seen <= {50_000}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    write_weights(tmp_path / "w.safetensors", torch.nn.Linear(2, 2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "w.safetensors"]

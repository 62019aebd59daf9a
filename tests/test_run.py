import contextlib
import io
import pickle
import shutil
import zipfile

import pytest
import torch
import yaml

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.experiments.train import train
from fastseg.inference.compare import compare
from fastseg.inference.evaluate import evaluate, load_model
from fastseg.run import Run, new_run_folder


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


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickles(file):
    """Whether a file, or one inside it, is a pickle."""
    content = file.read_bytes()
    parts = [content]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
    # A pickle of protocol 2 or later begins so; an older one ends so, and its opcodes are letters.
    return any(part[:1] == b"\x80" or (part.strip().endswith(b".") and part[:1] in b"(c]}") for part in parts)


def test_nothing_in_a_run_is_a_pickle_and_none_in_its_place_is_executed(run, tmp_path):
    evaluate(run)
    files = [file for file in run.rglob("*") if file.is_file()]
    assert {"last", "scores", "examples", run.name} == {file.parent.name for file in files}
    assert not [file for file in files if pickles(file)]
    mark = tmp_path / "executed"
    saved = io.BytesIO()
    torch.save({"model": Bomb(mark)}, saved)
    bombs = [pickle.dumps(Bomb(mark)), pickle.dumps(Bomb(mark), protocol=0), saved.getvalue()]
    for bomb in bombs:
        (tmp_path / "bomb").write_bytes(bomb)
        assert pickles(tmp_path / "bomb")
    # One by one what is read, all together what is only looked at.
    shown = [file for file in files if file.suffix in (".png", ".jpg", ".csv", ".txt", ".html")]
    for spoiled in [shown, *([file] for file in files if file not in shown)]:
        folder = shutil.copytree(run, tmp_path / "spoiled")
        for file in spoiled:
            (folder / file.relative_to(run)).write_bytes(saved.getvalue() if file.stem == "model" else bombs[0])
        with contextlib.suppress(InputError):
            compare([folder, folder])
        with contextlib.suppress(InputError):
            evaluate(folder, write=False)
        # So that it is gone on with.
        (folder / "metrics.json").unlink()
        with contextlib.suppress(InputError):
            train(resume=folder)
        assert not mark.exists(), spoiled
        shutil.rmtree(folder)


def test_a_run_and_its_dataset_elsewhere_give_the_same_scores(run, drawn, tmp_path):
    scores = evaluate(run)
    moved = shutil.copytree(drawn, tmp_path / "other machine" / "data")
    copied = shutil.copytree(run, tmp_path / "other machine" / "run")
    with (run / "config.yaml").open() as file:
        assert yaml.safe_load(file)["data"]["root"] == str(drawn)
    (copied / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(drawn), "/gone"))
    shutil.rmtree(copied / "scores")
    with pytest.raises(InputError, match="no folder /gone"):
        evaluate(copied)
    assert {**evaluate(copied, moved), "data": scores["data"]} == scores


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

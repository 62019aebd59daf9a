"""A search with real trainings, from the command line: what it leaves, and what can be done with that."""

import json
from pathlib import Path

import pytest
from pages import whole_page

from fastseg.cli import main
from fastseg.config import load_config
from fastseg.experiments.searching.leaderboard import read_leaderboard
from fastseg.experiments.train import train

STAGES = [{"name": "networks", "keys": ["model", "loss"], "sampler": "grid", "pruner": "none"},
          {"name": "settings", "best": 1, "trials": 2, "pruner": "none"}]  # fmt: skip
SECTIONS = ["trials", "networks", "speed", "settings", "importance", "curves"]


@pytest.fixture(scope="module")
def words(drawn, tmp_path_factory):
    """The command of a small search: two networks, one of which has a rate that diverges, then two trials."""
    search = {"space": {"model.arch": ["FPN", "Unet"], "loss": [["iou"]],
                        "train.lr": {"low": 1e-3, "high": 1e-2, "log": True}, "train.batch_size": [2, 4]},
              "limit": 6, "epochs": 2, "stages": STAGES}  # fmt: skip
    folder = tmp_path_factory.mktemp("search")
    (folder / "mine.yaml").write_text(json.dumps({
        "out": str(folder / "runs"), "data": {"root": str(drawn), "size": "32x64", "workers": 0},
        "augment": {"preset": "none"}, "model": {"weights": "none"}, "train": {"epochs": 3, "batch_size": 4},
        "search": search}))  # fmt: skip
    return ["search", "--config", str(folder / "mine.yaml")]


@pytest.fixture(scope="module")
def folder(words, tmp_path_factory):
    """The folder of that search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert main(words) == 0
    cfg = load_config(words[-1])
    return Path(cfg.out) / cfg.name


def test_every_trial_is_a_run_and_stands_in_the_leaderboard(folder):
    found = read_leaderboard(folder)
    assert [row["state"] for row in found] == ["complete"] * 4
    for row in found:
        run = Path(row["run"])
        assert run.parent == folder.resolve() / "trials"
        assert run.name == f"{row['stage']}-{int(row['trial']):03d}"
        scores = json.loads((run / "metrics.json").read_text())
        assert float(row["native miou2"]) == scores["miou2"]
        assert {"model.safetensors", "report.html", "history.csv"} <= {file.name for file in run.iterdir()}
        assert not (run / "last").exists()
        cfg = load_config(run / "config.yaml")
        assert (cfg.model.arch, cfg.data.limit, cfg.train.epochs, cfg.data.cache) == (row["model.arch"], 6, 2, True)


def test_best_repeats_its_trial_exactly(folder, tmp_path):
    best = read_leaderboard(folder)[0]
    again = train(load_config(folder / "best.yaml", f"out={tmp_path}"))
    for name in ("history.csv", "metrics.json"):
        assert (again / name).read_text() == (Path(best["run"]) / name).read_text()
    assert best["miou2"] in (folder / "best.yaml").read_text()


def test_the_page_is_whole_and_needs_nothing_else(folder):
    text = (folder / "search.html").read_text(encoding="utf-8")
    page = whole_page(text, SECTIONS)
    assert len(page.sources) == 4
    best = read_leaderboard(folder)[0]
    assert f"{float(best['miou2']):.3f}" in page.text
    assert "highest miou2 of 4 complete trials" in page.text
    assert f"fastseg train --config {folder.resolve()}/best.yaml" in page.text


def test_the_same_command_finds_nothing_to_do_and_finish_trains_the_winner(folder, words, capsys):
    before = read_leaderboard(folder)
    assert main([*words, "--finish", "--train.workers=0"]) == 2
    capsys.readouterr()
    assert main([*words, "--finish"]) == 0
    printed = capsys.readouterr()
    assert read_leaderboard(folder) == before
    assert "networks: going on after 2 trials" in printed.err
    assert "training the winner" in printed.err
    assert "epoch 3/3" in printed.err
    (final,) = folder.glob("final-*")
    assert final.name == f"final-{before[0]['stage']}-{int(before[0]['trial']):03d}"
    cfg, best = load_config(final / "config.yaml"), load_config(folder / "best.yaml")
    assert (cfg.data.limit, cfg.train.epochs, best.data.limit, best.train.epochs) == (None, 3, 6, 2)
    assert cfg.model == best.model
    assert (cfg.train.lr, cfg.train.batch_size) == (best.train.lr, best.train.batch_size)
    assert (final / "metrics.json").is_file()
    assert printed.out.splitlines()[1].split()[0] == "1"
    assert main([*words, "--finish"]) == 0
    assert "finished already" in capsys.readouterr().err


def test_data_that_cannot_be_read_stop_it_before_the_first_trial(words, tmp_path, capsys):
    assert main([*words, "--data.root", "nowhere", "--out", str(tmp_path / "runs")]) == 2
    assert "nowhere" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()

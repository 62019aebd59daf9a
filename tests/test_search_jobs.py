"""Jobs in real processes of their own: a training, and all the ways one can fail."""

import csv
import multiprocessing
import os
import signal

import pytest
from wandb_files import wandb_records

from fastseg.experiments.searching.jobs import JobFailed, JobPruned, ending, run_job


def train_job(cfg, run, answer=None, **options):
    return run_job("train", cfg, run, answer, metric="miou2", **options)


def test_a_training_tells_its_epochs_and_what_its_run_folder_tells(tiny, tmp_path):
    told = []
    facts = train_job(tiny("train.epochs=2"), tmp_path / "one", lambda *epoch: told.append(epoch) or True)
    with (tmp_path / "one" / "history.csv").open() as file:
        rows = [(int(row["epoch"]), float(row["miou2"])) for row in csv.DictReader(file)]
    assert told == rows
    assert facts["value"] == rows[facts["epoch"] - 1][1]
    assert facts["parameters"] > 1e6
    assert facts["photographs_per_second"] > 0
    assert set(facts["native"]) == {"miou0", "miou1", "miou2"}
    assert (tmp_path / "one" / "report.html").is_file()
    # A finished run is not trained again.
    again = train_job(tiny("train.epochs=2"), tmp_path / "one", lambda *epoch: pytest.fail("trained again"))
    assert {**again, "run_seconds": None} == {**facts, "run_seconds": None}


def test_a_training_without_hope_ends_and_leaves_its_history(tiny, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(JobPruned) as caught:
        train_job(tiny("train.epochs=3", "track=[tensorboard, wandb]", "track_pictures=0"), tmp_path / "one",
                  lambda epoch, score: epoch < 2, group="mine")  # fmt: skip
    # It stands in the HParams tab all the same.
    events = EventAccumulator(str(tmp_path / "one" / "tensorboard")).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert len(events.Scalars("final/miou2")) == 1
    assert {record.run.run_group for kind, record in wandb_records(tmp_path / "one") if kind == "run"} == {"mine"}
    assert caught.value.facts["parameters"] > 1e6
    assert caught.value.facts["photographs_per_second"] > 0
    assert len((tmp_path / "one" / "history.csv").read_text().splitlines()) == 3
    assert "ended by Pruned: pruned after epoch 2" in (tmp_path / "one" / "log.txt").read_text()


FAILING = {
    "raises": (["model.args={nonsense: 1}"], {}, "model.args.nonsense: FPN takes"),
    "NaN": (["train.lr=1e30"], {}, "the loss became infinite or NaN in epoch 1"),
    "memory": (["data.size=2048x2048"], {"memory": 0.4}, "out of memory: "),
}


@pytest.mark.parametrize("fault", FAILING)
def test_a_training_that_fails_says_why_in_a_line(fault, tiny, tmp_path):
    overrides, options, said = FAILING[fault]
    with pytest.raises(JobFailed) as caught:
        train_job(tiny(*overrides), tmp_path / "one", **options)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "Traceback" in (tmp_path / "one" / "log.txt").read_text()


def test_a_training_that_is_killed_is_told_from_one_that_ends_by_itself(tiny, tmp_path):
    others = set(multiprocessing.active_children())

    def kill(epoch, score):
        (process,) = set(multiprocessing.active_children()) - others
        os.kill(process.pid, signal.SIGKILL)
        return True

    said = r"its process was killed \(SIGKILL\), as the system does where memory runs out"
    with pytest.raises(JobFailed, match=said):
        train_job(tiny("train.epochs=2"), tmp_path / "one", kill)
    assert ending(3) == "its process ended with status 3, and no word why"
    assert ending(-6) == "its process was killed (SIGABRT)"
    # What it had done is not lost.
    told = []
    train_job(tiny("train.epochs=2"), tmp_path / "one", lambda *epoch: told.append(epoch[0]) or True)
    assert told == [1, 2]
    assert "going on from epoch 2" in (tmp_path / "one" / "log.txt").read_text()

"""Searches as processes: killed, stopped, sharing a study, and with trials that die."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from fastseg.config import load_config
from fastseg.experiments.searching.leaderboard import read_leaderboard

pytestmark = pytest.mark.slow
SPACE = {"model.arch": ["FPN", "Unet"], "loss": [["iou"], ["cross_entropy"]],
         "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
         "train.weight_decay": {"low": 1e-4, "high": 0.1, "log": True}}  # fmt: skip
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture
def configured(people, tmp_path, monkeypatch):
    """Writes the configuration of a search: a grid of four, then four trials of rate and weight decay."""
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))

    def make(**search):
        settings = {"space": SPACE, "budget": {"trials": 8}, "limit": 16, "epochs": 3, "heartbeat": 2, **search}
        (tmp_path / "mine.yaml").write_text(json.dumps({
            "out": str(tmp_path / "runs"), "data": {"root": str(people), "size": "32x64", "workers": 0},
            "augment": {"preset": "none"}, "model": {"weights": "none"}, "train": {"batch_size": 4},
            "search": settings}))  # fmt: skip
        return ["search", "--config", str(tmp_path / "mine.yaml")]

    return make


def start(words):
    return subprocess.Popen([sys.executable, "-m", "fastseg.cli", *words], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def until(process, pattern):
    """Read what it says up to a line that matches."""
    while line := process.stderr.readline():
        if re.search(pattern, line):
            return line
    raise AssertionError(f"it ended with {process.wait()} before {pattern!r}")


def settings_of(row):
    return tuple(value for key, value in row.items() if key.startswith(("model.", "loss", "train.")))


def begun(folder):
    """How often each trial's training was begun or gone on with."""
    return {run.name: (run / "log.txt").read_text().count("  training on ") for run in (folder / "trials").iterdir()}


def trial_process(cache):
    """The process of the trial that is being trained: the one that the system should end first."""
    for place in Path("/proc").glob("[0-9]*/oom_score_adj"):
        try:
            own = str(cache).encode() in (place.parent / "environ").read_bytes()
            if own and place.read_text().strip() == "1000":
                return int(place.parent.name)
        except OSError:
            continue
    raise AssertionError("no trial is being trained")


def test_killed_at_three_moments_it_loses_no_trial_and_runs_none_twice(configured, tmp_path):
    rate = {"low": 0.1, "high": 10, "log": True, "times": "lr_find"}
    words, folder = configured(space={**SPACE, "train.lr": rate}), tmp_path / "runs" / "mine"
    for moment, wait in (("networks 0", 0.7), ("networks 2|networks 3", 4), ("settings 1", 1.2)):
        with start(words) as process:
            until(process, moment)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with start(words) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    found = read_leaderboard(folder)
    assert Counter(row["stage"] for row in found) == {"networks": 4, "settings": 4}
    assert {row["state"] for row in found} <= {"complete", "pruned"}
    assert len({settings_of(row) for row in found}) == 8
    assert {Path(row["run"]).name for row in found} == set(begun(folder))
    again = {name: times for name, times in begun(folder).items() if times != 1}
    assert sum(times - 1 for times in again.values()) <= 3
    for row in found:
        epochs = [line.split(",")[0] for line in (Path(row["run"]) / "history.csv").read_text().split()[1:]]
        assert epochs == ["1", "2", "3"][: int(row["epochs"])]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_shells_status_and_it_goes_on(configured, tmp_path, number):
    stages = [{"name": "all", "keys": ["*"], "pruner": "none"}]
    words = configured(budget={"trials": 4}, stages=stages, space={
        "model.arch": ["FPN", "Unet"], "train.weight_decay": {"low": 1e-4, "high": 0.1, "log": True}})  # fmt: skip
    with start(words) as process:
        until(process, "all 0")
        time.sleep(1)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 128 + number, said
    assert "the same command goes on with it" in said
    assert "Traceback" not in said
    with start(words) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    found = read_leaderboard(tmp_path / "runs" / "mine")
    assert [row["state"] for row in found] == ["complete"] * 4
    assert sum(begun(tmp_path / "runs" / "mine").values()) <= 5


def test_trials_that_raise_diverge_run_out_of_memory_or_are_killed_are_told(configured, tmp_path):
    stages = [{"name": "all", "keys": ["*"], "sampler": "grid"}]
    space = {"train.lr": [1e-3, 1e30], "model.args": [{}, {"nonsense": 1}], "data.size": ["32x64", "2048x2048"]}
    words = configured(memory=0.5, epochs=2, stages=stages, space=space)
    with start(words) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    found = {tuple(row[key] for key in ("train.lr", "model.args", "data.size")): row
             for row in read_leaderboard(tmp_path / "runs" / "mine")}  # fmt: skip
    assert found["0.001", "{}", "32x64"]["state"] == "complete"
    assert "infinite or NaN" in found["1e+30", "{}", "32x64"]["reason"]
    assert "FPN takes" in found["0.001", "{nonsense: 1}", "32x64"]["reason"]
    assert found["0.001", "{}", "2048x2048"]["reason"].startswith("out of memory")
    assert Counter(row["state"] for row in found.values()) == {"complete": 1, "failed": 7}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the trial's process in /proc")
def test_a_trial_that_the_system_kills_is_failed_and_the_search_goes_on(configured, tmp_path):
    stages = [{"name": "networks", "keys": ["*"], "sampler": "grid", "pruner": "none"}]
    words = configured(epochs=30, stages=stages, space={"model.arch": ["FPN", "Unet"]})
    with start(words) as process:
        while not list((tmp_path / "runs" / "mine" / "trials").glob("*/history.csv")):
            time.sleep(0.05)
            assert process.poll() is None
        os.kill(trial_process(tmp_path / "cache"), signal.SIGKILL)
        said = process.communicate()[1]
    assert process.returncode == 0, said
    found = read_leaderboard(tmp_path / "runs" / "mine")
    assert [row["state"] for row in found] == ["complete", "failed"]
    assert found[1]["reason"] == "its process was killed (SIGKILL), as the system does where memory runs out"


def shared_by_two(words, folder, place):
    """Run two workers, and hold what they leave against what the study says."""
    workers = [start(words) for _ in range(2)]
    outputs = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    found = read_leaderboard(folder)
    assert Counter(row["stage"] for row in found) == {"networks": 4, "settings": 4}
    assert len({settings_of(row) for row in found}) == 8
    assert set(begun(folder).values()) == {1}
    tables = [said.partition("\n\n")[0] for said, _ in outputs]
    assert tables[0] == tables[1]
    owners = set()
    for name in ("networks", "settings"):
        study = optuna.load_study(study_name=f"mine-{name}", storage=place)
        owners |= {trial.user_attrs["owner"][3] for trial in study.trials if "owner" in trial.user_attrs}
    assert owners == {worker.pid for worker in workers}
    assert load_config(folder / "best.yaml").model.arch == found[0]["model.arch"]


def test_two_workers_share_a_study_in_sqlite(configured, tmp_path):
    folder = tmp_path / "runs" / "mine"
    shared_by_two(configured(), folder, f"sqlite:///{folder}/study.db")


def test_two_workers_share_a_journal_file(configured, tmp_path):
    place = tmp_path / "mine.journal"
    backend = optuna.storages.journal.JournalFileBackend(str(place))
    shared_by_two(configured(storage=str(place)), tmp_path / "runs" / "mine", optuna.storages.JournalStorage(backend))


@pytest.fixture
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL server of its own, by Debian's package."""
    if not PROGRAMS:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    programs, folder = PROGRAMS[-1].parent, Path(f"/tmp/fastseg-postgres-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # It does not run as root; the package made a user for it.
    own = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if own:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")

    def do(program, *words):
        subprocess.run([*own, str(programs / program), "-D", data, *words], check=True, cwd=folder, timeout=120,
                       stdout=subprocess.DEVNULL)  # fmt: skip

    do("initdb", "-A", "trust", "-U", "fastseg")
    do("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", "start")
    yield f"postgresql+psycopg2://fastseg@127.0.0.1:{port}/postgres"
    do("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def test_two_workers_share_a_study_in_postgresql(configured, tmp_path, postgres):
    shared_by_two(configured(storage=postgres), tmp_path / "runs" / "mine", postgres)
    assert not (tmp_path / "runs" / "mine" / "study.db").exists()

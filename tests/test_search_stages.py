"""The stages of a search with trainings that are only pretended: what is asked, in which order, and what is kept."""

import time
from collections import Counter

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.experiments import search as module
from fastseg.experiments.search import search, table_of
from fastseg.experiments.searching import jobs, study, trials
from fastseg.experiments.searching.jobs import JobFailed, JobPruned
from fastseg.experiments.searching.leaderboard import read_leaderboard

ARCHS = {"FPN": 0.5, "Unet": 0.4, "PSPNet": 0.2}
LOSSES = {"cross_entropy": 0.0, "iou": 0.05}


class Pretended:
    """Stands in for `run_job`: a score made of the settings, and a note of everything that was asked."""

    def __init__(self):
        self.trained, self.rates, self.faults = [], 0, {}

    def __call__(self, job, cfg, run=None, answer=None, **options):
        if job != "train":
            self.rates += job == "rate"
            return 0.01
        self.trained.append(run.name)
        if fault := self.faults.pop(run.name, None):
            raise fault
        score = ARCHS[cfg.model.arch] + LOSSES[cfg.loss[0].name] - abs(cfg.train.weight_decay - 0.03)
        for epoch in range(1, cfg.train.epochs + 1):
            if not answer(epoch, score * epoch / cfg.train.epochs):
                raise JobPruned({"parameters": 5_000_000})
        return {"value": score, "epoch": cfg.train.epochs, "parameters": 5_000_000, "photographs_per_second": 10.0,
                "seconds": 1.0, "native": {"miou2": score}, "interval": [score - 0.1, score + 0.1]}  # fmt: skip


@pytest.fixture
def pretended(monkeypatch):
    """Trainings that take no time."""
    made = Pretended()
    monkeypatch.setattr(jobs, "run_job", made)
    monkeypatch.setattr(trials, "run_job", made)
    return made


@pytest.fixture
def cfg(tmp_path):
    """A grid of six, then six trials of a range and of two optimisers."""

    def make(*overrides, **search):
        settings = {
            "space": {"model.arch": list(ARCHS), "loss": [["cross_entropy"], ["iou"]],
                      "train.optimizer": ["adam", "sgd"],
                      "train.weight_decay": {"low": 0.001, "high": 0.3, "log": True}},
            "budget": {"trials": 12}, "epochs": 3, **search}  # fmt: skip
        return load_config({"name": "mine", "out": str(tmp_path), "search": settings}, *overrides)

    return make


def studies(folder):
    place = f"sqlite:///{folder}/study.db"
    return [optuna.load_study(study_name=f"mine-{name}", storage=place) for name in ("networks", "settings")]


def test_two_stages_and_what_they_leave(cfg, pretended, capsys):
    folder = search(cfg())
    found = read_leaderboard(folder)
    assert Counter(row["stage"] for row in found) == {"networks": 6, "settings": 6}
    first = [row for row in found if row["stage"] == "networks"]
    assert len({(row["model.arch"], row["loss"]) for row in first}) == 6
    assert {row["train.optimizer"] for row in first} == {""}
    # PSPNet is hopeless after one epoch, and the second stage goes on with the best two.
    assert {row["state"] for row in first if row["model.arch"] == "PSPNet"} == {"pruned"}
    second = [row for row in found if row["stage"] == "settings"]
    assert {(row["model.arch"], row["loss"]) for row in second} <= {("FPN", "iou"), ("FPN", "cross_entropy")}
    scores = [float(row["miou2"]) for row in found if row["state"] == "complete"]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in found[: len(scores)]] == [str(i + 1) for i in range(len(scores))]
    best = load_config(folder / "best.yaml")
    assert (best.model.arch, best.loss[0].name) == (found[0]["model.arch"], found[0]["loss"])
    assert best.data.limit == 400
    assert best.search == load_config().search
    assert float(found[0]["train.weight_decay"] or 0.01) == best.train.weight_decay
    assert load_config(folder / "search.yaml").search == cfg().search
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "; best " in line]) == 12
    assert said[0].startswith("networks 0: FPN, cross_entropy: miou2 0.48")
    table = table_of(folder).splitlines()
    assert table[0].split()[:6] == ["rank", "stage", "trial", "state", "miou2", "epochs"]
    assert (len(table), table[-1]) == (12, "… and 2 more")


def test_a_finished_search_is_not_run_again(cfg, pretended, capsys):
    folder = search(cfg())
    before, count = read_leaderboard(folder), len(pretended.trained)
    (folder / "search.html").unlink()
    assert search(cfg()) == folder
    assert (len(pretended.trained), read_leaderboard(folder)) == (count, before)
    assert (folder / "search.html").is_file()
    assert "networks: going on after 6 trials" in capsys.readouterr().err
    search(cfg("search.budget.trials=14"))
    assert len(pretended.trained) == count + 2
    with pytest.raises(InputError, match=r"train\.seed: the search mine-networks was begun with 0, not 1"):
        search(cfg("train.seed=1"))


@pytest.mark.parametrize("moment", ["networks-002", "settings-004"])
def test_what_is_stopped_goes_on_in_its_own_run_folder(cfg, pretended, moment, capsys):
    pretended.faults[moment] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        search(cfg())
    assert "the same command goes on with it" in capsys.readouterr().err
    folder = search(cfg())
    assert len(read_leaderboard(folder)) == 12
    again = Counter(pretended.trained)
    assert again.pop(moment) == 2
    assert set(again.values()) == {1}
    assert len(again) == 11


def test_the_trial_of_a_dead_process_is_begun_again_with_what_it_reported(cfg, pretended):
    folder = search(cfg("search.stages.1.trials=1", **{"budget": {"trials": None, "hours": 9}}))
    networks = studies(folder)[0]
    trial = networks.ask({"model.arch": optuna.distributions.CategoricalDistribution(list(ARCHS))})
    trial.report(0.3, 1)
    host, boot, space, _ = study.owner()
    owners = [([host, boot, space, 2**22 + 1], True), ([host, "another boot", space, 1], True),
              ([host, boot, "another container", 1], False), (["elsewhere", boot, space, 1], False)]  # fmt: skip
    for who, lost in owners:
        trial.set_user_attr(study.OWNER, who)
        study.revive(networks)
        waiting = [t for t in networks.trials if t.state == TrialState.WAITING]
        assert (len(waiting) == 1) == lost
        if lost:
            assert (waiting[0].intermediate_values, study.root(waiting[0])) == ({1: 0.3}, 6)
            study.revive(networks)
            assert len(networks.trials) == waiting[0].number + 1
            assert networks.trials[trial.number] not in study.counted(networks.trials)
            again = networks.ask()
            assert again.number == waiting[0].number
            trial = again


def test_a_trial_that_another_worker_took_over_is_left_to_it(cfg, pretended, monkeypatch, capsys):
    def taken_over(job, settings, run=None, answer=None, **options):
        if run is not None and run.name == "networks-001" and pretended.trained.count("networks-001") == 0:
            place = f"sqlite:///{run.parents[1]}/study.db"
            networks = optuna.load_study(study_name="mine-networks", storage=place)
            networks.tell(1, state=TrialState.FAIL)
        return pretended(job, settings, run, answer, **options)

    monkeypatch.setattr(trials, "run_job", taken_over)
    folder = search(cfg())
    assert "was taken over by another worker" in capsys.readouterr().err
    assert pretended.trained.count("networks-001") == 2
    assert len(read_leaderboard(folder)) == 12
    assert {row["state"] for row in read_leaderboard(folder)} <= {"complete", "pruned"}


def test_failures_are_recorded_and_the_search_goes_on(cfg, pretended):
    pretended.faults = {"networks-001": JobFailed("out of memory: so much"), "settings-002": InputError("no such file")}
    found = {(row["stage"], row["trial"]): row for row in read_leaderboard(search(cfg()))}
    assert len(found) == 12
    for key, reason in ((("networks", "1"), "out of memory: so much"), (("settings", "2"), "no such file")):
        assert (found[key]["state"], found[key]["reason"], found[key]["rank"]) == ("failed", reason, "")
    assert Counter(row["state"] == "failed" for row in found.values())[True] == 2


def test_a_score_that_is_no_number_is_a_failure(cfg, pretended, monkeypatch):
    monkeypatch.setitem(LOSSES, "cross_entropy", float("nan"))
    found = [row for row in read_leaderboard(search(cfg())) if row["loss"] == "cross_entropy"]
    assert found
    assert {(row["state"], row["reason"]) for row in found} == {("failed", "miou2 is nan after epoch 1")}


def test_where_all_fail_there_is_nothing_to_go_on_with(cfg, pretended):
    pretended.faults = {f"networks-{i:03d}": JobFailed(f"fault {i}") for i in range(6)}
    said = r"no trial came to its end \(6 were begun\); the first failed because: fault 0"
    with pytest.raises(InputError, match=said):
        search(cfg())


def test_equal_settings_are_trained_once(cfg, pretended):
    alike = cfg(space={"loss": [["iou"], "iou", [{"name": "iou"}]], "train.optimizer": ["adam", "sgd"]})
    folder = search(alike)
    assert sorted(pretended.trained)[0] == "networks-000"
    assert len([name for name in pretended.trained if name.startswith("networks")]) == 1
    # Of two optimisers there are two trials, though ten were left.
    assert len([name for name in pretended.trained if name.startswith("settings")]) == 2
    assert len(read_leaderboard(folder)) == 3


def test_hours_end_it_and_more_of_them_go_on(cfg, pretended, monkeypatch):
    slow = pretended.__call__
    monkeypatch.setattr(trials, "run_job", lambda *args, **kwargs: [time.sleep(0.05), slow(*args, **kwargs)][1])
    folder = search(cfg(budget={"hours": 0.12 / 3600}))
    assert 1 <= len(pretended.trained) <= 3
    assert {row["state"] for row in read_leaderboard(folder)} == {"complete", "waiting"}
    search(cfg(budget={"trials": 12, "hours": 1}))
    assert len(pretended.trained) == 12


def test_a_grid_above_the_budget_is_refused(cfg, pretended):
    with pytest.raises(InputError, match=r"search\.budget\.trials: 5, but the grid alone has 6"):
        search(cfg(budget={"trials": 5}))


def test_lr_find_is_asked_once_for_a_network_and_an_optimiser(cfg, pretended):
    wanted = cfg("search.space.train.lr={low: 0.1, high: 10, log: true, times: lr_find}", "train.lr=[1e-3, 5e-3]")
    folder = search(wanted)
    second = [row for row in read_leaderboard(folder) if row["stage"] == "settings"]
    pairs = {(row["model.arch"], row["loss"], row["train.optimizer"]) for row in second}
    assert pretended.rates == len(pairs)
    for row in second:
        low, high = yaml.safe_load(row["train.lr"])
        assert 0.001 <= high <= 0.1
        assert low == pytest.approx(high / 5, rel=0.01)


def test_workers_draw_from_different_seeds_and_a_queue_is_filled_once(cfg, pretended, tmp_path):
    settings = cfg()
    storage = study.open_storage(settings, tmp_path)
    queue = [{"a": 1}, {"a": 2}]
    opened = [study.open_study(settings, settings.search.stages[0], storage, queue, {}) for _ in range(3)]
    assert [len(one.trials) for one in opened] == [2, 2, 2]
    assert [study.worker_number(one) for one in opened] == [3, 4, 5]
    # Killed while it filled the queue: the next one completes it.
    half = optuna.create_study(study_name="mine-settings", storage=storage, direction="maximize")
    half.enqueue_trial({"a": 1})
    study.SETTLING, before = 0.1, study.SETTLING
    try:
        whole = study.open_study(settings, settings.search.stages[1], storage, queue, {"x": 3})
    finally:
        study.SETTLING = before
    assert [t.system_attrs["fixed_params"] for t in whole.trials] == [{"a": 1}, {"a": 2}]
    assert whole.user_attrs["x"] == 3


def test_a_journal_file_will_do(cfg, pretended, tmp_path):
    folder = search(cfg(storage=str(tmp_path / "shared" / "mine.journal")))
    assert len(read_leaderboard(folder)) == 12
    assert (tmp_path / "shared" / "mine.journal").is_file()
    assert not (folder / "study.db").exists()


def test_a_storage_that_cannot_be_had_is_said(cfg, pretended, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for place, said in (("nothing://x", "search.storage: "), ("postgresql://127.0.0.1:9/x", "search.storage: ")):
        with pytest.raises(InputError, match=said) as caught:
            search(cfg(storage=place))
        assert len(str(caught.value).splitlines()) == 1


def test_without_optuna_the_extra_is_named(cfg, monkeypatch):
    import builtins

    real = builtins.__import__

    def no_optuna(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_optuna)
    with pytest.raises(InputError, match=r"pip install 'fastseg-parts\[search\]'"):
        module.search(cfg())

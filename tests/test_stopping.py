import csv
import json
import os
import signal
import threading

import pytest
from fastai.callback.core import Callback

from fastseg.errors import InputError
from fastseg.experiments.train import train
from fastseg.learning.checkpoint import Checkpoint
from fastseg.learning.stopping import StopEarly, StopOnSignal

NAN = float("nan")


class Scores(Callback):
    """Puts scores into the history."""

    order = 60.5

    def __init__(self, scores):
        self.scores = scores

    def after_epoch(self):
        if self.learn.history.added:
            self.learn.history.rows[-1]["score"] = self.scores[len(self.learn.history.rows) - 1]


@pytest.mark.parametrize(
    ("scores", "lower", "patience", "epochs"),
    [([1, 2, 3, 4, 5], False, 1, 5), ([1, 2, 1, 2, 3], False, 2, 4), ([1, 2, 3, 4, 5], True, 2, 3),
     ([5, 4, 4, 3, 3], True, 1, 3), ([NAN, NAN, NAN, 1, 2], False, 2, 2), ([NAN, 1, NAN, 2, 3], False, 2, 5)],
)  # fmt: skip
def test_a_fit_ends_after_so_many_epochs_without_improvement(quiet, scores, lower, patience, epochs, capsys):
    learn = quiet(cbs=[Scores(scores), StopEarly(patience, "score", lower)])
    learn.fit(5)
    assert len(learn.history.rows) == epochs
    said = f"epoch {epochs}: score has not improved for {patience} epochs; stopping early\n"
    assert capsys.readouterr().err == (said if epochs < 5 else "")
    learn.validate()


def test_a_stop_is_remembered_where_training_is_gone_on_with(quiet, tmp_path):
    scores = [3, 2, 1, 9, 9]
    learn = quiet(cbs=[Scores(scores), StopEarly(2, "score"), Checkpoint(tmp_path)])
    learn.fit(5)
    again = quiet(cbs=[Scores(scores), StopEarly(2, "score"), Checkpoint(tmp_path, resume=True)])
    again.fit(5)
    assert len(again.history.rows) == len(learn.history.rows) == 3


def test_best_by_any_column(tiny):
    run = train(tiny("train.epochs=4", "train.monitor=valid_loss", "train.patience=2", "train.lr=3e-3"))
    with (run / "history.csv").open() as file:
        losses = [float(row["valid_loss"]) for row in csv.DictReader(file)]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epoch"] == losses.index(min(losses)) + 1
    assert "interrupted" not in metrics
    assert len(losses) == 4 or len(losses) == metrics["epoch"] + 2


def test_an_unknown_column_is_refused_before_the_run_has_a_folder(tiny, tmp_path):
    with pytest.raises(InputError, match=r"train\.monitor: no column 'mIoU' .* valid_loss, .*miou2"):
        train(tiny("train.monitor=mIoU"))
    assert not (tmp_path / "runs").exists()


def test_signals_are_listened_to_only_meanwhile():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = StopOnSignal()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    def elsewhere():
        with StopOnSignal().listening():
            done.append(signal.getsignal(signal.SIGINT) == before[0])

    done = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_signal_in_validation_waits_for_its_end(quiet, capsys):
    class Late(Callback):
        def before_validate(self):
            self.learn.stop_on_signal.asked = signal.SIGINT

    learn = quiet(cbs=[StopOnSignal(), Late()])
    learn.fit(3)
    assert len(learn.history.rows) == 1
    assert capsys.readouterr().err == "stopping after this validation; once more stops at once\n"
    learn.fit(2)
    assert len(learn.history.rows) == 1

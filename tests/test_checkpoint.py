"""Checkpoints of fits that are called by hand, and their files."""

import errno
import json
import math
import shutil

import pytest
import torch
from fastai.callback.core import Callback

from fastseg.errors import InputError
from fastseg.experiments.train import save_run
from fastseg.learning import checkpoint as module
from fastseg.learning.checkpoint import Checkpoint
from fastseg.learning.learner import seg_learner
from fastseg.learning.snapshots import newest_snapshot, write_snapshot

SMALL = ("model.arch=Linknet", "model.encoder=timm-mobilenetv3_small_minimal_100", "train.batch_size=2")
OFTEN = 1e-6


class Interrupted(Callback):
    """Ends the process, so to say, before a step."""

    order = 2000

    def __init__(self, step):
        self.step = step

    def before_batch(self):
        if self.training and self.learn.counted_randomness.steps == self.step:
            raise KeyboardInterrupt


def fits(learn, wanted=(1, 2)):
    learn.freeze()
    learn.fit_one_cycle(wanted[0], 1e-3)
    learn.unfreeze()
    learn.fit(wanted[1], 1e-4)


def outcome(learn):
    """Weights, and the history but for time."""
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()]), learn.history.rows


def assert_equal(one, two):
    assert torch.equal(one[0], two[0])
    assert one[1] == two[1]


# Steps: 4 an epoch. In the frozen stage, between the stages, and in the last epoch.
@pytest.mark.parametrize(
    ("step", "more"),
    [(3, ("train.optimizer=sgd", "train.ema=0.9", "augment.preset=light")), (4, ()), (11, ("train.optimizer=ranger",))],
)
def test_fits_called_by_hand_are_gone_on_with_by_the_same_calls(quiet, tmp_path, step, more):
    whole = quiet(*SMALL, *more)
    fits(whole)
    learn = quiet(*SMALL, *more, cbs=[Checkpoint(tmp_path / "run", OFTEN, resume=True), Interrupted(step)])
    with pytest.raises(KeyboardInterrupt):
        fits(learn)
    again = quiet(*SMALL, *more, cbs=Checkpoint(tmp_path / "run", OFTEN, resume=True))
    again.validate()
    with again.no_bar(), again.no_logging():
        again.lr_find(num_it=6, show_plot=False)
    shown = []
    again.logger = shown.append
    fits(again)
    assert_equal(outcome(again), outcome(whole))
    # What was done before is in fastai's table and curve, too.
    assert len(again.recorder.losses) == len(whole.recorder.losses) == 8
    assert [len(row) for row in again.recorder.values] == [len(row) for row in whole.recorder.values]
    assert [row[0] for row in shown if row[0] in (0, 1)][-2:] == [0, 1]
    assert save_run(again, tmp_path / "run").name == "run"


def test_a_cell_that_was_interrupted_can_be_run_again_in_the_same_kernel_or_another(quiet, tiny, tmp_path, capsys):
    whole = quiet(*SMALL)
    whole.fit_one_cycle(2, 1e-3)
    interruption = Interrupted(6)
    learn = quiet(*SMALL, cbs=[Checkpoint(tmp_path / "run", OFTEN, resume=True), interruption])
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(2, 1e-3)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    # With fastai's bar and table.
    other = seg_learner(tiny(*SMALL), cbs=Checkpoint(tmp_path / "copy", resume=True))
    other.fit_one_cycle(2, 1e-3)
    assert_equal(outcome(other), outcome(whole))
    assert f"{whole.history.rows[0]['valid_loss']:.4f}"[:5] in capsys.readouterr().out
    learn.remove_cb(interruption)
    learn.fit_one_cycle(2, 1e-3)
    assert_equal(outcome(learn), outcome(whole))


def test_other_calls_or_photographs_are_refused_in_a_line(quiet, tmp_path):
    learn = quiet(*SMALL, cbs=[Checkpoint(tmp_path, OFTEN), Interrupted(2)])
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2)
    with pytest.raises(InputError, match="checkpoints of an earlier training; go on with resume=True") as caught:
        Checkpoint(tmp_path)
    for epochs, more, said in [(3, (), "2 epochs, this one 3"), (2, ("train.batch_size=4",), "4 batches, this one 2"),
                               (2, ("data.limit=7", "train.batch_size=1"), "4 batches, this one 7")]:  # fmt: skip
        again = quiet(*SMALL, *more, cbs=Checkpoint(tmp_path, resume=True))
        with pytest.raises(InputError, match=said) as caught:
            again.fit(epochs)
        assert len(str(caught.value).splitlines()) == 1
    names = [*again.dls.train_ds.items]
    again = quiet(*SMALL, cbs=Checkpoint(tmp_path, resume=True))
    again.dls.train_ds.items[:] = [*names[1:], "another"] + ["another"] * (8 - len(names))
    with pytest.raises(InputError, match="other photographs than this one"):
        again.fit(2)


def test_a_full_disk_stops_nothing(quiet, tmp_path, monkeypatch, capsys):
    learn = quiet(*SMALL, cbs=Checkpoint(tmp_path))
    written = []

    def write(folder, number, state):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(number)
        return write_snapshot(folder, number, state)

    monkeypatch.setattr(module, "write_snapshot", write)
    learn.fit(3)
    assert len(learn.history.rows) == 3
    assert newest_snapshot(tmp_path / "last").epochs == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{tmp_path}/last: no checkpoint written (No space left on device); training goes on"]


STATE = {"callbacks": {}, "weights": torch.arange(6.0).reshape(2, 3), "half": [torch.ones(2, dtype=torch.bfloat16)],
         "none": None, "numbers": [1, 0.1, math.inf, True], "by number": {0: {"step": torch.tensor(3)}}}  # fmt: skip


def test_a_state_comes_back_as_it_was(tmp_path):
    for number in range(1, 5):
        write_snapshot(tmp_path, number, {**STATE, "number": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003.safetensors", "000004.safetensors"]
    found = newest_snapshot(tmp_path)
    assert (found.number, found.state["number"], found.remark) == (4, 4, None)
    assert torch.equal(found.state["weights"], STATE["weights"])
    assert found.state["half"][0].dtype == torch.bfloat16
    assert found.state["numbers"] == STATE["numbers"]
    assert found.state["by number"][0]["step"] == 3
    assert newest_snapshot(tmp_path / "nowhere") is None


def damage(path, how):
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit of a tensor":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "a bit of the rest":
        at = content.index(b"0.1")
        path.write_bytes(content[:at] + b"0.7" + content[at + 3 :])
    elif how == "another format":
        path.write_bytes(content.replace(b'"format":"1"', b'"format":"7"'))
    else:
        path.write_text(json.dumps({"format": 1}))


HOW = ["deleted", "truncated", "empty", "a bit of a tensor", "a bit of the rest", "another format", "no safetensors"]


@pytest.mark.parametrize("how", HOW)
def test_where_the_newest_is_no_good_the_one_before_is_found_and_said(tmp_path, how):
    for number in (1, 2, 3):
        write_snapshot(tmp_path, number, {**STATE, "number": number})
    damage(tmp_path / "000003.safetensors", how)
    found = newest_snapshot(tmp_path)
    assert found.state["number"] == 2
    assert "000003.safetensors: " + ("missing" if how == "deleted" else "damaged") in found.remark
    assert "going on from the one before, 000002.safetensors" in found.remark
    damage(tmp_path / "000002.safetensors", how)
    if how == "deleted":
        assert newest_snapshot(tmp_path) is None
    else:
        with pytest.raises(InputError, match="no other is whole; remove"):
            newest_snapshot(tmp_path)


def test_a_first_checkpoint_alone_misses_nothing(tmp_path):
    write_snapshot(tmp_path, 1, STATE)
    assert newest_snapshot(tmp_path).remark is None

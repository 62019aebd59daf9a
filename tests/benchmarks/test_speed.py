"""Timings as ratios in one run; `pytest tests/benchmarks -m slow -s` prints them."""

import statistics
import subprocess
import sys
import time

import pytest
import torch

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.learning.metrics import LevelIoU, confusion_matrix, leaf_ids

pytestmark = pytest.mark.slow
TREE = Hierarchy(PASCAL_PART)


def paired(first, second, rounds=7):
    """Median over rounds of first's time by second's, run in turns, so that a machine's drift cancels."""
    ratios = []
    for i in range(rounds + 1):
        times = []
        for work in (first, second):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        ratios += [times[0] / times[1]] if i else []
    return statistics.median(ratios)


def test_level_iou_against_argmax_and_one_bincount(record_property):
    logits = torch.randn(32, 7, 400, 400)
    target = torch.randint(0, 7, (32, 400, 400))
    target[target == 3] = 255
    scores, ids = LevelIoU(TREE), leaf_ids(logits)
    codes = (target.clamp(max=7) * 7 + ids).flatten()
    whole = paired(lambda: scores.update(logits, target), lambda: logits.argmax(1), 3)
    beyond = paired(lambda: scores.update(ids, target), lambda: torch.bincount(codes, minlength=56))
    print(f"\nLevelIoU / argmax: {whole:.3f} (at most 0.25); counting / bincount: {beyond:.2f} (at most 1.5)")
    assert whole <= 0.25
    assert beyond <= 1.5
    assert torch.equal(confusion_matrix(ids, target, 7), torch.bincount(codes, minlength=56)[:49].view(7, 7))


def test_an_epoch_against_a_hand_written_loop(tiny):
    """The same network, loader, loss and optimiser; one epoch of `fit` by one epoch of a plain loop."""
    from fastseg.learning.learner import seg_learner

    learn = seg_learner(tiny("data.size=96x96", "train.batch_size=8"))
    train, plain_loss = learn.dls.train, torch.nn.CrossEntropyLoss(ignore_index=255)
    learn.create_opt()
    steps = 6
    batch = train.one_batch()

    class Repeated:
        """The loader's one batch, again and again, so that reading files does not blur the comparison."""

        dataset, device, n_inp, bs = train.dataset, train.device, 1, 8

        def __iter__(self):
            return iter([batch] * steps)

        def __len__(self):
            return steps

    learn.dls.loaders = [Repeated(), []]

    def fastai():
        with learn.no_bar(), learn.no_logging(), learn.validation_context():
            pass
        with learn.no_bar(), learn.no_logging():
            learn._do_one_epoch()

    def by_hand():
        learn.model.train()
        for x, y in Repeated():
            loss = plain_loss(learn.model(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor))
            loss.backward()
            learn.opt.step()
            learn.opt.zero_grad()

    raise NotImplementedError((fastai, by_hand))


@pytest.mark.parametrize(
    ("command", "seconds"), [(["-c", "import fastseg"], 0.3), (["-m", "fastseg.cli", "--help"], 0.7)]
)
def test_starting_costs_nothing(command, seconds):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    print(f"\n{' '.join(command)}: {statistics.median(times):.2f} s (at most {seconds})")
    assert statistics.median(times) <= seconds

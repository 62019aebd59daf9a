"""Timings as ratios in one run; `pytest tests/benchmarks -m slow -s` prints them."""

import statistics
import subprocess
import sys
import time

import pytest
import torch
from timing import paired

from fastseg.decoding import leaf_ids
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.learning.metrics import LevelIoU, confusion_matrix

pytestmark = pytest.mark.slow
TREE = Hierarchy(PASCAL_PART)


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


def test_an_epoch_against_a_hand_written_loop(tiny, tmp_path):
    """`learn.fit(1)` by a plain loop: the same network, loaders, loss, optimiser class and scores."""
    from fastseg.data.sample import draw_sample
    from fastseg.learning.learner import OPTIMIZERS, seg_learner

    root = draw_sample(tmp_path / "drawn", 48, 8, (96, 128), seed=0)
    learn, other = (seg_learner(tiny("data.size=96x128", "train.batch_size=8", root=root)) for _ in range(2))
    model, loss_of, loaders = other.model, torch.nn.CrossEntropyLoss(ignore_index=255), other.dls
    optimizer = OPTIMIZERS["adam"]([list(model.parameters())], lr=1e-4)
    scores = LevelIoU(TREE)

    def by_hand():
        model.train()
        for x, y in loaders.train:
            loss = loss_of(model(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        scores.reset()
        with torch.no_grad():
            for x, y in loaders.valid:
                logits, y = model(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor)
                loss_of(logits, y)
                scores.update(logits, y)
        scores.compute()

    with learn.no_bar(), learn.no_logging():
        ratio = paired(lambda: learn.fit(1, 1e-4), by_hand)
    print(f"\nepoch of fit / hand-written: {ratio:.3f} (at most 1.1)")
    assert ratio <= 1.1


STARTS = [(["-c", "import fastseg"], 0.3), (["-m", "fastseg.cli", "--help"], 0.7)]


@pytest.mark.parametrize(("command", "seconds"), STARTS)
def test_starting_costs_nothing(command, seconds):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    print(f"\n{' '.join(command)}: {statistics.median(times):.2f} s (at most {seconds})")
    assert statistics.median(times) <= seconds

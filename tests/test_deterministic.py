import os

import pytest
import torch

from fastseg.errors import InputError
from fastseg.experiments import train as module
from fastseg.experiments.train import train
from fastseg.learning.deterministic import WORKSPACE, deterministic


def flags():
    return (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE))  # fmt: skip


def test_it_lasts_as_long_as_it_is_asked_for():
    before = flags()
    with deterministic():
        assert flags() == (True, False, True, False, before[4] or ":4096:8")
    assert flags() == before
    with pytest.raises(ZeroDivisionError), deterministic():
        1 / 0  # noqa: B018
    assert flags() == before
    with deterministic(False):
        assert flags() == before


def test_what_a_device_cannot_do_is_said_in_a_line():
    said = "cumsum_cuda does not have a deterministic implementation, but you set 'torch.use_det…'. You can turn off"
    line = r"train\.deterministic: .*\(cumsum_cuda does not have a deterministic implementation\); set"
    with pytest.raises(InputError, match=line) as caught, deterministic():
        raise RuntimeError(said)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RuntimeError, match="something else"), deterministic():
        raise RuntimeError("something else")


def test_a_run_trains_under_it(tiny, monkeypatch):
    seen, before = [], flags()
    own = module.save_run
    monkeypatch.setattr(module, "save_run", lambda *given: [seen.append(flags()[0]), own(*given)][1])
    run = train(tiny("train.deterministic=true", "augment.preset=strong"))
    assert (run / "metrics.json").is_file()
    assert seen == [True]
    assert flags() == before

import json

import fastai
import torch

from fastseg.data.machine import cores
from fastseg.experiments.environment import environment, peak_memory


def test_what_a_run_used(quiet):
    learn = quiet()
    found = environment(learn)
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["fastai"] == fastai.__version__
    assert found["cores"] == cores()
    assert found["photographs"] == {"train": 8, "valid": 2}
    assert found["parameters"] == sum(p.numel() for p in learn.model.parameters())
    assert (found["trained_by"], found["own_data"], found["precision"]) == ("hand", False, "fp32")
    assert json.loads(json.dumps(found)) == found


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory(torch.device("cpu"))["process"]
    # As much again as ever was in use, so that the peak must rise.
    held = bytearray(b"1") * (before << 20)
    assert peak_memory(torch.device("cpu"))["process"] > 1.2 * before > 60
    assert len(held) == before << 20

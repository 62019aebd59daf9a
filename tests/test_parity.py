import numpy as np
import pytest
import torch
from torch import nn

from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.inference import parity
from fastseg.inference.parity import Tally, compare_logits, compare_photographs, level_means, other_size, verdict
from fastseg.inference.passes import Batch
from fastseg.inference.plan import Plan
from fastseg.settings import ModelSettings

PLAN = Plan(Hierarchy(PASCAL_PART))


class File:
    """A runtime that gives PyTorch's logits, plus what a test wants."""

    name = "pretended"

    def __init__(self, network, change=lambda logits: logits):
        self.network, self.change = network, change

    def logits(self, images):
        with torch.inference_mode():
            return self.change(self.network(torch.from_numpy(images)).numpy().copy())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Conv2d(3, 7, 3, padding=1).eval()


@pytest.fixture
def batches():
    g = torch.Generator().manual_seed(1)
    masks = torch.randint(0, 7, (3, 10, 12), generator=g, dtype=torch.uint8)
    return [Batch([torch.randn(3, 3, 10, 12, generator=g)], list(masks), [(10, 12)] * 3)]


def test_what_is_the_same_is_found_the_same(network, batches):
    found = compare_logits(network, File(network), PLAN, batches).as_json()
    assert (found["photographs"], found["equal_pixels"], found["largest_difference"]) == (3, 1.0, 0.0)
    assert found["before"] == found["after"]
    assert found["lost_points"] == 0
    assert verdict(found, 0.0, 0.999) is None


def test_pixels_logits_and_points_are_counted(network, batches):
    def spoil(logits):
        logits[0, 3, :, :6] += 50
        return logits

    found = compare_logits(network, File(network, spoil), PLAN, batches).as_json()
    with torch.inference_mode():
        logits = network(batches[0].images[0])
    hurt = logits.clone()
    hurt[0, 3, :, :6] += 50
    same = (logits.argmax(1) == hurt.argmax(1)).float().mean()
    assert found["equal_pixels"] == pytest.approx(float(same), abs=1e-5)
    assert found["largest_difference"] == pytest.approx(50)
    truth = torch.stack(batches[0].masks)
    for key, ids in (("before", logits.argmax(1)), ("after", hurt.argmax(1))):
        ious = [float(((ids == c) & (truth == c)).sum() / ((ids == c) | (truth == c)).sum()) for c in range(1, 7)]
        assert found[key]["miou2"] == pytest.approx(np.mean(ious), abs=1e-4)
    drops = [100 * (found["before"][key] - found["after"][key]) for key in found["before"]]
    assert found["lost_points"] == pytest.approx(max(0, *drops), abs=0.01)
    assert "agree with PyTorch's on" in verdict(found, 100, 0.999)


def test_a_tally_without_some_class_has_no_mean():
    tally = Tally(PLAN)
    nothing = torch.zeros(4, 4, dtype=torch.uint8)
    tally.add(nothing, nothing, nothing)
    assert tally.as_json()["before"] == {"miou0": None, "miou1": None, "miou2": None}
    assert tally.as_json()["lost_points"] == 0


def test_logits_of_another_shape_are_no_match(network, batches):
    with pytest.raises(InputError, match="gives logits of"):
        compare_logits(network, File(network, lambda logits: logits[:, :6]), PLAN, batches)


def test_photographs_are_compared_by_ids_and_confidence(network, batches, monkeypatch):
    class Whole:
        name = "pretended"

        def ids(self, photograph):
            i = int(photograph[0, 0, 0])
            with torch.inference_mode():
                shares = network(batches[0].images[0])[i].softmax(0)
            return shares.argmax(0).to(torch.uint8).numpy(), shares.amax(0).numpy() - np.float32(0.25 * (i == 2))

    monkeypatch.setattr(parity, "photograph", lambda files, name: np.full((10, 12, 3), int(name), np.uint8))
    found = compare_photographs(network, Whole(), PLAN, batches, None, ["0", "1", "2"]).as_json()
    assert found["equal_pixels"] == 1
    assert found["largest_difference"] == pytest.approx(0.25, abs=1e-3)


def test_level_means_are_those_of_a_tally(network, batches):
    found = compare_logits(network, File(network), PLAN, batches).as_json()
    assert level_means(network, PLAN, batches) == pytest.approx(list(found["before"].values()), abs=1e-5)


def test_a_file_for_any_size_is_tried_at_others(network, monkeypatch):
    sizes, model = [], ModelSettings(arch="FPN")

    def seen(logits):
        sizes.append(logits.shape[-2:])
        return logits

    monkeypatch.setattr(parity, "open_backend", lambda path: File(network, seen))
    assert other_size(network, None, model, (64, 96)) == {"sizes": [[96, 96], [64, 192]]}
    assert sizes == [(96, 96), (64, 192)]
    monkeypatch.setattr(parity, "open_backend", lambda path: File(network, lambda logits: logits + 1))
    with pytest.raises(InputError, match=r"FPN: exported for any size, it does not work at 96x96 .*than PyTorch"):
        other_size(network, None, model, (64, 96))

    def fail(logits):
        raise RuntimeError("GatherND:\ninvalid index")

    monkeypatch.setattr(parity, "open_backend", lambda path: File(network, fail))
    with pytest.raises(InputError, match=r"\(pretended fails: GatherND: invalid index\); give --size HxW"):
        other_size(network, None, model, (64, 96))

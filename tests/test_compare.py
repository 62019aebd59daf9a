import json
import shutil

import numpy as np
import pytest
from test_scores import TREE, counted, drawn

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference.compare import compare, differences
from fastseg.inference.evaluate import Trial, evaluate
from fastseg.inference.scores import Counts, resamplings, weighted_scores


@pytest.fixture
def other(run, tmp_path):
    """The same run with other weights: its classifier turned around."""
    from safetensors.numpy import load_file, save_file

    copy = shutil.copytree(run, tmp_path / "other")
    weights = load_file(copy / "model.safetensors")
    weights["segmentation_head.0.weight"] = weights["segmentation_head.0.weight"][::-1].copy()
    save_file(weights, copy / "model.safetensors")
    return copy


def test_differences_are_paired():
    _, _, first = drawn(TREE, 3, images=12)
    _, guess, _ = drawn(TREE, 4, images=12)
    truth, _, _ = drawn(TREE, 3, images=12)
    second = counted(TREE, truth, guess)
    found = differences(TREE, [first, second, first])
    for level in range(3):
        both = [weighted_scores(TREE, c.matrices, "dataset", resamplings(12)).means[:, level] for c in (first, second)]
        plain = [
            weighted_scores(TREE, c.matrices, "dataset", np.ones((1, 12))).means[0, level] for c in (first, second)
        ]
        delta = found["differences"][0][f"miou{level}"]
        assert delta["value"] == pytest.approx(plain[1] - plain[0])
        assert delta["interval"] == pytest.approx(np.quantile(both[1] - both[0], [0.025, 0.975]).tolist())
        assert found["scores"][1][f"miou{level}"] == pytest.approx(plain[1])
    # A run against itself differs by nothing, however much its own score varies.
    assert found["differences"][1]["miou2"] == {"value": 0, "interval": [0, 0]}
    assert found["differences"][0]["classes"]["low_hand"] == {"value": None, "interval": None}


def test_an_improvement_on_every_photograph_is_sure():
    truth, guess, worse = drawn(TREE, 3, images=20)
    guess[:, :3] = truth[:, :3].where(truth[:, :3] < 7, guess[:, :3])
    delta = differences(TREE, [worse, counted(TREE, truth, guess)])["differences"][0]["miou0"]
    assert 0 < delta["interval"][0] < delta["value"] < delta["interval"][1]


def test_runs_are_counted_once_and_again_when_something_changed(run, other, drawn_copy, monkeypatch):
    seen = []

    def count(self, *args, real=Trial.count, **kwargs):
        seen.append(self.run.path)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Trial, "count", count)
    known = compare([run, other])
    assert seen == [other]  # training left its counts, which are not those of changed weights
    for folder in (run, other):
        (folder / "scores" / "valid-native-leaf.npz").unlink()
    seen.clear()
    found = compare([run, other])
    assert seen == [run, other]
    assert found == known
    assert found["scores"][0]["miou2"] == evaluate(run, write=False)["miou2"]
    assert (found["definition"], found["images"], found["runs"]) == ("dataset", 2, [str(run), str(other)])
    assert found["differences"][0]["run"] == str(other)
    seen.clear()
    compare([run, other], definition="image")
    assert seen == []
    compare([run, other], root=drawn_copy)
    assert seen == [run, other]
    seen.clear()
    (run / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    found = compare([run, other], root=drawn_copy)
    assert seen == [run]
    assert found["differences"][0]["miou0"] == {"value": 0, "interval": [0, 0]}
    (run / "scores" / "valid-native-leaf.npz").write_bytes(b"broken")
    compare([run, other], root=drawn_copy)
    assert seen == [run, run]


def test_what_cannot_be_compared(run, other, drawn_copy, tiny):
    with pytest.raises(InputError, match="two runs or more"):
        compare([run])
    card = json.loads((other / "model.json").read_text())
    changed = {**card, "hierarchy": {name: i for i, name in enumerate(card["classes"])}}
    (other / "model.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="its class tree is not that of"):
        compare([run, other])
    (other / "model.json").write_text(json.dumps({**card, "size": [64, 64]}))
    with pytest.raises(InputError, match="has another mask there; runs of other sizes"):
        compare([run, other], protocol="resized")
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("valid_ids: val_id.txt", "valid_ids: train_id.txt"))
    with pytest.raises(InputError, match="its valid ids are not those of"):
        compare([run, other])


def test_from_the_command_line(run, other, capsys):
    assert main(["compare", str(run), str(other), "--data.limit_valid", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 photographs, valid split, native size, dataset definition, leaf decoding")
    assert lines[2] == f"{other} against {run}"
    assert [line.split()[0] for line in lines if line.startswith("miou")] == ["miou0", "miou1", "miou2"]
    assert main(["compare", str(run), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"][0]["run"] == str(other)
    assert main(["compare", str(run)]) == 2


def test_one_photograph_has_no_interval():
    _, _, counts = drawn(TREE, 1)
    one = Counts(["a"], counts.matrices[:1])
    assert differences(TREE, [one, one])["differences"][0]["miou0"] == {"value": 0, "interval": None}

import pytest
import yaml

from fastseg.config import dump_config, load_config
from fastseg.errors import InputError
from fastseg.search_settings import SPACE, SearchSettings


def test_the_default_is_two_stages_over_networks_then_settings():
    own = SearchSettings()
    assert [own.stage_keys(i) for i in range(2)] == [["model.arch", "loss"], list(SPACE)[2:]]
    assert [(stage.sampler, stage.pruner) for stage in own.stages] == [("grid", "halving"), ("tpe", "median")]
    assert load_config().search == own


def test_a_space_may_be_nested_or_dotted_and_the_command_line_reaches_into_it():
    dotted = {"search": {"space": {"train.lr": [1e-3, 1e-2], "loss": [["iou"], ["dice"]]}}}
    nested = {"search": {"space": {"train": {"lr": [1e-3, 1e-2]}, "loss": [["iou"], ["dice"]]}}}
    assert load_config(dotted).search == load_config(nested).search
    cfg = load_config("sample", "search.space.train.optimizer=[adam]", "search.stages.1.trials=3")
    assert cfg.search.space == SPACE | {"train.optimizer": ["adam"]}
    assert cfg.search.stages[1].trials == 3


def test_a_files_space_takes_the_place_of_its_presets(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "preset: search_sample\nsearch:\n  space: {model.arch: [FPN, Unet], train.lr: {low: 1e-4, high: 1e-2}}\n"
    )
    cfg = load_config(tmp_path / "mine.yaml")
    assert cfg.search.space == {"model.arch": ["FPN", "Unet"], "train.lr": {"low": 1e-4, "high": 1e-2}}
    assert cfg.search.limit == load_config("search_sample").search.limit
    assert load_config(yaml.safe_load(dump_config(cfg, comments=True))) == cfg


WRONG = {
    "search.space.train.lr=3": "train.lr: 3 is neither a list of choices, nor a range",
    "search.space.train.lr=[]": "train.lr: [] is no list of choices that differ",
    "search.space.train.epochs=[2, 2]": "train.epochs: [2, 2] is no list of choices that differ",
    "search.space.train.lr={low: 1, high: 1}": "train.lr: a range has two numbers, low under high",
    "search.space.train.lr={low: small, high: 1}": "train.lr: a range has two numbers",
    "search.space.train.lr={low: 0, high: 1, log: true}": "train.lr: log needs a low above 0",
    "search.space.train.lr={low: 1, hgih: 2}": "train.lr: unknown key 'hgih'",
    "search.space.train.ema={low: 0.9, high: 0.99, times: lr_find}": "train.ema: times is for train.lr alone",
    "search.space.model.encoder={when: model.arch}": "model.encoder: name values of 'model.arch'",
    "search.space.model.encoder={when: model.rach, FPN: [resnet18]}": "'model.rach' is set, which is no other key",
    "search.space.model.auxiliary={low: 0.1, high: 1}": "a grid needs lists of choices, and model.auxiliary has a",
    "search.stages.0.keys=[nothing]": "stages.0.keys: no key of the space is left for networks",
    "search.stages.1.name=networks": "give each stage a name of its own",
    "search.stages=[{name: a, keys: [model]}]": "stages: none of them tries loss",
    "search.stages=[{name: a, keys: [model]}, {name: b, sampler: grid}]": "only the first stage can be a grid",
    "search.budget={trials: null}": "neither trials nor hours",
    "search.stage=2": "search.stage: unknown key; did you mean search.stages?",
    "search.stages.0.sampler=gird": "did you mean grid?",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_said_in_a_line(override):
    with pytest.raises(InputError) as caught:
        load_config("sample", override)
    assert WRONG[override] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

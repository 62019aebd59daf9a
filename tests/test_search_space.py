import optuna
import pytest
from optuna.trial import FixedTrial

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.experiments.searching.space import (
    apply,
    check_space,
    describe,
    grid,
    label,
    metric_of,
    parameters,
    suggest,
    trial_settings,
    with_rate,
)

SPACE = {
    "model.encoder": {"when": "model.arch", "FPN": ["resnet18", "resnet34"], "Unet": ["vgg11"]},
    "model.arch": ["FPN", "Unet", "PSPNet"],
    "loss": [["cross_entropy", "iou"], [{"name": "iou", "levels": [0, 2]}]],
    "train.weight_decay": {"low": 1e-4, "high": 0.3, "log": True},
    "train.accumulate": {"low": 1, "high": 4},
    "train.warmup": {"low": 0.1, "high": 0.5, "step": 0.2},
    "train.ema": [None, 0.9],
}


def test_labels_are_words_that_differ():
    assert [label(value) for value in (None, 3, 0.5, "adam", True)] == [None, 3, 0.5, "adam", True]
    assert label(["cross_entropy", "iou"]) == "cross_entropy + iou"
    assert label([{"name": "iou", "levels": [0, 2]}]) == "[{name: iou, levels: [0, 2]}]"
    assert describe({"model.arch": "FPN", "loss": ["iou"], "train.ema": 0.9}) == "FPN, iou, ema 0.9"


def test_what_depends_on_a_choice_is_asked_for_that_choice_alone():
    wanted = parameters(SPACE, ["model.encoder", "model.arch"])
    assert [p.name for p in wanted] == ["model.arch", "model.encoder (FPN)", "model.encoder (Unet)"]
    combinations = list(grid(wanted))
    assert [picks for _, picks in combinations] == [
        {"model.arch": "FPN", "model.encoder": "resnet18"}, {"model.arch": "FPN", "model.encoder": "resnet34"},
        {"model.arch": "Unet", "model.encoder": "vgg11"}, {"model.arch": "PSPNet"}]  # fmt: skip
    for params, picks in combinations:
        assert suggest(FixedTrial(params), wanted) == picks
    assert suggest(FixedTrial({"model.encoder (Unet)": "vgg11"}), wanted[1:], {"model.arch": "Unet"}) == {
        "model.arch": "Unet", "model.encoder": "vgg11"}  # fmt: skip
    circle = {"a": {"when": "b", "1": [1]}, "b": {"when": "a", "1": [1]}}
    with pytest.raises(InputError, match="depend on each other in a circle"):
        parameters(circle, ["a", "b"])


def test_what_optuna_draws_makes_configurations():
    wanted = parameters(SPACE, list(SPACE)[1:])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = {key: set() for key in SPACE}
    for _ in range(40):
        picks = suggest(study.ask(), wanted)
        cfg = apply(load_config(), picks)
        assert cfg.model.arch == picks["model.arch"]
        assert cfg.train.ema == picks["train.ema"]
        assert float(f"{cfg.train.weight_decay:.3g}") == cfg.train.weight_decay == picks["train.weight_decay"]
        for key, value in picks.items():
            seen[key].add(label(value))
    assert seen["train.accumulate"] == {1, 2, 3, 4}
    assert seen["train.warmup"] == {0.1, 0.3, 0.5}
    assert seen["train.ema"] == {None, 0.9}
    assert seen["loss"] == {"cross_entropy + iou", "[{name: iou, levels: [0, 2]}]"}
    assert min(seen["train.weight_decay"]) < 1e-3 < 0.03 < max(seen["train.weight_decay"])


def test_a_network_does_not_inherit_anothers_arguments():
    cfg = load_config("sample")
    assert apply(cfg, {"model.arch": "FPN"}).model.args == {"decoder_dropout": 0.0}
    assert apply(cfg, {"model.arch": "Unet"}).model.args == {}


def test_a_rate_keeps_the_encoders_share():
    assert with_rate(load_config("train.lr=1e-3"), 0.0123456).train.lr == 0.0123
    assert with_rate(load_config("train.lr=[1e-3, 5e-3]"), 0.02).train.lr == (0.004, 0.02)
    assert with_rate(load_config("train.lr=auto"), 0.02).train.lr == 0.02


def test_a_trial_is_the_configuration_on_fewer_photographs():
    cfg = load_config("search_sample", "data.limit=100", "train.frozen_epochs=2", "train.patience=1",
                      "search.stages.1.epochs=5", "search.stages.1.limit=50")  # fmt: skip
    one, two = (trial_settings(cfg, stage, "miou2") for stage in (0, 1))
    assert (one.data.limit, one.train.epochs, two.data.limit, two.train.epochs) == (100, 2, 50, 5)
    assert (one.data.cache, one.train.frozen_epochs, one.train.patience, one.train.monitor) == (True, 0, None, "miou2")
    assert one.search == load_config().search
    assert trial_settings(load_config("search.limit=null"), 0, "miou2").data.limit is None
    assert trial_settings(load_config("data.cache=device"), 0, "miou2").data.cache == "device"


def test_impossible_choices_and_metrics_stop_before_anything_is_made():
    assert metric_of(load_config()) == "miou2"
    with pytest.raises(InputError, match=r"search\.metric: 'miou3' is not one of miou0, miou1, miou2"):
        metric_of(load_config("search.metric=miou3"))
    check_space(load_config("search_sample"))
    for override, said in {
        "search.space.model.arch=[FPN, PAN]": "search.space: PAN, cross_entropy: data.size: 64x64; PAN needs 128",
        "search.space.model.arch=[FPN, Unit]": "'Unit' is not one of",
        "search.space.train.batch_size=[0]": "batch_size 0: train.batch_size",
        "search.space.train.weight_decay={low: -1, high: 1}": "weight_decay -1: train.weight_decay",
        "search.space.train.epoch=[1]": "did you mean train.epochs",
        "search.space.train.ema={when: train.optimizer, rmsprop: [0.9]}": "'rmsprop' is no choice of train.optimizer",
    }.items():
        with pytest.raises(InputError) as caught:
            check_space(load_config("search_sample", override))
        assert said in str(caught.value)

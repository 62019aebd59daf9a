"""Half precision on whatever device, compiled networks, and what is said where memory ends."""

import pytest
import torch
from torch import nn

from fastseg.errors import InputError
from fastseg.learning.learner import seg_learner
from fastseg.learning.precision import chosen_precision, limits_explained

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def make(tiny):
    def build(*overrides):
        learn = seg_learner(tiny(*overrides))
        learn.remove_cbs([cb for cb in learn.cbs if cb.name == "progress"])
        return learn

    return build


@pytest.fixture
def half(make):
    """A learner in bf16, and the kinds of numbers that its last layer gave."""
    learn, seen = make("train.precision=bf16"), []
    learn.model.segmentation_head[0].register_forward_hook(lambda module, x, y: seen.append(y.dtype))
    return learn, seen


@pytest.mark.parametrize(("asked", "native", "device", "chosen"), [
    ("auto", True, GPU, "bf16"), ("auto", False, GPU, "fp32"), ("auto", True, CPU, "fp32"),
    ("fp16", False, GPU, "fp16"), ("bf16", True, GPU, "bf16"), ("bf16", False, CPU, "bf16"),
    ("fp32", True, GPU, "fp32"),
])  # fmt: skip
def test_the_choice(tiny, monkeypatch, asked, native, device, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert chosen_precision(tiny(f"train.precision={asked}").train, device) == chosen


def test_what_a_device_has_not_is_refused(tiny, monkeypatch):
    with pytest.raises(InputError, match=r"train\.precision: fp16 needs a GPU; on a CPU use fp32 or bf16"):
        seg_learner(tiny("train.precision=fp16"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(InputError, match=r"train\.precision: this GPU has no bf16; use fp16 or fp32"):
        chosen_precision(tiny("train.precision=bf16").train, GPU)


def test_bf16_trains_on_a_cpu(half):
    learn, seen = half
    losses, before = [], learn.model.segmentation_head[0].weight.clone()
    learn.loss_func.register_forward_hook(lambda module, x, y: losses.append((x[0].dtype, y.dtype)))
    with learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
    assert set(seen) == {torch.bfloat16}
    assert set(losses) == {(torch.float32, torch.float32)}
    assert learn.model.segmentation_head[0].weight.dtype == torch.float32
    assert not torch.equal(before, learn.model.segmentation_head[0].weight)
    assert learn.history.rows[0]["train_loss"] > 0


@pytest.mark.parametrize("after", ["fit", "validate", "get_preds", "error"])
def test_nothing_stays_switched_on(half, after):
    learn, _ = half
    if after == "error":
        def broken(module, x):
            raise ZeroDivisionError

        hook = learn.model.register_forward_pre_hook(broken)
        with learn.no_logging(), pytest.raises(ZeroDivisionError):
            learn.fit(1)
        hook.remove()
        # An exception that fastai lets through leaves it on until the learner is used again.
        with learn.no_logging():
            learn.fit(1)
    elif after == "get_preds":
        images = learn.dls.test_dl(learn.dls.valid_ds.items)
        learn.get_preds(dl=images)
    else:
        with learn.no_logging():
            getattr(learn, after)(*[1] * (after == "fit"))
    assert not torch.is_autocast_enabled("cpu")


def test_channels_last_for_the_asking(make):
    for setting, expected in (("null", True), ("true", True), ("false", False)):
        weight = make(f"train.channels_last={setting}").model.encoder.conv_stem.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected


def test_names_of_weights_stay_when_compiled(make):
    plain, compiled = make(), make("train.compile=true")
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert compiled.model._compiled_call_impl is not None


@pytest.mark.slow
def test_a_compiled_network_trains_like_the_plain_one(tiny):
    from fastseg.experiments.train import train

    args = "model.args={encoder_depth: 3, decoder_channels: [32, 16, 8]}"
    small = ["model.arch=Unet", "model.encoder=resnet18", args]
    rows = [(train(tiny(f"train.compile={on}", *small)) / "history.csv").read_text().splitlines()
            for on in ("true", "false")]  # fmt: skip
    (names, ours), (_, theirs) = [(rows[0].split(","), [float(v) for v in rows[1].split(",")]) for rows in rows]
    assert names[1] == "train_loss"
    assert ours[1] == pytest.approx(theirs[1], rel=0.02)


def test_want_of_memory_says_what_to_lower(tiny):
    cfg = tiny("train.batch_size=4")
    said = r"out of memory: 4 photographs of 32x64 at a time do not fit; lower train\.batch_size .* or data\.size"
    for fault in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):
        with pytest.raises(InputError, match=said), limits_explained(cfg):
            raise fault
    with pytest.raises(InputError, match=said), limits_explained(cfg):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="another"), limits_explained(cfg):
        raise RuntimeError("another")


def test_a_run_without_memory_ends_in_one_line(tiny, monkeypatch):
    from fastseg.experiments import prepare
    from fastseg.experiments.train import train

    def hungry(module, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def learner(cfg):
        learn = seg_learner(cfg)
        learn.model.register_forward_pre_hook(hungry)
        return learn

    monkeypatch.setattr(prepare, "seg_learner", learner)
    with pytest.raises(InputError, match="out of memory: 4 photographs of 32x64"):
        train(tiny())


def test_a_compiler_that_fails_is_named(tiny):
    class InductorError(RuntimeError):
        pass

    InductorError.__module__ = "torch._inductor.exc"
    said = r"train\.compile: not possible here \(no C\+\+\); set it to false"
    with pytest.raises(InputError, match=said), limits_explained(tiny("train.compile=true")):
        raise InductorError("no C++")
    with pytest.raises(InductorError), limits_explained(tiny()):
        raise InductorError("no C++")


def test_accumulated_batches_are_one_large_batch(tiny):
    """For a loss that is a mean over photographs, and a network without statistics of a batch."""
    ends = []
    for overrides in (["train.batch_size=2", "train.accumulate=4"], ["train.batch_size=8"]):
        learn = seg_learner(tiny(*overrides, "loss=[cross_entropy]", "train.optimizer=sgd"))
        torch.manual_seed(0)
        learn.model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 7, 1))
        learn.splitter = lambda model: [list(model[0].parameters()), list(model[2].parameters())]
        start = learn.model[0].weight.clone()
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 0.1)
        ends.append(learn.model)
        assert not torch.equal(start, learn.model[0].weight)
    for a, b in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

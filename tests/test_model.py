import time

import pytest
import torch
from safetensors.torch import save_file

from fastseg.errors import InputError
from fastseg.learning import encoders
from fastseg.learning.encoders import WHEELS, encoder_stats, read_weights, resolve_encoder
from fastseg.learning.model import create_model, seg_splitter
from fastseg.settings import ModelSettings

LITE0 = "timm-tf_efficientnet_lite0"
NOTEBOOKS = "timm-mobilenetv3_small_minimal_100"


def test_the_notebooks_renamed_encoder():
    assert resolve_encoder(NOTEBOOKS) == "tu-tf_mobilenetv3_small_minimal_100"
    assert encoder_stats(NOTEBOOKS) == ((0.5,) * 3, (0.5,) * 3)
    model = create_model(ModelSettings(arch="DeepLabV3", encoder=NOTEBOOKS, weights="none"), 7)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7, 64, 64)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("resnet34", 0.485),
        ("mit_b1", 0.485),
        ("tu-convnext_tiny", 0.485),
        ("timm-regnetx_002", 0.485),
        (LITE0, 0.5),
        ("xception", 0.5),
        ("inceptionv4", 0.5),
        ("dpn68", 124 / 255),
    ],
)
def test_statistics_belong_to_the_encoder(name, mean):
    assert encoder_stats(name)[0][0] == pytest.approx(mean)


def test_every_encoder_of_smp_has_a_name_and_statistics():
    from segmentation_models_pytorch.encoders import get_encoder_names

    for name in get_encoder_names():
        mean, std = encoder_stats(name)
        assert len(mean) == len(std) == 3, name


def test_the_wheels_weights_are_the_hubs_in_the_same_order():
    model = create_model(ModelSettings(), 7)
    random = create_model(ModelSettings(weights="none"), 7)
    state = model.encoder.state_dict()
    assert not torch.equal(state["conv_stem.weight"], random.encoder.state_dict()["conv_stem.weight"])
    # A trained first layer is far from noise: a BatchNorm's statistics are never 0 and 1.
    assert state["bn1.running_mean"].abs().max() > 0.1
    assert state["blocks.6.0.bn3.running_var"].std() > 0


def test_a_wheel_with_other_content_or_another_network_is_refused(monkeypatch):
    module, file, _ = WHEELS[LITE0]
    monkeypatch.setitem(encoders.WHEELS, LITE0, (module, file, "0" * 64))
    with pytest.raises(InputError, match="SHA-256"):
        create_model(ModelSettings(), 7)
    monkeypatch.undo()
    monkeypatch.setitem(encoders.WHEELS, "resnet18", WHEELS[LITE0])
    with pytest.raises(InputError, match="does not fit"):
        create_model(ModelSettings(encoder="resnet18"), 7)


@pytest.mark.parametrize("encoder", ["resnet34", "tu-convnext_tiny", NOTEBOOKS])
def test_no_network_is_said_at_once(monkeypatch, tmp_path, encoder):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot be reached") as caught:
        create_model(ModelSettings(encoder=encoder), 7)
    assert time.monotonic() - started < 8
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    assert LITE0 in message
    assert "model.weights=none" in message


def test_encoder_weights_from_files(tmp_path):
    source = create_model(ModelSettings(weights="none"), 7)
    save_file(source.state_dict(), tmp_path / "whole.safetensors")
    torch.save({"state_dict": source.encoder.state_dict()}, tmp_path / "encoder.pth")
    for name in ("whole.safetensors", "encoder.pth"):
        model = create_model(ModelSettings(weights=str(tmp_path / name)), 7)
        for a, b in zip(model.encoder.state_dict().values(), source.encoder.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(InputError, match="does not fit this encoder"):
        create_model(ModelSettings(encoder="resnet18", weights=str(tmp_path / "encoder.pth")), 7)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_weights_file_cannot_run_code(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not readable as weights"):
        read_weights(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="names to tensors"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"model\.weights: no file"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "resnett34"}, "did you mean resnet34"),
        ({"encoder": "tu-convnext_tny"}, "did you mean tu-convnext_tiny"),
        ({"args": {"foo": 1}}, "model.args.foo: FPN takes encoder_depth"),
        ({"args": {"classes": 3}}, "model.args.classes"),
        ({"args": {"decoder_merge_policy": "mul"}}, "FPN on timm-tf_efficientnet_lite0 cannot be built"),
    ],
)
def test_networks_that_cannot_be_built(settings, said):
    with pytest.raises(InputError, match=said):
        create_model(ModelSettings(**{"weights": "none"} | settings), 7)


def test_constructor_arguments_pass_through():
    model = create_model(ModelSettings(weights="none", args={"encoder_depth": 4, "decoder_dropout": 0.0}), 7)
    assert model.encoder.output_stride == 16


def test_the_splitter_divides_encoder_from_the_rest():
    model = create_model(ModelSettings(weights="none"), 7)
    encoder, rest = seg_splitter(model)
    assert len(encoder) == len(list(model.encoder.parameters()))
    assert len(encoder) + len(rest) == len(list(model.parameters()))
    assert {id(p) for p in model.segmentation_head.parameters()} <= {id(p) for p in rest}

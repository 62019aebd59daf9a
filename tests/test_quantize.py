from types import SimpleNamespace

import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.inference.quantize import Quantizer, float_operators

COSTS = {f"op{i}": cost for i, cost in enumerate([0.01, 0.5, 0.02, 0.3, 0.0, 0.1, 0.01, 0.2, 0.0, 0.0])}


class Pretended:
    """A file holds which operators are in float; each of the others costs what COSTS says."""

    operators = tuple(COSTS)

    def __init__(self):
        self.written = []

    def write(self, path, kept=()):
        self.written.append(len(kept))
        path.write_text("\n".join(kept))


def cost(path):
    return sum(value for name, value in COSTS.items() if name not in path.read_text().splitlines())


def search(tmp_path, aim, most=9.0, loss=cost):
    quantizer, path, said = Pretended(), tmp_path / "file", []
    kept = float_operators(quantizer, path, loss, cost, aim, most, said.append)
    assert path.read_text().splitlines() == kept
    return kept, quantizer, said


def test_nothing_stays_in_float_where_nothing_is_lost(tmp_path):
    kept, quantizer, said = search(tmp_path, aim=1.2)
    assert kept == []
    assert quantizer.written == [0]
    assert said == ["10 operators in int8, 0 in float: 1.14 points lost"]


@pytest.mark.parametrize(("aim", "count"), [(0.7, 1), (0.4, 2), (0.2, 3), (0.1, 4), (0.03, 5)])
def test_the_fewest_of_the_costliest_stay_in_float(tmp_path, aim, count):
    kept, *_ = search(tmp_path, aim)
    assert kept == ["op1", "op3", "op7", "op5", "op2"][:count]


def test_where_the_aim_is_out_of_reach_the_best_is_taken_or_refused(tmp_path):
    def noisy(path):
        return cost(path) + 0.3

    kept, *_ = search(tmp_path, 0.2, 0.5, noisy)
    assert len(kept) == 5
    with pytest.raises(InputError, match=r"with 5 of 10 operators in float it still loses 0\.32 points"):
        search(tmp_path, 0.2, 0.3, noisy)


@pytest.fixture
def net(tmp_path):
    """conv → relu → add of a constant (as a normalisation's) → conv, and their file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(4, 3, 3, 3)), "shift": rng.normal(size=(1, 4, 1, 1)),
               "w2": rng.normal(size=(2, 4, 1, 1)) * [[[[1.0]]], [[[100.0]]]]}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], "first/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "first/Relu"),
        helper.make_node("Add", ["b", "shift"], ["c"], "norm/Add"),
        helper.make_node("Conv", ["c", "w2"], ["logits"], "second/Conv"),
    ]
    shape = [None, 3, 8, 8]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 2, 8, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def run(path, image):
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"image": image})[0]


def test_quantised_by_channel_with_operators_left_out(net, tmp_path):
    import onnx
    from onnx import numpy_helper

    rng = np.random.default_rng(1)
    feeds = [{"image": rng.normal(size=(2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    quantizer = Quantizer(net, feeds, tmp_path)
    assert quantizer.operators == ["first/Conv", "second/Conv"]
    assert quantizer.outside == ["norm/Add"]
    assert quantizer.activations == {"first/Conv": ["first/Relu"], "second/Conv": []}
    image, errors, scales = feeds[0]["image"], {}, {}
    for kept in ([], ["first/Conv"], ["first/Conv", "second/Conv"]):
        quantizer.write(tmp_path / "int8.onnx", kept)
        errors[len(kept)] = np.abs(run(tmp_path / "int8.onnx", image) - run(net, image)).max(axis=(0, 2, 3))
        stored = {w.name: numpy_helper.to_array(w) for w in onnx.load(tmp_path / "int8.onnx").graph.initializer}
        weights = [value for value in stored.values() if value.dtype == np.int8 and value.ndim == 4]
        assert len(weights) == 2 - len(kept)
        # Seven bits.
        assert all(np.abs(value.astype(int)).max() <= 64 for value in weights)
        scales[len(kept)] = stored.get("w2_scale")
    # Output channels that differ a hundredfold each keep a scale of their own.
    assert scales[0][1] > 20 * scales[0][0]
    assert 0 < errors[0].max() < 0.1 * np.abs(run(net, image)).max()
    assert errors[1].max() < errors[0].max()
    assert errors[2].max() < 1e-5


def test_what_lies_around_the_network_is_not_touched(net, tmp_path):
    feeds = [{"image": np.zeros((1, 3, 8, 8), np.float32)}]
    quantizer = Quantizer(net, feeds, tmp_path, outside="second/")
    assert quantizer.operators == ["first/Conv"]
    with pytest.raises(InputError, match="no operator"):
        Quantizer(net, feeds, tmp_path, outside="")


def test_older_tools_that_keep_no_ranges(net, tmp_path, monkeypatch):
    from onnxruntime import quantization

    def older(model, out, reader, quant_format, op_types_to_quantize, nodes_to_exclude, per_channel, reduce_range,
              activation_type, weight_type):  # fmt: skip
        assert (per_channel, reduce_range) == (True, True)
        seen.append(SimpleNamespace(first=reader.get_next()))

    seen = []
    feeds = [{"image": np.zeros((1, 3, 8, 8), np.float32)}]
    quantizer = Quantizer(net, feeds, tmp_path)
    monkeypatch.setattr(quantization, "quantize_static", older)
    quantizer.write(tmp_path / "a.onnx")
    quantizer.write(tmp_path / "b.onnx")
    assert [one.first is not None for one in seen] == [True, True]


def test_what_stays_in_float_is_not_quantised_by_the_runtime(tmp_path):
    """Between two convolutions in int8, one whose output channels differ a thousandfold."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    middle = rng.normal(size=(4, 4, 1, 1)) * np.array([1, 1, 1, 1000]).reshape(4, 1, 1, 1)
    last = rng.normal(size=(2, 4, 1, 1)) / np.array([1, 1, 1, 1000]).reshape(1, 4, 1, 1)
    weights = {"w1": rng.normal(size=(4, 3, 1, 1)), "w2": middle, "w3": last}
    names, values = ["first/Conv", "middle/Conv", "last/Conv"], ["image", "a", "b", "logits"]
    graph = helper.make_graph(
        [helper.make_node("Conv", [values[i], f"w{i + 1}"], [values[i + 1]], names[i]) for i in range(3)], "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 2, 8, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "n.onnx")
    image = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    quantizer, path = Quantizer(tmp_path / "n.onnx", [{"image": image}], tmp_path), tmp_path / "int8.onnx"
    quantizer.write(path, ["middle/Conv"])
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    as_written = onnxruntime.InferenceSession(path, plain).run(None, {"image": image})[0]
    error = np.abs(as_written - run(tmp_path / "n.onnx", image)).max()
    np.testing.assert_allclose(run(path, image), as_written, atol=0.5 * error)
    stored = {w.name: numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
    np.testing.assert_array_equal(stored["w2"], weights["w2"].astype(np.float32))

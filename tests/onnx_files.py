"""ONNX files of a few nodes, made without torch."""

import json

import numpy as np

from fastseg.hierarchy import PASCAL_PART, Hierarchy

CARD = {
    "format": 1, "model": {"arch": "Unet", "encoder": "resnet18", "auxiliary": 0.0, "args": {}}, "head": "leaves",
    "classes": list(Hierarchy(PASCAL_PART).leaves), "hierarchy": PASCAL_PART, "mirror": [], "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3], "size": [32, 64], "resize": "squish",
}  # fmt: skip


def with_export(card, **export):
    """A card that says how its file was exported."""
    return card | {"export": {"precision": "float32", "size": None, "preprocessing": False} | export}


def write_onnx(path, card=CARD, **export):
    """A pixelwise network of known weights, or, with its preprocessing, one that compares red with green."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name, values):
        return numpy_helper.from_array(np.asarray(values), name)

    if export.get("preprocessing"):
        nodes = [helper.make_node("Cast", ["photograph"], ["x"], to=TensorProto.FLOAT),
                 helper.make_node("Gather", ["x", "0"], ["red"], axis=2),
                 helper.make_node("Gather", ["x", "1"], ["green"], axis=2),
                 helper.make_node("Greater", ["red", "green"], ["more"]),
                 helper.make_node("Cast", ["more"], ["ids"], to=TensorProto.UINT8),
                 helper.make_node("Div", ["red", "255"], ["confidence"])]  # fmt: skip
        known = [tensor("0", np.int64(0)), tensor("1", np.int64(1)), tensor("255", np.float32(255))]
        inputs = [helper.make_tensor_value_info("photograph", TensorProto.UINT8, ["H", "W", 3])]
        outputs = [helper.make_tensor_value_info("ids", TensorProto.UINT8, ["H", "W"]),
                   helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["H", "W"])]  # fmt: skip
    else:
        nodes = [helper.make_node("Conv", ["image", "weights"], ["logits"])]
        known = [tensor("weights", np.arange(21, dtype=np.float32).reshape(7, 3, 1, 1) % 5 - 2)]
        size = export.get("size") or ["h", "w"]
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, *size])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 7, *size])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, known), ir_version=8,
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    model.metadata_props.add(key="fastseg", value=json.dumps(with_export(card, format="onnx", **export)))
    onnx.save(model, path)
    return path

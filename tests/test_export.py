"""One small network, exported once for many tests; the networks that people train are among the slow ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import SMALL, made_run
from test_graph import expected, texture

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference import export as exporting_module
from fastseg.inference.backends import open_backend
from fastseg.inference.evaluate import evaluate
from fastseg.inference.export import export
from fastseg.learning.model import mask_logits, trained_model
from fastseg.run import Run


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("export") / "run", drawn)


@pytest.fixture(scope="module")
def proof(run):
    return export(run, "onnx")


@pytest.fixture
def reusing(proof, monkeypatch):
    """What follows the exporter is tested on the file that is there already."""

    def copy(network, card, path, size):
        import onnx

        model = onnx.load(proof["file"])
        model.metadata_props[0].value = json.dumps(card)
        onnx.save(model, path)

    monkeypatch.setattr(exporting_module, "write_onnx", copy)
    return copy


def test_an_onnx_file_is_pytorch_in_numpy(run, proof):
    backend, reference = open_backend(proof["file"]), mask_logits(trained_model(Run.open(run)))
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 32, 64, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            np.testing.assert_allclose(backend.logits(images.numpy()), reference(images).numpy(), atol=1e-3)


def test_its_card_and_nodes(run, proof):
    import onnx

    model = onnx.load(proof["file"])
    card = json.loads({p.key: p.value for p in model.metadata_props}["fastseg"])
    assert card == {**Run.open(run).card, "export": {"format": "onnx", "precision": "float32", "size": [32, 64],
                                                     "preprocessing": False}}  # fmt: skip
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"encoder.conv1/Conv", "segmentation_head.0/Conv"} <= {n.replace("bn1", "conv1") for n in names}
    content = Path(proof["file"]).read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content


def test_the_proof_is_written_beside_it(run, proof, drawn):
    stored = json.loads((run / "model.onnx.json").read_text())
    assert stored == {**proof, "file": "model.onnx"}
    assert stored["photographs"] == 2
    assert stored["equal_pixels"] >= 0.999
    assert 0 < stored["largest_difference"] < 1e-2
    assert stored["data"] == [str(drawn.resolve())]
    assert stored["runtime"].startswith("onnxruntime 1.")
    scores = evaluate(run, write=False)
    for level in range(3):
        assert stored["before"][f"miou{level}"] == pytest.approx(scores[f"miou{level}"], abs=1e-4)
    assert not list(run.glob("*.part*"))


def test_openvino_agrees_and_nothing_calls_home(run, reusing, tmp_path):
    proof = export(run, "openvino", tmp_path / "net.xml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.bin", "net.xml", "net.xml.json"]
    assert proof["equal_pixels"] >= 0.999
    assert proof["runtime"].startswith("openvino 20")
    code = f"""
import sys
from pathlib import Path
seen = []
calls = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.posix_spawn")
def hook(event, args):
    # Python itself asks ldconfig where libraries are.
    if event in calls and args[0] != "/sbin/ldconfig":
        seen.append((event, args))
sys.addaudithook(hook)
from fastseg.inference.backends import open_backend
import numpy as np
for path in ({str(tmp_path / "net.xml")!r}, {str(run / "model.onnx")!r}):
    assert open_backend(path).logits(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 7, 32, 64)
import json
from fastseg.inference.formats import write_openvino
write_openvino(Path({str(run / "model.onnx")!r}), {{"format": 1}}, Path({str(tmp_path / "again.xml")!r}))
import time
time.sleep(0.5)
assert Path({str(tmp_path / "again.xml")!r}).is_file()
assert not seen, seen
# What is not Python leaves no trace there, but would hold a socket.
open_files = [link.readlink() for link in Path("/proc/self/fd").glob("*") if link.is_symlink()]
assert not [name for name in open_files if str(name).startswith("socket:")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_drop_fails_the_command_and_leaves_no_file(run, proof, monkeypatch, tmp_path, capsys):
    def spoil(network, card, path, size):
        import onnx
        from onnx import numpy_helper

        model = onnx.load(proof["file"])
        for weight in model.graph.initializer:
            values = numpy_helper.to_array(weight)
            if weight.name.endswith("segmentation_head.0.bias"):
                weight.CopyFrom(numpy_helper.from_array(values + np.float32([9, 0, 0, 0, 0, 0, 0]), weight.name))
        onnx.save(model, path)

    monkeypatch.setattr(exporting_module, "write_onnx", spoil)
    out = tmp_path / "bad.onnx"
    assert main(["export", str(run), "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"fastseg export: {out}: not written, as its masks agree with PyTorch's on ")
    assert list(tmp_path.iterdir()) == []
    # Where equal pixels are not asked for, as of int8, scores decide.
    assert exporting_module.verdict({"equal_pixels": 0.9, "lost_points": 0.6}, 0.5, None).startswith("it loses 0.60")
    assert exporting_module.verdict({"equal_pixels": 0.9, "lost_points": 0.4}, 0.5, None) is None


def test_int8_from_the_command_line(run, reusing, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    assert main(["export", str(run), "--int8", "--tolerance", "30", "--out", str(out), "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert proof["precision"] == "int8"
    assert (proof["calibrated_on"], proof["chosen_on"]) == (4, 4)
    assert proof["int8_operators"] > 10
    backend = open_backend(out)
    assert backend.card["export"]["precision"] == "int8"
    assert proof["bytes"] < 0.5 * (run / "model.onnx").stat().st_size
    import onnx

    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_torch_export(run, tmp_path):
    proof = export(run, "exported", tmp_path / "net.pt2")
    assert proof["equal_pixels"] >= 0.999
    backend = open_backend(tmp_path / "net.pt2")
    assert backend.name == "exported"
    assert backend.logits(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 7, 32, 64)


@pytest.mark.parametrize(("words", "said"), [
    (["--format", "tflite"], "format 'tflite' is none of onnx, openvino, exported"),
    (["--format", "exported", "--int8"], "stay in float32"),
    (["--size", "dynamic", "--with-preprocessing"], "photographs of any size already"),
    (["--size", "big"], "size: 'big'; write height x width"),
    (["--out", "net.xml"], "a file of onnx ends in .onnx"),
    (["--out", "nowhere/net.onnx"], "there is no folder nowhere"),
    (["--data.root", "nowhere"], "no folder nowhere"),
    (["--data.size", "64"], "is the run's own"),
])  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_done(run, words, said, capsys, monkeypatch):
    monkeypatch.setattr(exporting_module, "write_onnx", lambda *args: pytest.fail("it began"))
    assert main(["export", str(run), *words]) == 2
    assert said in capsys.readouterr().err


def test_sizes_that_the_architecture_refuses(drawn, tmp_path):
    folder = made_run(tmp_path / "run", drawn, arch=[*SMALL[:-2], "model.arch=FPN", "model.encoder=resnet18"])
    with pytest.raises(InputError, match="size: 40x64; FPN needs height and width divisible by 32"):
        export(folder, "onnx", size="40x64")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript", "openvino"])
def test_a_missing_package_is_named_with_its_extra(run, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    extra = "openvino" if package == "openvino" else "onnx"
    with pytest.raises(InputError, match=rf"needs {package}; pip install 'fastseg-parts\[{extra}\]'"):
        export(run, "openvino")


# What the README shows; numpy, Pillow and onnxruntime are all it imports.
SCRIPT = '''\
import sys
import numpy as np
import onnxruntime
from PIL import Image

model, photograph, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
image = np.asarray(Image.open(photograph).convert("RGB"))
ids, confidence = session.run(["ids", "confidence"], {"photograph": image})
mask = Image.fromarray(ids)
mask.putpalette(np.random.default_rng(1).integers(60, 256, 768, dtype=np.uint8).tobytes())
mask.save(out)
print(f"{mask.width}x{mask.height}, classes {np.unique(ids).tolist()}, confidence {confidence.mean():.2f}")
'''
# The same from a file without preprocessing.
PLAIN_SCRIPT = '''\
import json
import sys
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
card = json.loads(session.get_modelmeta().custom_metadata_map["fastseg"])
high, wide = card["export"]["size"]
photograph = Image.open(sys.argv[2]).convert("RGB")
image = np.asarray(photograph.resize((wide, high), Image.BILINEAR), np.float32) / 255
image = ((image - np.float32(card["mean"])) / np.float32(card["std"])).transpose(2, 0, 1)[None]
ids = session.run(["logits"], {"image": image})[0][0].argmax(0).astype(np.uint8)
Image.fromarray(ids).resize(photograph.size, Image.NEAREST).save(sys.argv[3])
'''


def ran(script, tmp_path, *words):
    """Run a script in a process that has no fastseg, and can import neither it nor torch."""
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 15
    bar = "import sys\nsys.modules.update(dict.fromkeys(['fastseg', 'torch', 'onnx', 'cv2', 'scipy']))\n"
    (tmp_path / "use.py").write_text(bar + script)
    return subprocess.run([sys.executable, str(tmp_path / "use.py"), *map(str, words)], capture_output=True, text=True,
                          cwd=tmp_path, timeout=60, env={"PATH": "/usr/bin:/bin"})  # fmt: skip


def test_a_script_of_fifteen_lines_uses_the_plain_file(run, proof, drawn, tmp_path):
    from PIL import Image

    picture = next((drawn / "JPEGImages").iterdir())
    done = ran(PLAIN_SCRIPT, tmp_path, proof["file"], picture, tmp_path / "mask.png")
    assert (done.returncode, done.stderr) == (0, "")
    photograph = np.asarray(Image.open(picture).convert("RGB"))
    ids, _ = expected(Run.open(run), photograph)
    found = np.asarray(Image.open(tmp_path / "mask.png"))
    assert found.shape == photograph.shape[:2]
    # Ids are enlarged here, logits there.
    assert (found == ids.numpy()).mean() > 0.8


@pytest.mark.slow
def test_a_file_with_preprocessing_needs_a_script_of_fifteen_lines(run, tmp_path):
    from PIL import Image

    proof = export(run, "onnx", preprocessing=True)
    assert proof["equal_pixels"] >= 0.995
    photograph = texture((83, 131))
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    done = ran(SCRIPT, tmp_path, proof["file"], tmp_path / "photo.png", tmp_path / "mask.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("131x83, classes [0, 1, 2")
    ids, _ = expected(Run.open(run), photograph)
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == ids.numpy()).mean() > 0.99
    # The wrong orientation, an odd shape and one pixel, by the same file.
    backend = open_backend(proof["file"])
    for shape in ((1, 1), (7, 300), (200, 3)):
        assert backend.ids(texture(shape))[0].shape == shape


LITE0 = ["model.encoder=timm-tf_efficientnet_lite0"]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["FPN", "Unet", "DeepLabV3Plus"])
def test_any_size(drawn, tmp_path, arch):
    run = made_run(tmp_path / "run", drawn, arch=[f"model.arch={arch}", *LITE0], size="64x96")
    proof = export(run, "onnx", size="dynamic")
    assert proof["size"] is None
    assert proof["equal_pixels"] >= 0.999
    backend, reference = open_backend(proof["file"]), mask_logits(trained_model(Run.open(run)))
    for shape in ((1, 3, 64, 64), (2, 3, 128, 96), (1, 3, 96, 256), (3, 3, 32, 32)):
        images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = reference(images).numpy()
        np.testing.assert_allclose(backend.logits(images.numpy()), expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), [("Segformer", "mit_b0"), ("UPerNet", "timm-tf_efficientnet_lite0")])
def test_one_size_where_any_is_refused_with_the_reason(drawn, tmp_path, arch, encoder):
    run = made_run(tmp_path / "run", drawn, arch=[f"model.arch={arch}", f"model.encoder={encoder}"], size="64x64")
    assert export(run, "onnx")["equal_pixels"] >= 0.999
    out = tmp_path / "any.onnx"
    try:
        proof, said = export(run, "onnx", out, size="dynamic"), ""
    except InputError as error:
        proof, said = None, str(error)
    print(said)
    if proof:
        # A later exporter may have learned it; then it has been proved at other sizes.
        assert len(proof["sizes_tried"]["sizes"]) == 2
        return
    assert said.startswith(f"{arch}: ")
    assert said.endswith(("give --size HxW", "give --size HxW instead of dynamic"))
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", [False, True])
@pytest.mark.parametrize("format", ["onnx", "exported"])
def test_a_head_of_nodes_and_an_auxiliary_one(drawn, tmp_path, format, preprocessing):
    run = made_run(tmp_path / "run", drawn, "loss=[cross_entropy, tree_min]", "model.auxiliary=0.1", "data.resize=pad")
    proof = export(run, format, preprocessing=preprocessing)
    assert proof["equal_pixels"] >= 0.999
    backend = open_backend(proof["file"])
    if not preprocessing:
        assert backend.logits(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 12, 32, 64)
        return
    photograph = texture((60, 45))
    ids, confidence = expected(Run.open(run), photograph)
    found, sure = backend.ids(photograph)
    assert (found == ids.numpy()).mean() > 0.99
    assert np.abs(sure - confidence.numpy()).mean() < 0.01


@pytest.mark.slow
def test_int8_with_preprocessing_quantises_the_network_alone(run, tmp_path):
    import onnx

    proof = export(run, "onnx", tmp_path / "net.onnx", int8=True, preprocessing=True, tolerance=30)
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert proof["int8_operators"] > 10
    takers = [n for n in nodes if n.name.startswith("photograph/") and n.op_type in ("MatMul", "Add", "Mul")]
    makers = {name: node for node in nodes for name in node.output}
    assert takers
    # Between photograph and network, and behind it, at most the network's own ends are in integers.
    for node in takers:
        assert makers.get(node.input[0], node).op_type != "DequantizeLinear" or node.op_type != "MatMul"
    assert proof["equal_pixels"] > 0.8

"""What runs a network: PyTorch, ONNX Runtime, OpenVINO or a file of torch.export, each loaded where it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.errors import InputError
from fastseg.run import FORMAT, Run

CARD = "fastseg"  # the name that a file's card goes by
CARD_FILE = f"{CARD}.json"


class Backend:
    """A network that is ready to run, and the `card` of its file: the content of `model.json`, and how it was exported.

    `library` names what `run` takes and gives: "numpy" arrays or "torch" tensors.
    """

    name = ""
    library = "numpy"
    device = "cpu"

    def __init__(self, card: Mapping[str, Any]):
        self.card = card
        self.export = card.get("export") or {}

    @property
    def size(self) -> tuple[int, int] | None:
        """The only height and width that it takes; None: any that the architecture takes."""
        size = self.export.get("size")
        return (int(size[0]), int(size[1])) if size else None

    @property
    def preprocessing(self) -> bool:
        """Whether it takes photographs as they are, to give ids at their own size."""
        return bool(self.export.get("preprocessing"))

    def run(self, images: Any) -> Any:
        """(N, 3, h, w) float32, normalised → (N, C, h, w) float32 logits, in its own library's arrays."""
        raise NotImplementedError

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, h, w) float32, normalised → (N, C, h, w) float32 logits, NumPy arrays."""
        return self.run(images)

    def ids(self, photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 → leaf ids (H, W) uint8 and confidence (H, W) float32, of a file with its preprocessing."""
        raise NotImplementedError


def open_backend(source: str | Path, threads: int | None = None, device: str | None = None) -> Backend:
    """What a run folder, `.onnx`, OpenVINO `.xml` or `.pt2` file is run by.

    `threads` None: as many as the library takes by itself. `device`: cpu or cuda; None: CUDA where a run folder can
    have it. Raises `InputError` for what is none of these, lacks its card, or needs a package that is not installed.
    """
    path = Path(source).expanduser()
    kinds = {".onnx": OnnxBackend, ".xml": OpenVinoBackend, ".pt2": ExportedBackend}
    if path.is_dir():
        return TorchBackend(path, threads, device)
    if path.suffix not in kinds:
        raise InputError(f"{path}: neither a run folder nor an exported file ({', '.join(kinds)})")
    if not path.is_file():
        raise InputError(f"{path}: no such file; `fastseg export RUN` makes one")
    return kinds[path.suffix](path, threads, device)


class _TorchLike(Backend):
    """PyTorch's: `run` takes and gives tensors."""

    library = "torch"
    network: Callable[[Any], Any]

    def __init__(self, card: Mapping[str, Any], threads: int | None, device: str | None, cuda: bool):
        import torch

        super().__init__(card)
        if threads:
            torch.set_num_threads(threads)
        self.device = device or ("cuda" if cuda and torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0][:120]
            raise InputError(f"device {self.device!r} cannot be used ({said}); use cpu") from None

    def run(self, images: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.network(images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        import torch

        return self.run(torch.from_numpy(images)).cpu().numpy()


class TorchBackend(_TorchLike):
    """A run folder."""

    name = "torch"

    def __init__(self, path: Path, threads: int | None = None, device: str | None = None):
        run = Run.open(path)
        super().__init__(run.card, threads, device, cuda=True)
        import torch

        from fastseg.learning.model import mask_logits, place, trained_model

        self.network = mask_logits(place(trained_model(run), torch.device(self.device)))


class ExportedBackend(_TorchLike):
    """A `.pt2` file of torch.export."""

    name = "exported"

    def __init__(self, path: Path, threads: int | None = None, device: str | None = None):
        import torch

        from fastseg.inference.pt2 import check_program

        check_program(path)
        found = {CARD_FILE: ""}
        try:
            program = torch.export.load(path, extra_files=found)
        except Exception as error:
            raise InputError(f"{path}: not readable as a file of torch.export ({_said(error)})") from None
        super().__init__(read_card(found[CARD_FILE], path), threads, device, cuda=False)
        self.network = program.module()

    def ids(self, photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        ids, confidence = self.run(torch.from_numpy(photograph))
        return ids.numpy(), confidence.numpy()


class OnnxBackend(Backend):
    """An `.onnx` file, run by ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None, device: str | None = None):
        runtime = needed("onnxruntime", "onnx", path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        if device not in (None, "cpu"):
            if "CUDAExecutionProvider" not in runtime.get_available_providers():
                raise InputError(f"device {device!r}: this ONNX Runtime has no CUDA; use cpu or onnxruntime-gpu")
            providers, self.device = ["CUDAExecutionProvider", *providers], device
        try:
            self.session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:
            raise InputError(f"{path}: not readable by ONNX Runtime ({_said(error)})") from None
        super().__init__(read_card(self.session.get_modelmeta().custom_metadata_map.get(CARD), path))

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(["logits"], {"image": np.ascontiguousarray(images)})[0]

    def ids(self, photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, confidence = self.session.run(["ids", "confidence"], {"photograph": np.ascontiguousarray(photograph)})
        return ids, confidence


class OpenVinoBackend(Backend):
    """An OpenVINO `.xml` file with its `.bin`."""

    name = "openvino"

    def __init__(self, path: Path, threads: int | None = None, device: str | None = None):
        openvino = needed("openvino", "openvino", path)
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except Exception as error:
            raise InputError(f"{path}: not readable by OpenVINO ({_said(error)})") from None
        text = model.get_rt_info(CARD).value if model.has_rt_info(CARD) else None
        super().__init__(read_card(text, path))
        # By itself it computes in half precision where the processor has that, which other runtimes do not.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.device = device or "cpu"
        try:
            self.model = core.compile_model(model, self.device.upper(), settings)
        except Exception as error:
            raise InputError(f"{path}: OpenVINO cannot run it on {self.device!r} ({_said(error)})") from None

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.model([np.ascontiguousarray(images)])["logits"]

    def ids(self, photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self.model([np.ascontiguousarray(photograph)])
        return found["ids"], found["confidence"]


def read_card(text: str | None, path: Path) -> dict[str, Any]:
    """The card that a file carries. Raises `InputError` where there is none."""
    try:
        card = json.loads(text or "")
        known = card["format"] == FORMAT and card["export"] is not None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: carries no card of fastseg; give a file that `fastseg export` made") from None
    if not known:
        raise InputError(f"{path}: its card has format {card['format']}, this version reads {FORMAT}")
    return card


def needed(package: str, extra: str, what: object) -> Any:
    """An optional package. Raises `InputError` that names the extra it comes with."""
    try:
        return import_module(package)
    except ImportError:
        raise InputError(f"{what}: needs {package}; pip install 'fastseg-parts[{extra}]'") from None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

"""A finished run → one file for another runtime, written only when it has been proved on photographs."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastseg.data.check import quick_check
from fastseg.data.files import Files, JoinedFiles
from fastseg.data.frames import Framing
from fastseg.errors import InputError
from fastseg.inference.backends import Backend, needed, open_backend
from fastseg.inference.evaluate import other_data, split_files
from fastseg.inference.formats import SUFFIXES, write_exported, write_onnx, write_openvino
from fastseg.inference.parity import EQUAL, Tally, compare_logits, compare_photographs, other_size, photograph, verdict
from fastseg.inference.passes import Batch, photograph_batches
from fastseg.inference.plan import Plan
from fastseg.inference.quantize import Quantizer, float_operators
from fastseg.inference.quantized_loss import Judge
from fastseg.learning.model import trained_model
from fastseg.run import Run
from fastseg.settings import ModelSettings, Settings, check_size
from fastseg.values import parse_size
from fastseg.writing import write_json

TOLERANCES = {"float32": 0.1, "int8": 0.5}  # points of mean IoU at any level
PROVED_ON = 64  # photographs of the run's own
CALIBRATION = 64  # photographs that ranges are taken from, and as many others to choose operators by
MARGIN = 0.6  # share of the tolerance that may be lost on those
Told = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is to be exported; `size` (height, width), None for any."""

    format: str = "onnx"
    int8: bool = False
    size: tuple[int, int] | None = None
    preprocessing: bool = False

    @classmethod
    def of(cls, run: Run, format: str, int8: bool, size: str | Sequence[int] | None, preprocessing: bool) -> Wish:
        """Checked against each other and the architecture. Raises `InputError` for what does not go together."""
        if format not in SUFFIXES:
            raise InputError(f"format {format!r} is none of {', '.join(SUFFIXES)}")
        if int8 and format == "exported":
            raise InputError("--int8 goes with onnx and openvino; torch.export's files stay in float32")
        if size == "dynamic" and preprocessing:
            raise InputError("--with-preprocessing takes photographs of any size already; "
                             "the network behind it has one: leave --size out, or give HxW")  # fmt: skip
        sides = None if size == "dynamic" else _size(run, size)
        return cls(format, int8, sides, preprocessing)

    @property
    def card(self) -> dict[str, Any]:
        """What a file's card says of how it was exported."""
        return {"format": self.format, "precision": self.precision, "size": list(self.size) if self.size else None,
                "preprocessing": self.preprocessing}  # fmt: skip

    @property
    def precision(self) -> str:
        """float32 or int8."""
        return "int8" if self.int8 else "float32"

    @property
    def name(self) -> str:
        """What the file is called where nobody says: `model-int8.onnx`, say."""
        words = ["model", *(["photograph"] if self.preprocessing else []), *(["int8"] if self.int8 else [])]
        return "-".join(words) + SUFFIXES[self.format]


def export(
    run: str | Path | Run,
    format: str = "onnx",
    out: str | Path | None = None,
    *,
    int8: bool = False,
    size: str | Sequence[int] | None = None,
    preprocessing: bool = False,
    root: str | Path | None = None,
    tolerance: float | None = None,
    overrides: Sequence[str] = (),
    told: Told = lambda text: None,
) -> dict[str, Any]:
    """Write a run as a file of `format` (onnx, openvino, exported), with its proof beside it as `FILE.json`.

    `size` is the run's own (None), another "HxW", or "dynamic" for any. With `preprocessing` the file takes photographs
    (H, W, 3) uint8 of any size and gives ids and confidence (H, W); without, it takes normalised batches (N, 3, h, w)
    and gives logits. `int8` quantises. The file is run by its own runtime on the run's validation photographs, or on
    those under `root`, and written only if it loses no more than `tolerance` points of mean IoU at any level (0.1, with
    int8 0.5) and, in float32, agrees with PyTorch on 99.9 % of pixels. Returns the proof. Raises `InputError` where it
    does not, for what cannot be exported, and for data that are missing.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    wish = Wish.of(run, format, int8, size, preprocessing)
    out = _target(run, wish, out)
    for package, extra in (("onnxscript", "onnx"), ("onnxruntime", "onnx"), ("openvino", "openvino")):
        if (package == format) or (format != "exported" and extra == "onnx"):
            needed(package, extra, f"--format {format}")
    work = Work(run, wish, *photographs(run, root, overrides, wish), told)
    tolerance = TOLERANCES[wish.precision] if tolerance is None else tolerance
    with _part(out) as folder:
        file = folder / out.name
        found = work.write(file, folder, tolerance)
        proof = {"file": out.name, **wish.card, **work.prove(file), **found, "tolerance": tolerance}
        proof["bytes"] = sum(part.stat().st_size for part in _parts(file))
        if why := verdict(proof, tolerance, None if wish.int8 else EQUAL):
            raise InputError(f"{out}: not written, as {why}")
        write_json(out.with_name(f"{out.name}.json"), proof)
        # The file that others open comes last, when what belongs to it is there.
        for part in reversed(_parts(file)):
            part.replace(out.with_name(part.name))
    return {**proof, "file": str(out)}


@dataclass
class Work:
    """A run, what is wanted of it, and the photographs: to prove it on, to calibrate and to choose operators by."""

    run: Run
    wish: Wish
    cfg: Settings
    files: Files | JoinedFiles
    names: list[str]
    calibration: list[str]
    choosing: list[str]
    told: Told

    @cached_property
    def network(self) -> nn.Module:
        """The trained network, on the CPU."""
        return trained_model(self.run).to(memory_format=torch.contiguous_format)

    @property
    def size(self) -> tuple[int, int]:
        """The size that photographs are brought to: the exported one, or the run's."""
        high, wide = self.wish.size or self.run.card["size"]
        return int(high), int(wide)

    @cached_property
    def card(self) -> dict[str, Any]:
        """What the file carries."""
        return {**self.run.card, "export": self.wish.card}

    @cached_property
    def plan(self) -> Plan:
        """How photographs are seen and scored."""
        return Plan.of_card({**self.run.card, "size": self.size}, Framing)

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Photographs as the network sees them."""
        stats = self.run.card["mean"], self.run.card["std"]
        return photograph_batches(self.files, names, self.plan, stats, self.cfg)

    def write(self, file: Path, folder: Path, tolerance: float) -> dict[str, Any]:
        """Write the file; returns what is to be said of how it was made."""
        if self.wish.format == "exported":
            write_exported(self.network, self.card, file, self.size)
            return {}
        plain, found = folder / "network.onnx", {}
        self.told("exporting")
        write_onnx(self.network, self.card, plain, self.size)
        if self.wish.size is None:
            found["sizes_tried"] = other_size(self.network, plain, ModelSettings(**self.run.card["model"]), self.size)
        if self.wish.int8:
            plain, quantised = self.quantise(plain, folder, tolerance)
            found |= quantised
        if self.wish.format == "openvino":
            write_openvino(plain, self.card, file)
        else:
            plain.replace(file)
        return found

    def quantise(self, source: Path, folder: Path, tolerance: float) -> tuple[Path, dict[str, Any]]:
        """An `.onnx` file in int8 under `folder`, and what is to be said of how it was made."""
        # Operators are chosen on the network alone, whose logits can be measured, whatever is around it in the end.
        inner, target = source, folder / "int8.onnx"
        if self.wish.preprocessing:
            inner, card = folder / "inner.onnx", {**self.card, "export": replace(self.wish, preprocessing=False).card}
            write_onnx(self.network, card, inner, self.size)
        feeds = [{"image": batch.images[0].numpy()} for batch in self.batches(self.calibration)]
        judge = Judge(self.network, self.plan, list(self.batches(self.choosing)))
        quantizer = Quantizer(inner, feeds, folder)
        kept = float_operators(quantizer, target, judge.loss, judge.harm, MARGIN * tolerance, tolerance,
                               self.told)  # fmt: skip
        if self.wish.preprocessing:
            pictures = [{"photograph": photograph(self.files, name)} for name in self.calibration]
            (folder / "outer").mkdir()
            Quantizer(source, pictures, folder / "outer").write(target, kept)
        made = {"float_operators": kept, "int8_operators": len(quantizer.operators) - len(kept),
                "calibrated_on": len(self.calibration), "chosen_on": len(self.choosing)}  # fmt: skip
        return target, made

    def prove(self, file: Path) -> dict[str, Any]:
        """Run the file on the photographs, beside PyTorch."""
        backend = open_backend(file)
        self.told(f"proving on {len(self.names)} photographs")
        tally = self._compared(backend)
        folders = [str(part.root.resolve()) for part in self.files.parts.values()]
        return {"runtime": _runtime(backend), "data": folders, **tally.as_json()}

    def _compared(self, backend: Backend) -> Tally:
        batches = self.batches(self.names)
        if self.wish.preprocessing:
            return compare_photographs(self.network, backend, self.plan, batches, self.files, self.names)
        return compare_logits(self.network, backend, self.plan, batches)


def _size(run: Run, size: str | Sequence[int] | None) -> tuple[int, int]:
    if size is None:
        return int(run.card["size"][0]), int(run.card["size"][1])
    try:
        sides = parse_size(size)
    except ValueError:
        raise InputError(f"size: {size!r}; write height x width in pixels, as 192x128, or dynamic") from None
    check_size(sides, ModelSettings(**run.card["model"]), "size")
    return sides


def _target(run: Run, wish: Wish, out: str | Path | None) -> Path:
    path = run.path / wish.name if out is None else Path(out).expanduser()
    if path.suffix != SUFFIXES[wish.format]:
        raise InputError(f"{path}: a file of {wish.format} ends in {SUFFIXES[wish.format]}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    return path


def photographs(
    run: Run, root: str | Path | None, overrides: Sequence[str], wish: Wish, few: int = PROVED_ON
) -> tuple[Settings, Files | JoinedFiles, list[str], list[str], list[str]]:
    """Settings, files, and ids: to prove on (of the run's own, `few`), to calibrate on, to choose operators by."""
    cfg = other_data(run.cfg, root, overrides)
    files, names = split_files(cfg, "valid")
    names = names if root is not None or overrides else names[:few]
    calibration: list[str] = []
    choosing: list[str] = []
    if wish.int8:
        train = split_files(cfg, "train")[1]
        half = min(CALIBRATION, len(train) // 2)
        if half < 1:
            raise InputError("int8: two training photographs or more are needed, to calibrate and to choose by")
        calibration, choosing = train[:half], train[half : 2 * half]
    quick_check(cfg, files, [], [*names, *calibration, *choosing])
    return cfg, files, names, calibration, choosing


def _runtime(backend: Backend) -> str:
    package = {"exported": "torch"}.get(backend.name, backend.name)
    return f"{package} {version(package)}, {platform.machine()}, {sys.platform}"


def _parts(file: Path) -> list[Path]:
    """The file, and what belongs to it: an OpenVINO file's weights lie beside it."""
    return [file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]


@contextmanager
def _part(out: Path) -> Iterator[Path]:
    """A folder beside the file to work in, which is gone afterwards."""
    folder = out.with_name(f"{out.name}.part{np.random.SeedSequence().entropy % 10**8}")
    try:
        folder.mkdir()
    except OSError as error:
        raise InputError(f"{out}: cannot be written there ({error.strerror})") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""`Predictor`: photographs of any size and kind → masks at every level, from a run folder or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastseg.data.framing import ArrayFraming, MaskFraming
from fastseg.data.pictures import read_image, upright_rgb
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.backends import Backend, open_backend
from fastseg.inference.plan import Plan
from fastseg.inference.tiles import Tiling, frame_size, in_tiles
from fastseg.inference.tta import probabilities
from fastseg.run import WEIGHTS

Photograph = str | Path | Image.Image | np.ndarray
# Scores held at once while a mask is made of them: more than WHOLE (128 MB) are looked at in bands of BAND.
WHOLE, BAND = 1 << 25, 1 << 22


@dataclass(frozen=True)
class Prepared:
    """A photograph (H, W, 3) uint8, upright, and what the network is to see of it: a frame of each size."""

    photograph: np.ndarray
    frames: list[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.photograph.shape[:2]

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.shape[0] * self.shape[1]


class Prediction:
    """What a network makes of one photograph, at the photograph's own size (H, W), turned upright.

    Masks and probabilities are made when they are first asked for.
    """

    def __init__(self, plan: Plan, views: Sequence[tuple[MaskFraming, Any]], shape: tuple[int, int]):
        self.hierarchy, self.shape = plan.tree, shape
        self._plan, self._views = plan, views

    @cached_property
    def ids(self) -> np.ndarray:
        """(H, W) uint8 leaf ids."""
        plan, found = self._plan, np.empty(self.shape, np.uint8)
        for rows, scores in self._bands():
            found[rows] = _numpy(plan.tree.decode(scores, plan.decode, head=plan.head)[0])
        return found

    @cached_property
    def confidence(self) -> np.ndarray:
        """(H, W) float32: the probability of the leaf that was chosen."""
        found = np.empty(self.shape, np.float32)
        for rows, scores in self._bands():
            leaves = _numpy(probabilities(scores, self._plan.head)[0, : len(self.hierarchy)])
            found[rows] = np.take_along_axis(leaves, self.ids[None, rows].astype(np.intp), 0)[0]
        return found

    def level(self, level: int = -1) -> np.ndarray:
        """(H, W) uint8 node ids of a level."""
        return self.hierarchy.merge(self.ids, level)

    def marginals(self, level: int = -1) -> np.ndarray:
        """(n, H, W) float32 probabilities of a level's nodes."""
        tree = self.hierarchy
        found = np.empty((len(tree.level(level).names), *self.shape), np.float32)
        for rows, scores in self._bands():
            shares = probabilities(scores, self._plan.head)
            nodes = tree.marginals(shares, level) if self._plan.head == "leaves" else shares[:, tree.node_slices[level]]
            found[:, rows] = _numpy(nodes[0])
        return found

    def _bands(self) -> Iterator[tuple[slice, Any]]:
        """Logits (1, C, rows, W) of all rows, or in bands where they would be too many to hold."""
        high, wide = self.shape
        logits = self._views[0][1]
        row = logits.shape[1] * wide
        with _inference("numpy" if isinstance(logits, np.ndarray) else "torch"):
            if row * high * len(self._views) <= WHOLE:
                yield slice(0, high), self._plan.scores(self._views, 0, self.shape)
                return
            step = max(1, BAND // row)
            for start in range(0, high, step):
                rows = slice(start, min(start + step, high))
                yield rows, self._plan.scores(self._views, 0, self.shape, rows)


class ReadyPrediction(Prediction):
    """What a file with its preprocessing inside gives: leaf ids and their confidence, but no other probabilities."""

    def __init__(self, tree: Hierarchy, ids: np.ndarray, confidence: np.ndarray):
        self.hierarchy, self.shape = tree, ids.shape
        self.ids, self.confidence = ids, confidence

    def marginals(self, level: int = -1) -> np.ndarray:
        raise InputError("marginals: a file exported with its preprocessing gives ids and confidence alone; "
                         "export it without")  # fmt: skip


class Predictor:
    """A network that is ready for photographs: of a run folder, or of a file that `fastseg export` made.

    By default a photograph is seen once and whole, at the size that the network was trained at, as `evaluate` does it.
    `size` (HxW, or a multiple of the network's, as 2) looks closer, and what then is larger than `tile` is seen in
    tiles that overlap and run into one another. `tta` averages over a flip and scales, as `flip,0.75,1,1.25`; `decode`
    as in `Hierarchy.decode`; `device` (cpu, cuda) and `threads` as in `open_backend`; `batch_size` photographs go
    through the network at once. Raises `InputError` for what cannot be opened, and choices that do not go with it.
    """

    def __init__(
        self,
        source: str | Path,
        device: str | None = None,
        threads: int | None = None,
        decode: str = "leaf",
        tta: str | None = None,
        size: str | float | Sequence[int] | None = None,
        tile: str | int | Sequence[int] | None = None,
        batch_size: int = 8,
    ):
        self.backend: Backend = open_backend(source, threads, device)
        self.source, self.card, self.batch_size = Path(source).expanduser(), self.backend.card, batch_size
        if self.backend.preprocessing and (decode, tta, size, tile) != ("leaf", None, None, None):
            raise InputError(f"{source}: has its preprocessing inside; decode, tta, size and tile need a file without")
        card = {**self.card, "size": frame_size(self.card, size)}
        self.plan = Plan.of_card(card, _framing(self.backend.library), "native", decode, tta)
        self.tiling = Tiling.of(self.card, tile, self.backend.size)
        self.hierarchy = self.plan.tree
        if fixed := self.backend.size:
            for high, wide in (framing.size for framing in self.plan.framings):
                if high < fixed[0] or wide < fixed[1]:
                    raise InputError(f"{source}: takes {fixed[0]}x{fixed[1]} or more, in tiles; not {high}x{wide}")

    @cached_property
    def mark(self) -> dict[str, Any]:
        """What tells, as JSON, whether another predictor would make the same of a photograph."""
        files = [self.source / WEIGHTS] if self.source.is_dir() else [self.source, self.source.with_suffix(".bin")]
        return {
            "source": str(self.source.resolve()), "files": [file_mark(file) for file in files if file.is_file()],
            "framings": [list(framing.size) for framing in self.plan.framings], "tile": list(self.tiling.side),
            "tta": str(self.plan.tta) if self.plan.tta else None, "decode": self.plan.decode,
        }  # fmt: skip

    def predict(self, photograph: Photograph | Iterable[Photograph]) -> Any:
        """A photograph → `Prediction`; a list of them → a list.

        A photograph is a path, a PIL image of any mode, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8. EXIF
        orientation is honoured. Raises `InputError` for what is none of these.
        """
        if isinstance(photograph, (str, Path, Image.Image, np.ndarray)):
            return self.look([self.prepare(photograph)])[0]
        return list(self.stream(photograph))

    def stream(self, photographs: Iterable[Photograph]) -> Iterator[Prediction]:
        """Predictions of photographs one after the other, no more than a batch of which is in memory."""
        photographs = iter(photographs)
        while batch := [self.prepare(one) for one in islice(photographs, self.batch_size)]:
            yield from self.look(batch)

    def prepare(self, photograph: Photograph) -> Prepared:
        """Read a photograph and bring it to the sizes that the network sees; may be called from threads."""
        pixels = self._read(photograph)
        if self.backend.preprocessing:
            return Prepared(pixels, [])
        with _inference(self.backend.library):
            image = _tensor(pixels).permute(2, 0, 1) if self.backend.library == "torch" else pixels
            return Prepared(pixels, [framing.image(image) for framing in self.plan.framings])

    def look(self, batch: Sequence[Prepared]) -> list[Prediction]:
        """Send prepared photographs through the network together."""
        if self.backend.preprocessing:
            return [ReadyPrediction(self.hierarchy, *self.backend.ids(one.photograph)) for one in batch]
        with _inference(self.backend.library):
            frames = [_stack(same) for same in zip(*(one.frames for one in batch), strict=True)]
            views = self.plan.views(self._sees, frames)
        return [
            Prediction(self.plan, [(framing, logits[i : i + 1]) for framing, logits in views], one.shape)
            for i, one in enumerate(batch)
        ]

    def _sees(self, frames: Any) -> Any:
        """(B, 3, h, w) uint8 → (B, C, h, w) logits, in tiles where they are large."""
        if not self.tiling.is_for(frames.shape[-2:]):
            return self._network(frames)
        whole = None
        if self.backend.name == "torch":
            from fastseg.inference.whole import WholeFrame as whole
        return in_tiles(self._network, frames, self.tiling, self.hierarchy.channels(self.plan.head), whole)

    @cached_property
    def _network(self) -> Callable[[Any], Any]:
        """(B, 3, h, w) uint8 → (B, C, h, w) logits."""
        centre, spread = (np.array(self.card[key], np.float32).reshape(1, 3, 1, 1) * np.float32(255)
                          for key in ("mean", "std"))  # fmt: skip
        if self.backend.library == "numpy":
            return lambda images: self.backend.run((images.astype(np.float32) - centre) / spread)
        import torch

        # As in `evaluate`, to the last bit.
        centre, spread = (torch.tensor(self.card[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
        return lambda images: self.backend.run((images.float() - centre) / spread)

    def _read(self, photograph: Photograph) -> np.ndarray:
        """(H, W, 3) uint8."""
        if isinstance(photograph, (str, Path)):
            path = Path(photograph).expanduser()
            if self.backend.library != "torch":
                return np.asarray(read_image(path))
            from fastseg.data.frames import decode_image

            if not path.is_file():
                raise InputError(f"{path}: no such file")
            return decode_image(path).permute(1, 2, 0).numpy()
        if isinstance(photograph, Image.Image):
            return np.asarray(upright_rgb(photograph))
        if not isinstance(photograph, np.ndarray):
            raise InputError(f"a photograph is a path, a PIL image or an array, not {type(photograph).__name__}")
        shape = photograph.shape
        if photograph.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
            raise InputError(f"an array of {photograph.dtype} {shape}; a photograph is uint8 (H, W), (H, W, 3 or 4)")
        if not photograph.size:
            raise InputError(f"an array of {shape} holds no pixel")
        return photograph if shape[2:] == (3,) else np.asarray(upright_rgb(Image.fromarray(photograph)))


def file_mark(path: Path) -> list[int]:
    """Size and time of a file, which tell whether it was changed."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _framing(library: str) -> type[MaskFraming]:
    if library == "numpy":
        return ArrayFraming
    from fastseg.data.frames import Framing

    return Framing


def _inference(library: str) -> AbstractContextManager[Any]:
    """torch's inference mode around work on its tensors, nothing around NumPy's."""
    if library == "numpy":
        return nullcontext()
    import torch

    return torch.inference_mode()


def _numpy(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def _tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def _stack(frames: Sequence[Any]) -> Any:
    if isinstance(frames[0], np.ndarray):
        return np.stack([frame.transpose(1, 2, 0) for frame in frames]).transpose(0, 3, 1, 2)
    import torch

    return torch.stack(list(frames))

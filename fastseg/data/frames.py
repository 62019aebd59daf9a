"""Photograph and mask → frames of one size: the fast decoder, and resizing that keeps or squeezes the aspect."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision.io import ImageReadMode, decode_jpeg

from fastseg.data.files import Files, JoinedFiles
from fastseg.data.framing import PADDING, MaskFraming
from fastseg.data.machine import cores
from fastseg.data.pictures import ORIENTATION_TAG, read_image, read_mask
from fastseg.hierarchy import IGNORE_INDEX

MOST_THREADS = 4


def decode_image(path: Path, shape: tuple[int, int] | None = None) -> Tensor:
    """(3, H, W) uint8 of a photograph, laid out channels last; the same pixels and errors as `read_image`.

    Whole JPEGs that nothing turns go through torchvision's decoder, which takes two thirds of Pillow's time; the rest,
    and whatever it refuses, through Pillow.
    """
    content = bytearray(path.read_bytes())
    if _is_plain_jpeg(content):
        try:
            image = decode_jpeg(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB)
            if shape is None or tuple(image.shape[1:]) == tuple(shape):
                return image
        except RuntimeError:
            pass
    return torch.from_numpy(np.array(read_image(path, shape))).permute(2, 0, 1)


def _is_plain_jpeg(content: bytearray) -> bool:
    """Whether a file is a whole JPEG in grey or colour whose EXIF, if any, does not turn it."""
    # Without its end mark a file may be cut off, of which torchvision's decoder would say nothing.
    if not (content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")):
        return False
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xE1 and content[at + 4 : at + 8] == b"Exif":
            with Image.open(io.BytesIO(content)) as image:
                if image.getexif().get(ORIENTATION_TAG, 1) != 1:
                    return False
        # Start of frame: its tenth byte counts the components; four would be CMYK, whose conversion differs.
        if 0xC0 <= marker <= 0xC2:
            return content[at + 9] in (1, 3)
        at += 2 + length
    return False


class Framing(MaskFraming):
    """How photographs of any shape, and their masks, are brought to one `size` (height, width).

    Squeezed, or with `pad` kept in their aspect, in the middle of a plain colour; masks carry 255 there.
    """

    def image(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """(3, h, w) uint8 → (3, H, W) uint8, bilinear and antialiased as Pillow's; written into `out` where given."""
        if out is None:
            out = _empty(1, self.size)[0]
        if not self.pad:
            _resize(image, out)
            return out
        top, left, high, wide = self.box(image.shape[1:])
        colour = torch.tensor(PADDING, dtype=torch.uint8).view(3, 1, 1)
        for border in (out[:, :top], out[:, top + high :], out[..., :left], out[..., left + wide :]):
            border[:] = colour
        out[:, top : top + high, left : left + wide] = _resize(image, _empty(1, (high, wide))[0])
        return out

    def _enlarge(self, logits: Tensor, target: tuple[int, int]) -> Tensor:
        return F.interpolate(logits, size=target, mode="bilinear", align_corners=False)


class FrameReader:
    """Photographs and masks of ids, from their files, as batches of frames."""

    def __init__(self, files: Files | JoinedFiles, names: Sequence[str], leaves: int, framing: Framing):
        self.files, self.names, self.leaves, self.framing = files, list(names), leaves, framing

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, items: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """Frames (B, 3, H, W) uint8, ids (B, H, W) uint8, and the photographs' own shapes (B, 2) of numbered ids."""
        images = _empty(len(items), self.framing.size)
        masks = np.empty((len(items), *self.framing.size), np.uint8)
        shapes = np.empty((len(items), 2), np.int32)
        names = [self.names[item] for item in items]
        # First all masks, then all photographs: in turns they push each other out of the processor's cache.
        for row, name in enumerate(names):
            ids = read_mask(self.files.mask(name), self.leaves)
            self.framing.mask(ids, masks[row])
            shapes[row] = ids.shape

        def photograph(row: int) -> None:
            image = decode_image(self.files.image(names[row]), tuple(shapes[row].tolist()))
            self.framing.image(image, images[row])

        # A worker has one core to itself; the main process may use the others. Masks stay out of it: NumPy's reading of
        # .npy headers trips over CPython 3.11's parser in threads.
        threads = 1 if get_worker_info() else min(cores(), len(items), MOST_THREADS)
        if threads < 2:
            for row in range(len(items)):
                photograph(row)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(photograph, range(len(items))))
        return images, torch.from_numpy(masks), shapes


def count_pixels(
    files: Files | JoinedFiles, names: Sequence[str], leaves: int, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """(leaves,) int64 pixels of each class in the masks of some ids; 255 is not counted."""
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    for done, name in enumerate(names, 1):
        counts += np.bincount(read_mask(files.mask(name), leaves).ravel(), minlength=IGNORE_INDEX + 1)
        if progress:
            progress(done, len(names))
    return counts[:leaves]


def _empty(count: int, size: tuple[int, int]) -> Tensor:
    # Threads do not inherit the caller's inference mode, and may not write to a tensor that was made in it.
    with torch.inference_mode(False):
        return torch.empty((count, 3, *size), dtype=torch.uint8, memory_format=torch.channels_last)


def _resize(image: Tensor, out: Tensor) -> Tensor:
    # The operator behind `F.interpolate(antialias=True)`, which has no `out`: written straight into the batch it takes
    # two thirds of the time, as no page of memory is touched for the first time.
    if image.shape == out.shape:
        return out.copy_(image)
    torch.ops.aten._upsample_bilinear2d_aa.out(image[None], out.shape[-2:], False, out=out[None])
    return out

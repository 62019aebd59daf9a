"""Masks as pictures, by Pillow and NumPy alone: laid over a photograph, with a legend, with a palette, cut out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastseg.hierarchy import IGNORE_INDEX, Hierarchy

IGNORED_GREY = 160
INK, PAPER = (32, 32, 32), (255, 255, 255)


def overlay(
    image: np.ndarray, ids: np.ndarray, hierarchy: Hierarchy, level: int = -1, alpha: float = 0.6
) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with a mask of leaf ids (H, W) laid over it in a level's colours.

    Background stays bare, pixels without a class (255) turn grey.
    """
    return overlay_nodes(image, hierarchy.merge(ids, level), hierarchy, level, alpha)


def overlay_nodes(
    image: np.ndarray, nodes: np.ndarray, hierarchy: Hierarchy, level: int = -1, alpha: float = 0.6
) -> np.ndarray:
    """The same of a mask of the level's node ids."""
    bare, colour = _shares(hierarchy, level, alpha)
    # 8-bit fractions: of 256ths, the sum of a photograph's and a colour's share, and half of one to round, is 16 bits.
    found = image.astype(np.uint16)
    found *= bare[nodes][..., None]
    found += colour[nodes]
    found >>= 8
    return found.astype(np.uint8)


@lru_cache(maxsize=64)
def _shares(hierarchy: Hierarchy, level: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """For each node id a photograph's share in 256ths (256,), and what is added to it (256, 3), both uint16."""
    colours = np.full((IGNORE_INDEX + 1, 3), IGNORED_GREY, np.float64)
    colours[: len(hierarchy.names(level))] = hierarchy.colours(level)
    bare = np.full(IGNORE_INDEX + 1, 256, np.uint16)
    bare[[*hierarchy.foreground(level), IGNORE_INDEX]] = round(256 * (1 - alpha))
    added = np.round(colours * (256 - bare[:, None].astype(np.float64))) + 127 * (bare[:, None] < 256)
    return bare, added.astype(np.uint16)


def palette(hierarchy: Hierarchy, level: int = -1) -> bytes:
    """The 256 colours of a palette picture of a level's node ids; grey where there is no node."""
    colours = np.full((IGNORE_INDEX + 1, 3), IGNORED_GREY, np.uint8)
    colours[: len(hierarchy.names(level))] = hierarchy.colours(level)
    return colours.tobytes()


@lru_cache(maxsize=64)
def legend(hierarchy: Hierarchy, level: int, width: int) -> Image.Image:
    """A strip of `width` pixels that names a level's foreground nodes beside their colours, in lines."""
    size = max(10, min(28, width // 40))
    font, pad = ImageFont.load_default(size), size // 2
    names, colours = hierarchy.names(level), hierarchy.colours(level)
    places, x, y = [], pad, pad
    for node in hierarchy.foreground(level):
        text = names[node].replace("_", " ")
        wide = size + pad + round(font.getlength(text))
        if x > pad and x + wide + pad > width:
            x, y = pad, y + size + pad
        places.append((node, text, x, y))
        x += wide + 2 * pad
    strip = Image.new("RGB", (width, y + size + pad), PAPER)
    draw = ImageDraw.Draw(strip)
    for node, text, x, y in places:
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=tuple(colours[node].tolist()))
        draw.text((x + size + pad // 2, y + size / 2), text, fill=INK, font=font, anchor="lm")
    return strip


def with_legend(image: np.ndarray, hierarchy: Hierarchy, level: int = -1) -> Image.Image:
    """A picture (H, W, 3) uint8 with the legend below it."""
    strip = legend(hierarchy, level, image.shape[1])
    found = Image.new("RGB", (image.shape[1], image.shape[0] + strip.height))
    found.paste(Image.fromarray(image))
    found.paste(strip, (0, image.shape[0]))
    return found


def cut_out(image: np.ndarray, inside: np.ndarray) -> Image.Image:
    """A photograph (H, W, 3) uint8 that is transparent but where `inside` (H, W) is true."""
    return Image.fromarray(np.dstack([image, inside.astype(np.uint8) * 255]))

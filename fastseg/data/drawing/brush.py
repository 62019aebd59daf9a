"""A canvas, a photograph and its mask in one, and the two shapes that everything in the sample is drawn with."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

TILE = 256
CELL = 16  # pixels of the noise tile from one bump to the next


@dataclass(frozen=True)
class Paint:
    """How a surface looks; colours are RGB 0..255, lengths are pixels, the rest are shares of brightness."""

    base: tuple[float, float, float]
    second: tuple[float, float, float] = (255.0, 255.0, 255.0)
    pattern: str = "plain"  # or stripes, hoops, checks, dots, print
    repeat: float = 12.0
    duty: float = 0.5
    folds: float = 0.1
    crease: float = 1.0  # folds longer than wide above 1
    grain: float = 0.03
    fuzz: float = 0.0
    flatness: float = 0.0  # 0 a cylinder, 1 a board


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth random bumps: float32 (height, width), mean near 0, deviation near 1; `cells` bumps on the long side."""
    step = max(height, width) / max(1, cells)
    coarse = rng.standard_normal((max(2, round(height / step)) + 1, max(2, round(width / step)) + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) * 1.4


def _tile(rng: np.random.Generator) -> np.ndarray:
    """Noise that can be repeated without a seam: two octaves, float32 (TILE, TILE)."""
    total = np.zeros((TILE, TILE), np.float32)
    for cell, weight in ((CELL, 1.0), (CELL // 4, 0.45)):
        cells = TILE // cell
        coarse = np.pad(rng.standard_normal((cells, cells), dtype=np.float32), 3, mode="wrap")
        size = TILE + 6 * cell
        grown = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        total += weight * grown[3 * cell : 3 * cell + TILE, 3 * cell : 3 * cell + TILE]
    return total


@lru_cache(maxsize=16)
def _weights(knots: int) -> np.ndarray:
    """What each of `knots` radii adds to 256 radii between them: float32 (256, knots)."""
    place = np.linspace(0, knots - 1, 256)
    low = np.minimum(place.astype(np.intp), knots - 2)
    part = place - low
    # Half straight, half eased: straight alone shows a kink at each knot, eased alone shows stairs.
    part = 0.5 * part + 0.5 * part * part * (3 - 2 * part)
    weights = np.zeros((256, knots), np.float32)
    weights[np.arange(256), low] = 1 - part
    weights[np.arange(256), low + 1] = part
    return weights


class Canvas:
    """A picture (`rgb`, float32 0..255, H × W × 3) and its mask (`ids`, uint8, H × W), lit from one side."""

    def __init__(self, rgb: np.ndarray, rng: np.random.Generator, prints: np.ndarray):
        self.rgb = np.ascontiguousarray(rgb, np.float32)
        self.height, self.width = rgb.shape[:2]
        self.ids = np.zeros((self.height, self.width), np.uint8)
        self.rng = rng
        self.noise = _tile(rng)
        self.prints = prints
        angle = rng.uniform(0, 2 * np.pi)
        side = rng.uniform(0.25, 0.75)
        # Light comes from above more often than not.
        self.light = (side * np.cos(angle), -abs(side * np.sin(angle)), np.sqrt(1 - side * side))
        self.ambient = rng.uniform(0.35, 0.7)

    def tube(
        self,
        a,
        b,
        radii,
        paint: Paint,
        label: int | None = 0,
        flat: bool = False,
        bend: float = 0.0,
        shadow: float = 0.0,
        aspect: float = 1.0,
    ) -> None:
        """Draw a body with round ends from `a` to `b` (x, y in pixels), `radii` pixels thick along the way.

        `label` is written where the shape covers a pixel's centre (None leaves the mask as it is); `flat` cuts the
        end at `b` straight; `bend` bows the axis by that many pixels; `shadow` darkens the figure just around the
        shape; `aspect` stretches the round ends.
        """
        reach = max(radii) * max(1.0, aspect) + abs(bend) + 2 + 2 * paint.fuzz + (shadow > 0) * 0.5 * max(radii)
        box = self._box(
            min(a[0], b[0]) - reach, min(a[1], b[1]) - reach, max(a[0], b[0]) + reach, max(a[1], b[1]) + reach
        )
        if box is None:
            return
        x0, y0, x1, y1 = box
        length = max(float(np.hypot(b[0] - a[0], b[1] - a[1])), 1e-3)
        ux, uy = np.float32((b[0] - a[0]) / length), np.float32((b[1] - a[1]) / length)
        xs = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - a[0])
        ys = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - a[1]))[:, None]
        along, across = xs * ux + ys * uy, ys * ux - xs * uy
        t = np.minimum(np.maximum(along * np.float32(1 / length), 0), 1)
        over = (along - t * np.float32(length)) * np.float32(1 / aspect)
        if bend:
            across = across - np.float32(4 * bend) * t * (1 - t)
        profile = _weights(len(radii)) @ np.asarray(radii, np.float32)
        radius = profile.take((t * np.float32(255)).astype(np.uint8))
        depth = radius - np.sqrt(across * across + over * over)
        if flat:
            depth = np.minimum(depth, np.float32(length) - along)
        if shadow:
            self._shadow(box, depth, t, 0.5 * max(radii), shadow)
        # A limb's end is a joint, not a knob: only what is short is round at its ends too.
        knob = np.float32(0.3 if length > 2 * max(radii) else 1.0)
        self._fill(box, depth, along, across, knob * over, radius, (ux, uy), paint, label, max(radii))

    def polygon(self, points, paint: Paint, label: int | None = 0) -> None:
        """Fill a convex polygon (x, y in pixels, either way round); `label` as for `tube`."""
        points = np.asarray(points, np.float32)
        low, high = points.min(0), points.max(0)
        box = self._box(low[0] - 2, low[1] - 2, high[0] + 2, high[1] + 2)
        if box is None:
            return
        x0, y0, x1, y1 = box
        xs = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5)
        ys = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5))[:, None]
        nxt = np.roll(points, -1, 0)
        turn = np.sign(np.sum(points[:, 0] * nxt[:, 1] - points[:, 1] * nxt[:, 0])) or 1.0
        depth = None
        for (px, py), (qx, qy) in zip(points, nxt, strict=True):
            length = max(float(np.hypot(qx - px, qy - py)), 1e-3)
            nx, ny = np.float32(-(qy - py) / length * turn), np.float32((qx - px) / length * turn)
            edge = (xs - px) * nx + (ys - py) * ny
            depth = edge if depth is None else np.minimum(depth, edge)
        middle, half = 0.5 * (low + high), np.maximum(0.5 * (high - low), 1)
        along, across = ys - middle[1] + 0 * xs, middle[0] - xs + 0 * ys
        # Half as round as a tube of this width: a board with a soft gradient.
        radius = np.full_like(across, 2 * half[0])
        self._fill(box, depth, along, across, np.zeros_like(across), radius, (0.0, 1.0), paint, label, half[0])

    def darken(self, middle, reach: tuple[float, float], strength: float) -> None:
        """Cast a soft shadow round `middle` (x, y in pixels) that ends `reach` (x, y) away; the mask stays."""
        box = self._box(middle[0] - reach[0], middle[1] - reach[1], middle[0] + reach[0], middle[1] + reach[1])
        if box is None:
            return
        x0, y0, x1, y1 = box
        xs = (np.arange(x0, x1, dtype=np.float32) - np.float32(middle[0])) / np.float32(max(reach[0], 1))
        ys = (np.arange(y0, y1, dtype=np.float32) - np.float32(middle[1])) / np.float32(max(reach[1], 1))
        fade = np.maximum(1 - xs * xs - (ys * ys)[:, None], 0)
        self.rgb[y0:y1, x0:x1] *= (1 - np.float32(strength) * fade)[..., None]

    def _box(self, left, top, right, bottom):
        box = (max(0, int(left)), max(0, int(top)), min(self.width, int(right) + 1), min(self.height, int(bottom) + 1))
        return box if box[0] < box[2] and box[1] < box[3] else None

    def _spots(self, box, inside):
        """Places in the flattened picture of places in the flattened box."""
        wide = box[2] - box[0]
        return inside + inside // wide * (self.width - wide) + (box[1] * self.width + box[0])

    def _shadow(self, box, depth, t, reach, strength):
        """Darken drawn bodies next to a shape that lies on them, less where it grows out of them (t = 0).

        Without it an arm melts into the torso.
        """
        x0, y0, x1, y1 = box
        near = np.flatnonzero((depth > -reach) & (depth < 0.5) & (self.ids[y0:y1, x0:x1] > 0))
        spot = self._spots(box, near)
        fade = 1 + np.minimum(depth.ravel()[near], 0) / np.float32(reach)
        fade *= fade * np.minimum(2 * t.ravel()[near], 1)
        self.rgb.reshape(-1, 3)[spot] *= (1 - np.float32(strength) * fade)[:, None]

    def _fill(self, box, depth, along, across, over, radius, axis, paint, label, thick):
        """Paint where `depth` is above 0, half a pixel softly; `across` and `over` by `radius` give the slope."""
        jitter = self.rng.integers(0, TILE, 4, dtype=np.int32)
        if paint.fuzz:
            scale = np.float32(CELL / max(2.0, 2.5 * paint.fuzz))
            bumps = self._look_up(along * scale, across * scale, jitter[:2])
            depth = depth + np.float32(paint.fuzz) * bumps
        inside = np.flatnonzero(depth > -0.5)
        if not len(inside):
            return
        spot = self._spots(box, inside)
        depth, along, across, over, radius = (each.take(inside) for each in (depth, along, across, over, radius))
        bulge = np.float32(1 - paint.flatness) / radius
        shade = self._shade(across * bulge, over * bulge, axis)
        if paint.folds:
            wide = np.float32(CELL / max(0.8 * thick, 1.5))
            shade += np.float32(paint.folds) * self._look_up(
                along * wide / np.float32(paint.crease), across * wide, jitter[:2]
            )
        if paint.grain:
            shade += np.float32(paint.grain) * self._look_up(along * 5, across * 5, jitter[2:])
        shade = np.maximum(shade, np.float32(0.05))
        colour = self._pattern(paint, along, across, jitter)
        # einsum, because a product with one row is slow by broadcasting.
        colour = np.einsum("i,j->ij", shade, colour[0]) if len(colour) == 1 else colour * shade[:, None]
        edge = np.flatnonzero(depth < 0.5)
        under = self.rgb.reshape(-1, 3).take(spot.take(edge), 0)
        colour[edge] = under + (depth.take(edge) + np.float32(0.5))[:, None] * (colour.take(edge, 0) - under)
        # Three floats at once: twice as fast as row by row.
        self.rgb.view("V12").reshape(-1)[spot] = colour.view("V12").reshape(-1)
        if label is not None:
            self.ids.reshape(-1)[spot[depth > 0]] = label

    def _shade(self, q, end, axis):
        """Lambert's law on a cylinder with round ends."""
        lx, ly, lz = self.light
        facing = np.sqrt(np.maximum(1 - q * q - end * end, np.float32(0.02)))
        sideways = np.float32(ly * axis[0] - lx * axis[1])
        lengthways = np.float32(lx * axis[0] + ly * axis[1])
        lambert = np.maximum(q * sideways + end * lengthways + facing * np.float32(lz), 0)
        return np.float32(self.ambient) * (0.8 + 0.2 * facing) + np.float32(1.15 - self.ambient) * lambert

    def _look_up(self, u, v, offset):
        rows, cols = (u.astype(np.int32) + offset[0]) & (TILE - 1), (v.astype(np.int32) + offset[1]) & (TILE - 1)
        return self.noise.take(rows * TILE + cols)

    def _pattern(self, paint, along, across, jitter):
        """Colours of the surface before light: (n, 3), or (1, 3) where they are all the same."""
        base = np.asarray([paint.base], np.float32)
        if paint.pattern == "plain":
            return base
        if paint.pattern == "print":
            scale = np.float32(24 / max(2.0, paint.repeat))
            side = self.prints.shape[0] - 1
            rows = ((along * scale).astype(np.int32) + jitter[2]) & side
            cols = ((across * scale).astype(np.int32) + jitter[3]) & side
            return np.float32(0.35) * base + self.prints.reshape(-1, 3).take(rows * (side + 1) + cols, 0)
        # In 256ths of a repeat, because a float's remainder is slow; centred, for dots.
        step, duty = np.float32(256 / max(1.5, paint.repeat)), np.int32(256 * paint.duty)
        u, v = (((place * step).astype(np.int32) & 255) - 128 for place in (along, across))
        first, second = u + 128 < duty, v + 128 < duty
        if paint.pattern == "dots":
            share = (5 * (u * u + v * v) < 2 * duty * duty).astype(np.float32)
        elif paint.pattern == "checks":
            share = np.float32(0.5) * (first.astype(np.float32) + second)
        else:
            share = (first if paint.pattern == "hoops" else second).astype(np.float32)
        return base + share[:, None] * (np.asarray([paint.second], np.float32) - base)

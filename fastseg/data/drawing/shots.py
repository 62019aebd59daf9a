"""One photograph: who stands where before which background, and what the camera does to it."""

import numpy as np
from PIL import Image, ImageFilter

from fastseg.data.drawing.brush import Canvas, Paint, smooth_noise
from fastseg.data.drawing.figures import pose, project
from fastseg.data.drawing.people import Painter, dress
from fastseg.data.drawing.scenes import backdrop, clutter, held, photo_patch, table

# How much of a person the frame takes: chances, then the height of the body in frame heights.
SHOTS = {
    "close": (0.1, (2.7, 4.2)),
    "half": (0.31, (2.15, 2.8)),
    "knees": (0.24, (1.1, 1.75)),
    "full": (0.21, (0.6, 0.92)),
    "far": (0.14, (0.35, 0.65)),
}
# The chances that one, two or three people are in it.
COMPANY = {
    "close": (0.88, 0.12, 0.0),
    "half": (0.72, 0.22, 0.06),
    "knees": (0.55, 0.3, 0.15),
    "full": (0.35, 0.3, 0.35),
    "far": (0.1, 0.25, 0.65),
}


def frame_size(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of one photograph: most are `size`, some lie on their side, some are a little smaller."""
    height, width = size
    if rng.random() < 0.4:
        short = rng.choice((0.888, 0.936, 0.75, rng.uniform(0.7, 1.0)))
        height, width = (round(height * short), width) if height <= width else (height, round(width * short))
    return (width, height) if rng.random() < 0.25 else (height, width)


def _place(rng, shot, body, scale, height, width, spread):
    """The pelvis in pixels, so that the part of the body which the shot is about is in the frame."""
    at, _ = project(body, scale, (0.0, 0.0))
    x = width * spread - 0.5 * at["crown"][0] - 0.5 * at["pelvis"][0]
    if shot in ("close", "half", "knees"):
        # Heads keep some room above them, or the frame cuts into the hair.
        room = {"knees": (0.02, 0.22), "half": (0.06, 0.46), "close": (0.02, 0.4)}[shot]
        top = rng.uniform(*room) if rng.random() < 0.92 else rng.uniform(-0.1, 0.02)
        return x, top * height - at["crown"][1]
    low = max(at[name][1] for name in ("toel", "toer", "anklel", "ankler"))
    # On level ground the nearer figure stands lower in the picture.
    ground = height * (0.62 + 0.36 * min(1.0, scale / height) + rng.normal(0, 0.03))
    return x, ground - low


def _people(rng, shot, height, width):
    """(scale, body, look, origin) of each person, the farthest first."""
    whole = shot in ("full", "far")
    count = 1 + int(rng.choice(3, p=COMPANY[shot])) + int(whole and rng.random() < 0.3)
    spread = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count if count > 1 else [rng.normal(0.5, 0.14)]
    base = rng.uniform(*SHOTS[shot][1]) * height * (min(1.0, 1.15 * width / height) if whole else 1.0)
    people = []
    for k in range(count):
        scale = base * rng.uniform(0.8, 1.1) if k else base
        if k and rng.random() < (0.2 if whole else 0.06):
            scale *= rng.uniform(0.3, 0.8)
        body = pose(rng, "stand" if shot in ("close", "half") else None)
        scale = scale * (1 - 0.15 * body.child * whole)
        if shot == "knees" and body.legs in ("sit", "crouch", "astride"):
            scale *= 0.95
        look = dress(rng, scale)
        people.append((scale, body, look, _place(rng, shot, body, scale, height, width, spread[k])))
    return sorted(people, key=lambda person: person[0])


def _foot_shadow(canvas, painter):
    low = max((painter.at["toel"], painter.at["toer"]), key=lambda place: place[1])
    at = (painter.at["pelvis"][0] - 0.1 * canvas.light[0] * painter.scale, low[1])
    canvas.darken(at, (0.25 * painter.scale, 0.05 * painter.scale), 0.6)


def _seat(canvas, rng, painter):
    """What a sitting person sits on."""
    at, scale = painter.at["pelvis"], painter.scale
    wide, top = scale * rng.uniform(0.14, 0.3), at[1] + rng.uniform(0.0, 0.05) * scale
    low = max(painter.at["anklel"][1], painter.at["ankler"][1], top + 0.1 * scale)
    paint = Paint(tuple(rng.uniform(30, 200, 3) * 0.5 + 40), flatness=0.7, folds=0.05)
    canvas.polygon([(at[0] - wide, top), (at[0] + wide, top), (at[0] + wide, low), (at[0] - wide, low)], paint, 0)
    if rng.random() < 0.5:
        back = top - rng.uniform(0.2, 0.45) * scale
        canvas.polygon([(at[0] - wide, back), (at[0] + wide, back), (at[0] + wide, top), (at[0] - wide, top)], paint, 0)


def _camera(rng, canvas) -> np.ndarray:
    """Light, exposure, blur and noise: uint8 (height, width, 3)."""
    height, width = canvas.height, canvas.width
    light = 1 + rng.uniform(0.03, 0.15) * smooth_noise(rng, height, width, 2)
    gain = rng.uniform(0.75, 1.2) * (1 + rng.normal(0, 0.06, 3))
    contrast = rng.uniform(0.8, 1.15)
    # Sensor noise, repeated from a small sheet rolled at random: drawing half a million numbers takes 6 ms.
    sheet = rng.standard_normal((97, width + 16), dtype=np.float32) * np.float32(rng.uniform(1.0, 7.0))
    sheet += np.float32(118 * (1 - contrast) + rng.normal(0, 8))
    noise = np.concatenate([np.roll(sheet, int(rng.integers(width)), 1) for _ in range(height // 97 + 1)])
    shift = int(rng.choice((0, 8)))  # grey noise or coloured
    out = np.empty((height, width, 3), np.uint8)
    for channel in range(3):  # channel by channel is twice as fast as broadcasting to three
        plane = canvas.rgb[..., channel] * light
        plane *= np.float32(gain[channel] * contrast)
        plane += noise[:height, channel * shift : channel * shift + width]
        out[..., channel] = np.minimum(np.maximum(plane, 0, out=plane), 255, out=plane)
    image = Image.fromarray(out)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 1.0) * max(height, width) / 500))
    if rng.random() < 0.02:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def shoot(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw photograph `index` of the sample `seed`: a function of these two and `size` (height, width) alone.

    Returns the picture, uint8 (h, w, 3), and its mask, uint8 (h, w) of ids 0..6.
    """
    rng = np.random.default_rng((seed, index))
    height, width = frame_size(rng, size)
    prints = np.asarray(photo_patch(rng, 128, 128, (1.2, 4.0)), np.float32) * np.float32(0.65)
    canvas = Canvas(backdrop(rng, height, width), rng, prints)
    clutter(canvas, rng, int(rng.integers(0, 4)))
    shot = str(rng.choice(list(SHOTS), p=[chance for chance, _ in SHOTS.values()]))
    for scale, body, look, origin in _people(rng, shot, height, width):
        painter = Painter(canvas, body, look, scale, origin)
        if body.legs in ("sit", "astride"):
            _seat(canvas, rng, painter)
        elif rng.random() < 0.6:
            _foot_shadow(canvas, painter)
        painter.paint()
        if rng.random() < 0.15:
            held(canvas, rng, painter.at["hand" + rng.choice(("l", "r"))], 0.25 * scale)
    if rng.random() < (0.15 if shot in ("half", "close") else 0.06):
        table(canvas, rng, height * rng.uniform(0.6, 0.9))
    if rng.random() < (0.03 if shot == "close" else 0.1):
        clutter(canvas, rng, int(rng.integers(1, 3)))
    return _camera(rng, canvas), canvas.ids

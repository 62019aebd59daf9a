"""Where the drawn people are: photographs and textures behind them, and things that are no people but might seem so."""

from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fastseg.data.drawing.brush import Canvas, Paint, smooth_noise
from fastseg.data.drawing.people import cloth, cloth_colour, skin_colour
from fastseg.errors import InputError


@lru_cache(maxsize=1)
def photographs() -> tuple[Image.Image, ...]:
    """The two photographs that scikit-learn ships, each with its half-size copy; RGB."""
    # find_spec does not import scikit-learn, which would take a second.
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the drawn sample needs scikit-learn's two photographs: pip install scikit-learn")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "images"
    full = [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    return (*full, *(image.reduce(2) for image in full))


def recoloured(rng: np.random.Generator, image: Image.Image, strength: float) -> Image.Image:
    """The photograph with its channels mixed at random: 0 as it is, 1 another world's colours."""
    mix = np.eye(3) * (1 - strength) + strength * rng.dirichlet((0.7, 0.7, 0.7), 3)
    mix *= rng.uniform(0.75, 1.2, (3, 1)) if strength else 1.0
    return image.convert("RGB", tuple(np.column_stack([mix, rng.normal(0, 18 * strength, 3)]).ravel()))


def photo_patch(rng: np.random.Generator, height: int, width: int, zoom: tuple[float, float]) -> Image.Image:
    """A random crop of one of the photographs, flipped, recoloured and resized; `zoom` 1 takes the largest crop."""
    photos = photographs()
    share = 1 / rng.uniform(*zoom)
    # A large crop on a small frame is taken from the half-size copy: resizing is what costs.
    image = photos[rng.choice((0, 1, 1 if zoom[0] > 1.5 else 0)) + 2 * (height < 150)]
    fit = share * min(image.width / width, image.height / height)
    wide, high = width * fit, height * fit
    left, top = rng.uniform(0, image.width - wide), rng.uniform(0, image.height - high)
    patch = image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
    if rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return recoloured(rng, patch, rng.choice((0.0, rng.uniform(0.1, 1.0)), p=(0.25, 0.75)))


def _plane(rng, height, width, cells, contrast, squeeze=1):
    """A wall, lawn or floor: a colour, slow gradients and bumps of several sizes, `squeeze` times wider than high."""
    colour = np.array(cloth_colour(rng) if rng.random() < 0.7 else (120, 130, 90), np.float32)
    noise = np.zeros((height, width), np.float32)
    for octave in range(3):
        # A squeezed plane is drawn too high and shrunk: a floor is seen from low above.
        sheet = smooth_noise(rng, min(height * squeeze, 4 * width), width, cells * 3**octave)
        if len(sheet) != height:
            sheet = np.asarray(Image.fromarray(sheet).resize((width, height), Image.Resampling.BILINEAR))
        noise += sheet * (contrast * 0.6**octave)
    noise += rng.normal(0, 0.25) * np.linspace(-1, 1, width, dtype=np.float32)
    noise += rng.normal(0, 0.2) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return (0.5 * colour + 0.5 * colour.mean() * rng.uniform(0.7, 1.5)) * (1 + noise)[..., None]


def _bricks(rng, picture):
    height, width = picture.shape[:2]
    high = rng.uniform(0.02, 0.12) * height + 2
    wide = high * rng.uniform(1, 3.5)
    rows, cols = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    row = np.floor(rows / high)
    joint = (rows % high < 0.1 * high) | ((cols + 0.5 * wide * (row % 2)) % wide < 0.1 * high)
    picture *= np.where(joint, np.float32(rng.uniform(0.6, 1.3)), np.float32(1))[..., None]


def _opening(rng, picture):
    """A window or a picture in its frame."""
    height, width = picture.shape[:2]
    high, wide = int(height * rng.uniform(0.3, 0.8)), int(width * rng.uniform(0.15, 0.5))
    if min(high, wide) < 12:
        return
    x, y, rim = int(rng.integers(0, width - wide)), int(rng.integers(0, height - high)), max(1, wide // 20)
    picture[y : y + high, x : x + wide] = cloth_colour(rng)
    view = photo_patch(rng, high - 2 * rim, wide - 2 * rim, (1.0, 3.0))
    picture[y + rim : y + high - rim, x + rim : x + wide - rim] = np.asarray(view, np.float32)
    if rng.random() < 0.5:
        picture[y : y + high, x + wide // 2 : x + wide // 2 + rim] = picture[y, x]


def backdrop(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background without people: float32 (height, width, 3), 0..255."""
    kind = rng.choice(["photo", "ground", "room", "plane"], p=(0.44, 0.22, 0.24, 0.1))
    if kind == "photo":
        return np.asarray(_defocused(rng, photo_patch(rng, height, width, (1.0, 3.5)), 0.6), np.float32)
    if kind == "plane":
        return _plane(rng, height, width, int(rng.integers(2, 8)), rng.uniform(0.02, 0.1))
    horizon = int(height * rng.uniform(0.35, 0.9))
    ground = _plane(rng, height - horizon, width, int(rng.integers(3, 25)), rng.uniform(0.02, 0.11), 3)
    if kind == "ground":
        above = np.asarray(_defocused(rng, photo_patch(rng, horizon, width, (1.0, 3.0)), 0.7), np.float32)
    else:
        above = _plane(rng, horizon, width, int(rng.integers(2, 5)), rng.uniform(0.01, 0.05))
        if rng.random() < 0.35:
            _bricks(rng, above)
        if rng.random() < 0.3:
            _bricks(rng, ground)
        if rng.random() < 0.5:
            _opening(rng, above)
        above[-max(1, int(0.04 * horizon)) :] *= np.float32(rng.uniform(0.5, 1.5))
    return np.concatenate([above, ground])


def _defocused(rng, image, chance):
    if rng.random() > chance:
        return image
    # Blurring a reduced copy looks the same and costs a quarter.
    small = image.reduce(2).filter(ImageFilter.GaussianBlur(image.height * rng.uniform(0.001, 0.01)))
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _thing_paint(rng, canvas) -> Paint:
    paint = cloth(rng, canvas.height * 0.8)
    if rng.random() < 0.28:
        paint = replace(paint, base=skin_colour(rng), second=cloth_colour(rng))
    return replace(paint, folds=rng.uniform(0.02, 0.15))


def _pole(canvas, rng, paint, place, size):
    lean = rng.normal(0, 0.15) * size
    thick = rng.uniform(0.03, 0.1) * size
    canvas.tube(
        place, (place[0] + lean, place[1] - size * rng.uniform(0.7, 2)), (thick, thick * rng.uniform(0.5, 1)), paint, 0
    )


def _box(canvas, rng, paint, place, size):
    wide, high, skew = size * rng.uniform(0.2, 0.8), size * rng.uniform(0.2, 0.9), size * rng.normal(0, 0.06)
    x, y = place
    paint = replace(paint, flatness=rng.uniform(0.6, 1.0))
    canvas.polygon([(x, y), (x + wide, y + skew), (x + wide, y + skew - high), (x, y - high)], paint, 0)
    if rng.random() < 0.7:
        top = size * rng.uniform(0.05, 0.15)
        lid = replace(paint, base=tuple(0.8 * np.array(paint.base)))
        canvas.polygon(
            [
                (x, y - high),
                (x + wide, y + skew - high),
                (x + wide - top, y + skew - high - top),
                (x + top, y - high - top),
            ],
            lid,
            0,
        )


def _bottle(canvas, rng, paint, place, size):
    # Bottles and vases: shoulders, a neck and a stopper, and so the outline of a bust.
    size *= rng.uniform(0.2, 0.8)
    wide = size * rng.uniform(0.13, 0.3)
    top = (place[0] + rng.normal(0, 0.03) * size, place[1] - size)
    canvas.tube(place, top, np.array([0.9, 1, 1, 0.95, 0.35, 0.3]) * wide, paint, 0, aspect=0.4)
    if rng.random() < 0.5:
        canvas.tube(top, (top[0], top[1] - 0.1 * size), (0.4 * wide, 0.42 * wide), _thing_paint(rng, canvas), 0)


def _tree(canvas, rng, paint, place, size):
    size *= rng.uniform(1, 1.8)
    trunk = replace(paint, base=tuple(rng.uniform(0.5, 1) * np.array((128, 100, 76))), folds=0.2, crease=4)
    top = np.array([place[0] + rng.normal(0, 0.1) * size, place[1] - 0.6 * size])
    canvas.tube(place, top, np.array([0.06, 0.045, 0.03]) * size, trunk, 0)
    for _ in range(rng.integers(1, 4)):
        branch = top + size * np.array([rng.normal(0, 0.25), rng.uniform(-0.4, 0.05)])
        canvas.tube((top[0], top[1] + 0.15 * size), branch, np.array([0.03, 0.015]) * size, trunk, 0)
        green = np.clip(np.array((70, 104, 48)) * rng.uniform(0.5, 1.5) + rng.normal(0, 15, 3), 5, 240)
        canvas.tube(
            branch,
            branch + rng.normal(0, 0.12, 2) * size,
            rng.uniform(0.1, 0.2, 2) * size,
            Paint(tuple(green), folds=0.3, grain=0.2, fuzz=0.03 * size),
            0,
        )


def _animal(canvas, rng, paint, place, size):
    size *= rng.uniform(0.4, 0.9)
    fur = Paint(skin_colour(rng) if rng.random() < 0.5 else paint.base, folds=0.12, grain=0.08, fuzz=0.008 * size)
    way = rng.choice((-1, 1))
    back = np.array([place[0], place[1] - 0.55 * size])
    chest = back + size * np.array([way * rng.uniform(0.4, 0.7), rng.normal(0, 0.05)])
    for start in (back, chest):
        for _ in range(2):
            knee = start + size * np.array([rng.normal(0, 0.08), 0.3])
            canvas.tube(start, knee, np.array([0.08, 0.045]) * size, fur, 0)
            foot = knee + size * np.array([rng.normal(0, 0.06), 0.25])
            canvas.tube(knee, foot, np.array([0.045, 0.03]) * size, fur, 0)
    canvas.tube(back, chest, np.array([0.15, 0.17, 0.16]) * size, fur, 0)
    head = chest + size * np.array([way * 0.22, -0.25])
    canvas.tube(chest, head, np.array([0.12, 0.08]) * size, fur, 0)
    canvas.tube(head, head + size * np.array([way * 0.14, 0.06]), np.array([0.1, 0.06]) * size, fur, 0)
    tail = back + size * np.array([-way * 0.25, rng.uniform(-0.2, 0.25)])
    canvas.tube(back, tail, np.array([0.03, 0.02]) * size, fur, 0)


def _chair(canvas, rng, paint, place, size):
    size *= rng.uniform(0.5, 0.9)
    x, y = place
    wide, seat = 0.5 * size, y - 0.45 * size
    thick = rng.uniform(0.015, 0.04) * size
    for foot in (0.02, 0.3, 0.7, 0.98):
        top = (x + foot * wide, seat)
        canvas.tube(top, (top[0] + rng.normal(0, 0.04) * size, y), (thick, thick), paint, 0)
    if rng.random() < 0.6:
        canvas.polygon([(x, seat), (x + wide, seat), (x + wide, seat - 0.5 * size), (x, seat - 0.5 * size)], paint, 0)
    canvas.tube((x, seat), (x + wide, seat), (2 * thick, 2 * thick), paint, 0)


def _ball(canvas, rng, paint, place, size):
    radius = rng.uniform(0.05, 0.16) * size
    canvas.tube(
        place,
        (place[0] + rng.normal(0, 0.5) * radius, place[1] - rng.uniform(0, 1) * radius),
        (radius, radius * rng.uniform(0.8, 1.1)),
        paint,
        0,
    )


def _poster(canvas, rng, paint, place, size):
    wide, high = (max(4, int(size * rng.uniform(0.25, 0.8))) for _ in range(2))
    x, y = int(place[0]), int(place[1] - size * rng.uniform(0.3, 1))
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + wide, canvas.width), min(y + high, canvas.height)
    if x0 < x1 and y0 < y1:
        canvas.rgb[y0:y1, x0:x1] = np.asarray(photo_patch(rng, y1 - y0, x1 - x0, (1, 6)), np.float32)
        canvas.ids[y0:y1, x0:x1] = 0


THINGS = (_pole, _box, _bottle, _tree, _animal, _chair, _ball, _poster)


def clutter(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Put `count` things on the canvas; what they cover becomes background."""
    for draw in rng.choice(len(THINGS), count, p=(0.18, 0.17, 0.11, 0.1, 0.15, 0.1, 0.1, 0.09)):
        place = (rng.uniform(-0.05, 1.05) * canvas.width, rng.uniform(0.45, 1.1) * canvas.height)
        THINGS[draw](canvas, rng, _thing_paint(rng, canvas), place, canvas.height * rng.uniform(0.2, 0.8))


def held(canvas: Canvas, rng: np.random.Generator, hand: np.ndarray, size: float) -> None:
    """Something in a hand at `hand` (x, y in pixels), about `size` pixels high: background like all things."""
    draw = (_bottle, _ball, _box, _pole)[rng.integers(4)]
    draw(canvas, rng, _thing_paint(rng, canvas), (hand[0], hand[1] + rng.uniform(0, 0.5) * size), size)


def table(canvas: Canvas, rng: np.random.Generator, height: float) -> None:
    """A table or a wall across the picture before the people, its edge `height` pixels from the top."""
    slope = rng.normal(0, 0.04) * canvas.height
    left = rng.choice((-0.1, rng.uniform(0, 0.6)), p=(0.6, 0.4)) * canvas.width
    right = rng.choice((1.1, rng.uniform(0.7, 1.0)), p=(0.6, 0.4)) * canvas.width
    paint = replace(_thing_paint(rng, canvas), flatness=0.9, folds=0.04)
    canvas.polygon(
        [(left, height), (right, height + slope), (right, 1.2 * canvas.height), (left, 1.2 * canvas.height)], paint, 0
    )
    for _ in range(rng.integers(0, 4)):
        draw = (_bottle, _ball, _box)[rng.integers(3)]
        place = (rng.uniform(left, right), height + rng.uniform(0, 0.15) * canvas.height)
        draw(canvas, rng, _thing_paint(rng, canvas), place, canvas.height * rng.uniform(0.1, 0.35))

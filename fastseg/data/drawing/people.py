"""Bodies with flesh: skin, hair and clothes, painted joint by joint from back to front."""

from dataclasses import dataclass, replace

import numpy as np

from fastseg.data.drawing.brush import Canvas, Paint
from fastseg.data.drawing.faces import draw_fall, draw_head
from fastseg.data.drawing.figures import Body, project

LOW_HAND, TORSO, LOW_LEG, HEAD, UP_LEG, UP_HAND = 1, 2, 3, 4, 5, 6
SKINS = np.array(
    [(243, 208, 186), (231, 184, 154), (214, 160, 124), (178, 122, 86), (128, 84, 60), (84, 56, 44)], float
)
HAIRS = np.array(
    [(28, 24, 22), (48, 34, 26), (84, 58, 38), (132, 94, 56), (196, 160, 104), (168, 164, 160), (120, 54, 30)], float
)
DARK = np.array([(26, 26, 30), (38, 44, 66), (62, 62, 66), (56, 70, 104), (70, 50, 40)], float)
LIGHT = np.array([(236, 236, 234), (214, 208, 196), (186, 204, 222), (222, 190, 186)], float)


@dataclass(frozen=True)
class Look:
    """What a person wears and is made of; `sleeve` and `leg` say how far cloth reaches: 1 elbow or knee, 2 the end."""

    skin: Paint
    hair: Paint
    top: Paint
    bottom: Paint
    shoe: Paint
    inner: Paint
    sleeve: float
    leg: float
    skirt: bool
    open_front: bool
    hair_length: float
    hair_size: float
    hat: bool
    glasses: bool
    beard: bool
    fat: float
    loose: float
    waist: float


def skin_colour(rng: np.random.Generator) -> tuple[float, ...]:
    """A skin tone, RGB 0..255."""
    place = min(rng.beta(1.1, 1.9) * 5, 4.99)
    low = int(place)
    tone = SKINS[low] + (place - low) * (SKINS[low + 1] - SKINS[low])
    return tuple(np.clip(tone * rng.uniform(0.9, 1.05) + rng.normal(0, 5, 3), 15, 255))


def cloth_colour(rng: np.random.Generator) -> tuple[float, ...]:
    """A colour that people wear, RGB 0..255; one in six is as good as skin."""
    kind = rng.random()
    if kind < 0.33:
        colour = DARK[rng.integers(len(DARK))]
    elif kind < 0.55:
        colour = LIGHT[rng.integers(len(LIGHT))]
    elif kind < 0.72:
        return skin_colour(rng)
    else:
        hue = rng.permutation([rng.uniform(30, 110), rng.uniform(40, 180), rng.uniform(110, 230)])
        grey = hue.mean()
        colour = grey + rng.uniform(0.35, 1.0) * (hue - grey)
    return tuple(np.clip(colour + rng.normal(0, 10, 3), 8, 250))


def cloth(rng: np.random.Generator, scale: float) -> Paint:
    """A cloth, plain or patterned, for a body `scale` pixels high."""
    kind = rng.choice(["plain", "stripes", "hoops", "checks", "dots", "print"], p=(0.72, 0.05, 0.07, 0.06, 0.03, 0.07))
    return Paint(
        cloth_colour(rng),
        cloth_colour(rng),
        str(kind),
        scale * rng.uniform(0.015, 0.055),
        rng.uniform(0.25, 0.6),
        folds=rng.uniform(0.06, 0.17),
        crease=rng.uniform(0.5, 2.2),
        grain=rng.uniform(0.005, 0.035),
    )


def dress(rng: np.random.Generator, scale: float) -> Look:
    """Draw a person's looks at random, for a body `scale` pixels high."""
    skin = Paint(skin_colour(rng), folds=0.02, grain=0.0)
    hair = Paint(
        tuple(np.clip(HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.8, 1.2), 5, 250)),
        folds=0.2,
        crease=5,
        grain=0.12,
        fuzz=scale * rng.uniform(0.001, 0.004),
    )
    top, bottom = cloth(rng, scale), cloth(rng, scale)
    if rng.random() < 0.45:
        bottom = replace(bottom, base=tuple(DARK[rng.integers(len(DARK))] + rng.normal(0, 8, 3)), pattern="plain")
    skirt = rng.random() < 0.16
    if rng.random() < (0.5 if skirt else 0.1):
        bottom = top
    sleeve = rng.choice(
        (rng.uniform(0, 0.15), rng.uniform(0.4, 0.9), rng.uniform(1.2, 1.7), 2.0), p=(0.1, 0.36, 0.1, 0.44)
    )
    leg = rng.choice((rng.uniform(0.35, 0.9), rng.uniform(1.1, 1.6), 2.0), p=(0.2, 0.05, 0.75))
    shoe = skin if rng.random() < 0.1 else replace(cloth(rng, scale), pattern="plain", folds=0.04)
    return Look(
        skin,
        hair,
        top,
        bottom,
        shoe,
        cloth(rng, scale),
        sleeve,
        leg,
        skirt,
        rng.random() < 0.25,
        rng.choice((0.1, 0.6, 1.6), p=(0.55, 0.2, 0.25)) * rng.uniform(0.7, 1.3),
        rng.uniform(1.0, 1.22),
        rng.random() < 0.12,
        rng.random() < 0.12,
        rng.random() < 0.12,
        rng.uniform(0.88, 1.3),
        rng.uniform(0.002, 0.012),
        rng.uniform(0.8, 1.02),
    )


class Painter:
    """Paints one body on a canvas: `scale` pixels a body height, the pelvis at `origin` (x, y)."""

    def __init__(self, canvas: Canvas, body: Body, look: Look, scale: float, origin: tuple[float, float]):
        self.canvas, self.body, self.look, self.scale = canvas, body, look, scale
        self.at, self.size = project(body, scale, origin)
        for key in "lr":
            # The joint itself is the trunk's: annotators let the arm begin where it leaves the shoulder.
            self.at["arm" + key] = 0.88 * self.at["shoulder" + key] + 0.12 * self.at["elbow" + key]
            self.size["arm" + key] = self.size["shoulder" + key]
        self.front = float(body.frame[2, 2])  # 1 faces the camera, -1 turns its back
        self.side = float(body.frame[0, 2])  # 1 looks to the right of the picture

    def paint(self) -> None:
        """Draw all parts, the farthest first."""
        z = {name: float(place[2]) for name, place in self.body.joints.items()}
        trunk = 0.5 * (z["pelvis"] + z["neck"])
        steps = [
            (trunk - 0.004, self._neck),
            (trunk, self._trunk),
            (max(z["chin"] + 0.035, trunk + 0.002), self._head),
            (trunk - 0.01, self._fall),
        ]
        for key in "lr":
            # A standing leg lies behind the hem of the shirt, a lifted thigh before it.
            thigh = 0.5 * (z["hip" + key] + z["knee" + key]) - 0.045
            upright = self.body.legs in ("stand", "walk", "run")
            steps.append((min(thigh, trunk - 0.003) if upright else thigh, lambda key=key: self._thigh(key)))
            steps.append((0.5 * (z["knee" + key] + z["ankle" + key]) - 0.05, lambda key=key: self._shin(key)))
            steps.append((0.5 * (z["shoulder" + key] + z["elbow" + key]) + 0.03, lambda key=key: self._arm(key)))
            steps.append((0.5 * (z["elbow" + key] + z["hand" + key]) + 0.035, lambda key=key: self._forearm(key)))
        if self.look.skirt and self.body.legs in ("stand", "walk"):
            steps.append((trunk - 0.001, self._skirt))
        for _, step in sorted(steps, key=lambda item: item[0]):
            step()

    def _limb(self, a, b, radii, paint, label, **how):
        """A tube between two joints, its radii in body heights and scaled by how near each joint is."""
        near = np.linspace(self.size[a], self.size[b], len(radii))
        grown = (0.5 + 0.5 * self.look.fat) * (1 + 0.1 * self.body.child)
        self.canvas.tube(self.at[a], self.at[b], np.asarray(radii) * near * grown, paint, label, **how)

    def _covered(self, a, b, radii, reach, paint, label, extra=0.0, **how):
        """Skin from joint `a` to `b`, and cloth over the first `reach` (0..1) of it."""
        look = self.look
        if reach < 1:
            self._limb(a, b, radii, look.skin, label, **how)
        if reach > 0.05:
            share = min(reach, 1.0)
            count = len(radii)
            at = np.interp(np.linspace(0, share, count), np.linspace(0, 1, count), radii) + look.loose + extra
            end = self.at[a] + share * (self.at[b] - self.at[a])
            near = np.linspace(self.size[a], self.size[a] + share * (self.size[b] - self.size[a]), count)
            how = {**how, "flat": reach < 1, "shadow": how.get("shadow", 0.0) if reach >= 1 else 0.25}
            grown = (0.5 + 0.5 * look.fat) * (1 + 0.1 * self.body.child)
            self.canvas.tube(self.at[a], end, at * near * grown, paint, label, **how)

    def _thigh(self, key):
        radii = (0.05, 0.052, 0.045, 0.036) if self.look.skirt else (0.047, 0.05, 0.043, 0.034)
        self._covered("hip" + key, "knee" + key, radii, min(self.look.leg, 1.0), self.look.bottom, UP_LEG, shadow=0.3)

    def _shin(self, key):
        look = self.look
        foot = "ankle" + key, "toe" + key
        self._limb(*foot, (0.02, 0.022, 0.016), look.shoe, LOW_LEG, shadow=0.25)
        radii = (0.032, 0.035, 0.027, 0.019)
        reach = 0.0 if look.skirt else look.leg - 1
        self._covered("knee" + key, "ankle" + key, radii, reach, look.bottom, LOW_LEG, extra=0.003, shadow=0.3)

    def _skirt(self):
        knees = 0.5 * (self.at["kneel"] + self.at["kneer"])
        hem = self.at["pelvis"] + self.canvas.rng.uniform(0.6, 1.05) * (knees - self.at["pelvis"])
        wide = self.scale * self.look.fat * self.body.width
        self.canvas.tube(
            self.at["pelvis"],
            hem,
            wide * np.array([0.085, 0.1, 0.105 + 2 * self.look.loose]),
            replace(self.look.bottom, crease=6.0, folds=0.16),
            UP_LEG,
            flat=True,
            shadow=0.2,
        )

    def _trunk(self):
        look, body = self.look, self.body
        seen = np.hypot(self.front, 0.66 * self.side)  # a chest is two thirds as deep as it is wide
        wide = body.width * look.fat * seen
        belly = 1 + 0.25 * max(0, look.fat - 1.1) * abs(self.side)
        bust = 1 + 0.1 * (look.waist < 0.9) * abs(self.side)
        radii = np.array([0.086, 0.080 * belly, 0.077 * look.waist * belly, 0.084 * bust, 0.095, 0.05])
        if not look.skirt:
            self._limb("pelvis", "belly", np.array([0.082, 0.08]) * wide, look.bottom, UP_LEG)
        base = self.at["pelvis"] + 0.1 * (self.at["pelvis"] - self.at["neck"]) * (look.loose > 0.006)
        radii = radii * wide * 0.5 * (self.size["pelvis"] + self.size["neck"]) + look.loose * self.scale
        paint = replace(look.top, flatness=0.25)
        bow = -0.012 * self.scale * self.side
        self.canvas.tube(base, self.at["neck"], radii, paint, TORSO, bend=bow, aspect=0.35, shadow=0.3)
        for key in "lr":
            self._limb("neck", "shoulder" + key, (0.028, 0.025 + look.loose), paint, TORSO)
        if self.front > 0.25 and self.scale > 60:
            self._chest()

    def _chest(self):
        """Collar or open jacket: what makes a trunk seen from the front more than a sack."""
        look, scale = self.look, self.scale
        up = (self.at["neck"] - self.at["pelvis"]) / max(1.0, float(np.hypot(*(self.at["neck"] - self.at["pelvis"]))))
        right = np.array([-up[1], up[0]])
        middle = self.at["neck"] + right * 0.035 * scale * self.side + 0.012 * scale * up
        if look.open_front:
            low = self.at["pelvis"] + right * 0.04 * scale * self.side
            half = (0.03 * scale * self.front * right, 0.022 * scale * self.front * right)
            self.canvas.polygon(
                [middle - half[0], middle + half[0], low + half[1], low - half[1]],
                replace(look.inner, flatness=0.8),
                TORSO,
            )
        depth = self.canvas.rng.uniform(0.015, 0.075)
        half = 0.034 * scale * self.front * right
        tip = middle - up * depth * scale
        self.canvas.polygon([middle - half, middle + half, tip], replace(look.skin, flatness=0.7), TORSO)

    def _neck(self):
        wide = 0.029 * (0.6 + 0.4 * self.look.fat)
        start = self.at["neck"] - 0.15 * (self.at["chin"] - self.at["neck"])
        end = self.at["chin"] + 0.3 * (self.at["crown"] - self.at["chin"])
        self.canvas.tube(
            start,
            end,
            np.array([wide * 1.15, wide, wide]) * self.size["chin"],
            replace(self.look.skin, base=tuple(np.array(self.look.skin.base) * 0.85)),
            HEAD,
        )

    def _arm(self, key):
        radii = (0.025, 0.025, 0.021)
        self._covered("arm" + key, "elbow" + key, radii, self.look.sleeve, self.look.top, UP_HAND, shadow=0.5)

    def _forearm(self, key):
        skin = self.look.skin
        self._limb("wrist" + key, "hand" + key, (0.016, 0.025, 0.023, 0.013), skin, LOW_HAND, shadow=0.25)
        if self.scale > 250:
            thumb = self.at["wrist" + key] + 0.55 * (self.at["hand" + key] - self.at["wrist" + key])
            out = np.array([thumb[1] - self.at["wrist" + key][1], self.at["wrist" + key][0] - thumb[0]])
            self.canvas.tube(
                self.at["wrist" + key] + 0.4 * out,
                thumb + 0.8 * out * (1 if key == "l" else -1),
                np.array([0.009, 0.006]) * self.size["wrist" + key],
                skin,
                LOW_HAND,
                shadow=0.2,
            )
        self._covered(
            "elbow" + key,
            "wrist" + key,
            (0.022, 0.0235, 0.017),
            self.look.sleeve - 1,
            self.look.top,
            LOW_HAND,
            shadow=0.45,
        )

    def _fall(self):
        draw_fall(self.canvas, self.look, self.at["chin"], self.at["crown"], self.body.head_yaw)

    def _head(self):
        draw_head(self.canvas, self.look, self.at["chin"], self.at["crown"], self.body.head_yaw)

"""Bodies without flesh: a joint tree with random proportions and pose, turned in space and seen by a camera."""

from dataclasses import dataclass

import numpy as np

# Lengths and half-widths are shares of a standing adult's height.
SHOULDER, HIP, SPINE, NECK = 0.09, 0.05, 0.29, 0.055
ARM, FOREARM, HAND, THIGH, SHIN, FOOT = 0.17, 0.145, 0.06, 0.245, 0.235, 0.09
PERSPECTIVE = 0.3

# Degrees. Arms: swing forward, opening sideways, bend of the elbow, turn of the forearm sideways (inwards is negative).
ARMS = {
    "down": ((-18, 22), (4, 22), (0, 35), (-10, 15)),
    "bent": ((-15, 40), (5, 30), (50, 125), (-50, 10)),
    "hip": ((-35, 0), (30, 60), (5, 40), (-75, -35)),
    "crossed": ((10, 35), (5, 15), (45, 75), (-75, -50)),
    "forward": ((45, 95), (0, 30), (0, 60), (-30, 15)),
    "aside": ((-20, 20), (50, 100), (0, 60), (20, 100)),
    "raised": ((115, 175), (5, 40), (0, 90), (-30, 30)),
}
# Legs: swing forward, opening sideways, bend of the knee.
LEGS = {
    "stand": ((-6, 9), (1, 9), (0, 9)),
    "walk": ((-26, 30), (0, 5), (0, 45)),
    "run": ((-35, 70), (0, 8), (10, 95)),
    "sit": ((62, 96), (2, 26), (55, 110)),
    "crouch": ((80, 125), (5, 30), (100, 140)),
    "astride": ((40, 70), (20, 45), (40, 80)),
}


@dataclass(frozen=True)
class Body:
    """A posed body: `joints` in body heights (x right, y down, z to the camera), `front` where it faces."""

    joints: dict[str, np.ndarray]
    frame: np.ndarray  # columns: the body's right-hand side in the picture, down, forward
    head_yaw: float  # radians; 0 looks at the camera, ±pi/2 sideways, pi away
    legs: str
    child: float  # 0 adult … 1 small child: a bigger head on a shorter body
    width: float


def _between(rng: np.random.Generator, low_high: tuple[float, float]) -> float:
    return float(np.deg2rad(rng.uniform(*low_high)))


def _hanging(swing: float, opening: float, side: float) -> np.ndarray:
    """A direction: straight down, swung forward, opened to one side."""
    return np.array([side * np.sin(opening), np.cos(swing) * np.cos(opening), np.sin(swing) * np.cos(opening)])


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _arm(rng: np.random.Generator, joints: dict, side: float, key: str, scale: float) -> None:
    kind = rng.choice(list(ARMS), p=(0.36, 0.28, 0.07, 0.07, 0.1, 0.05, 0.07))
    swing, opening, bend, turn = (_between(rng, r) for r in ARMS[kind])
    upper = _hanging(swing, opening, side)
    lower = _hanging(swing + bend, opening * 0.4 + turn, side)
    joints["elbow" + key] = joints["shoulder" + key] + ARM * scale * upper
    joints["wrist" + key] = joints["elbow" + key] + FOREARM * scale * lower
    hand = lower + rng.normal(0, 0.25, 3)
    joints["hand" + key] = joints["wrist" + key] + HAND * scale * hand / np.linalg.norm(hand)


def _leg(rng: np.random.Generator, joints: dict, side: float, key: str, kind: str, scale: float) -> None:
    swing, opening, bend = (_between(rng, r) for r in LEGS[kind])
    joints["knee" + key] = joints["hip" + key] + THIGH * scale * _hanging(swing, opening, side)
    shin = _hanging(swing - bend, opening * 0.3, side)
    joints["ankle" + key] = joints["knee" + key] + SHIN * scale * shin
    tip = _hanging(swing - bend + np.deg2rad(rng.uniform(60, 95)), np.deg2rad(rng.uniform(0, 30)), side)
    joints["toe" + key] = joints["ankle" + key] + FOOT * scale * tip + np.array([0, 0.012, 0])


def pose(rng: np.random.Generator, legs: str | None = None) -> Body:
    """Draw a body at random; `legs` names a stance of LEGS, else one is drawn too."""
    legs = legs or str(rng.choice(list(LEGS), p=(0.44, 0.18, 0.05, 0.23, 0.05, 0.05)))
    child = float(np.clip(rng.normal(-0.3, 0.5), 0, 1))
    limb = rng.uniform(0.93, 1.06) * (1 - 0.22 * child)
    torso = rng.uniform(0.94, 1.06) * (1 - 0.12 * child)
    lean = np.deg2rad(rng.normal(4, 7) + (rng.uniform(10, 40) if legs in ("crouch", "run") else 0))
    tilt = np.deg2rad(rng.normal(0, 5))
    up = np.array([np.sin(tilt), -np.cos(lean), np.sin(lean)])
    width = rng.uniform(0.9, 1.1) * (1 - 0.15 * child)
    joints = {"pelvis": np.zeros(3), "neck": SPINE * torso * up}
    joints["belly"] = 0.45 * joints["neck"] + np.array([0, 0, -0.03 * np.sin(lean)])
    slope = np.deg2rad(rng.normal(0, 6))
    for key, side in (("l", 1.0), ("r", -1.0)):
        across = np.array([side * np.cos(slope), side * np.sin(slope), 0])
        joints["shoulder" + key] = 0.87 * joints["neck"] + SHOULDER * width * across
        joints["hip" + key] = HIP * width * across + np.array([0, 0.012, 0])
        _arm(rng, joints, side, key, limb)
        _leg(rng, joints, side, key, legs, limb)
    nod = np.array([rng.normal(0, 0.16), -1, rng.normal(0.12, 0.2)]) + 0.3 * up
    nod /= np.linalg.norm(nod)
    head = 1 + 0.28 * child
    joints["chin"] = joints["neck"] + (NECK - 0.02 * child) * nod + np.array([0, 0, 0.008])
    joints["crown"] = joints["chin"] + 0.132 * head * nod
    facing = rng.choice(4, p=(0.6, 0.17, 0.1, 0.13))
    yaw = np.deg2rad(
        (rng.normal(0, 28), rng.choice((-90, 90)) + rng.normal(0, 15), rng.normal(180, 25), rng.uniform(-75, 75))[
            facing
        ]
    )
    frame = _turn(yaw, np.deg2rad(rng.normal(6, 8)), np.deg2rad(rng.normal(0, 4)))
    joints = {name: frame @ place for name, place in joints.items()}
    return Body(joints, frame, float(yaw + np.deg2rad(rng.normal(0, 22))), legs, child, width)


def project(body: Body, scale: float, origin: tuple[float, float]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Places in the picture (x, y in pixels) and pixels per body height at each joint, the pelvis at `origin`."""
    places, sizes = {}, {}
    for name, (x, y, z) in body.joints.items():
        sizes[name] = scale / (1 - PERSPECTIVE * min(float(z), 0.8))
        places[name] = np.array([origin[0] + x * sizes[name], origin[1] + y * sizes[name]])
    return places, sizes

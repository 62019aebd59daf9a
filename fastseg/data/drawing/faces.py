"""Heads: a skull, hair round it, and the features that a face shows from where it is seen."""

from dataclasses import replace

import numpy as np

from fastseg.data.drawing.brush import Canvas, Paint

HEAD = 4


def draw_head(canvas: Canvas, look, chin: np.ndarray, crown: np.ndarray, yaw: float) -> None:
    """Draw a head between `chin` and `crown` (x, y in pixels) that looks `yaw` radians away from the camera.

    `look` is the person's `Look`: its skin, hair, hat, beard and glasses are used.
    """
    spot, half, tall = _measure(look, chin, crown)
    front, side = float(np.cos(yaw)), float(np.sin(yaw))
    right = (spot(1, 0) - spot(0, 0)) / half
    hair, size = look.hair, look.hair_size
    behind = -side * 0.3 * half * right
    if front > -0.15:
        canvas.tube(
            spot(0, 0.17) + behind, spot(0, 0.02) + behind, np.array([1.02, 1.04]) * half * size, hair, HEAD, shadow=0.2
        )
        shift = 0.12 * side * half * right
        canvas.tube(
            spot(0, 0.12) + shift,
            spot(0, -0.26) + 1.5 * shift,
            np.array([0.98, 0.95, 0.62 + 0.15 * abs(side)]) * half,
            look.skin,
            HEAD,
            shadow=0.25,
        )
        if tall > 14:
            _features(canvas, look, spot, yaw, tall)
        _fringe(canvas, look, spot, side, half, behind)
        if look.hair_length > 0.4:
            # Seen from the side, only the strand that does not cross the face.
            for edge in (-1.0, 1.0) if abs(side) < 0.4 else (-np.sign(side),):
                top = spot(0.85 * edge - 0.3 * side, 0.25)
                low = spot(1.02 * edge - 0.4 * side, -0.3 - 0.35 * look.hair_length)
                canvas.tube(
                    top, low, np.array([0.25, 0.3, 0.12]) * half * size, hair, HEAD, bend=0.1 * edge * half, shadow=0.2
                )
    else:
        low = -0.2 - 0.45 * max(0.0, look.hair_length - 0.3)
        canvas.tube(spot(0, 0.12), spot(0, -0.26), np.array([0.98, 0.92, 0.7]) * half, look.skin, HEAD, shadow=0.25)
        canvas.tube(spot(0, 0.15), spot(0, low), np.array([1.03, 1.05, 0.8]) * half * size, hair, HEAD, shadow=0.2)
    if look.hat:
        brim = spot(0.5 * side, 0.24)
        canvas.tube(spot(0, 0.34), spot(0, 0.26), np.array([0.85, 1.08]) * half * size, look.inner, HEAD, aspect=0.7)
        canvas.tube(brim - 1.15 * half * right, brim + 1.15 * half * right, (0.09 * half,) * 2, look.inner, HEAD)


def draw_fall(canvas: Canvas, look, chin: np.ndarray, crown: np.ndarray, yaw: float) -> None:
    """Draw long hair that falls behind the neck: before the trunk is drawn; arguments as for `draw_head`."""
    if look.hair_length <= 0.3 or np.cos(yaw) < -0.15:
        return
    spot, half, _ = _measure(look, chin, crown)
    behind = -0.3 * np.sin(yaw)
    canvas.tube(
        spot(behind, 0.15),
        spot(1.5 * behind, -0.35 - 0.45 * look.hair_length),
        np.array([1.1, 1.15, 0.8]) * half * look.hair_size,
        look.hair,
        HEAD,
    )


def _measure(look, chin, crown):
    """Where (x in half-widths, y in heights from the middle) lies in the picture, the half-width and the height."""
    up = crown - chin
    tall = max(float(np.hypot(*up)), 1.0)
    up = up / tall
    right = np.array([-up[1], up[0]])
    half = 0.36 * tall * (0.9 + 0.1 * look.fat)
    middle = 0.5 * (chin + crown)

    def spot(x, y):
        return middle + x * half * right + y * tall * up

    return spot, half, tall


def _fringe(canvas, look, spot, side, half, behind):
    """Hair over the forehead and, from the side, over the temple."""
    if look.hair_length < 0.09:
        return
    line = 0.42 - 0.1 * (look.hair_length > 0.12)
    canvas.tube(
        spot(-0.8, line - 0.06) + 0.8 * behind,
        spot(0.8, line - 0.06) + 0.8 * behind,
        np.array([0.18, 0.36, 0.18]) * half * look.hair_size,
        look.hair,
        HEAD,
        bend=-0.25 * half,
    )
    if abs(side) > 0.35:
        back = spot(-0.75 * np.sign(side), 0)
        low = -0.1 - 0.3 * min(look.hair_length, 1.5)
        canvas.tube(
            back + 0.3 * half * np.array([0, -1]),
            back + (spot(0, low) - spot(0, 0)),
            np.array([0.5, 0.45, 0.2]) * half,
            look.hair,
            HEAD,
        )


def _features(canvas, look, spot, yaw, tall):
    """Eyes, brows, nose, mouth and ears, each where it lies on a turned skull."""
    skin = np.array(look.skin.base)
    plain = {"folds": 0.0, "grain": 0.02, "flatness": 0.8}
    dark, lip = Paint(tuple(0.25 * skin), **plain), Paint((0.75 * skin[0], 0.5 * skin[1], 0.5 * skin[2]), **plain)
    shade, white = Paint(tuple(0.72 * skin), **plain), Paint((225, 222, 218), **plain)

    def line(x0, y0, x1, y1, thick, paint, turn=0.0):
        # x runs round the skull in radians; what lies on the far side is not seen.
        if np.cos(yaw + 0.5 * (x0 + x1)) < 0.12:
            return
        a, b = spot(0.9 * np.sin(yaw + x0), y0), spot(0.9 * np.sin(yaw + x1), y1)
        canvas.tube(a, b, (thick * tall,) * 2, paint, None)

    for eye in (-0.45, 0.45):
        line(eye * 3.2, 0.03, eye * 3.2, -0.05, 0.045, replace(shade, base=tuple(0.9 * skin)))
        line(eye - 0.17, 0.1, eye + 0.17, 0.1, 0.014, Paint(look.hair.base, **plain))
        if look.glasses:
            line(eye - 0.2, 0.02, eye + 0.2, 0.02, 0.06, dark)
            continue
        line(eye - 0.2, 0.025, eye + 0.2, 0.025, 0.034, shade)
        line(eye - 0.13, 0.02, eye + 0.13, 0.02, 0.02, white)
        line(eye - 0.03, 0.02, eye + 0.03, 0.02, 0.022, dark)
    line(0.08, 0.02, 0.14, -0.12, 0.02, replace(shade, base=tuple(0.82 * skin)))
    line(-0.12, -0.14, 0.12, -0.14, 0.018, shade)
    if look.beard:
        line(-0.35, -0.38, 0.35, -0.38, 0.1, replace(look.hair, fuzz=0.02 * tall))
        line(-0.25, -0.2, 0.25, -0.2, 0.025, look.hair)
    line(-0.24, -0.255, 0.24, -0.255, 0.02, lip)
    line(-0.2, -0.25, 0.2, -0.25, 0.006, dark)

"""Kinds of values that settings are made of: sizes, rates, spans, and sections of them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def parse_size(value: Any) -> Any:
    """'192x128', [192, 128] or 128 → (height, width)."""
    sides = value.split("x") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    sides = [int(v) if isinstance(v, str) and v.strip().isdigit() else v for v in sides]
    if len(sides) not in (1, 2) or not all(type(v) is int and v > 0 for v in sides):
        raise ValueError(f"{value!r} is no size; write height x width in pixels, as 192x128 or [192, 128]")
    return sides[0], sides[-1]


Size = Annotated[tuple[int, int], BeforeValidator(parse_size)]


def _parse_rate(value: Any) -> Any:
    """A number, two numbers or 'auto'; YAML 1.1 reads 3e-4 as text, which is taken as the number it means."""
    if value == "auto":
        return value
    try:
        rates = tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else float(value)
    except (TypeError, ValueError):
        rates = ()
    numbers = rates if isinstance(rates, tuple) else (rates,)
    if len(numbers) not in (1, 2) or not all(0 < v < math.inf for v in numbers):
        raise ValueError(f"{value!r} is neither a number above 0, nor two of them, [encoder, decoder], nor auto")
    return rates if len(numbers) == 2 else numbers[0]


Rate = Annotated[float | tuple[float, float] | Literal["auto"], BeforeValidator(_parse_rate)]


def _parse_span(value: Any) -> Any:
    """[0.5, 2] → (0.5, 2.0); one number stands for both."""
    if value is None:
        return None
    numbers = value if isinstance(value, (list, tuple)) else [value, value]
    try:
        low, high = (float(v) for v in numbers)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{value!r} is no span; write two numbers above 0, the lower one first, as [0.5, 2.0]")
    return low, high


Share = Annotated[float, Field(ge=0, le=1)]
Span = Annotated[tuple[float, float], BeforeValidator(_parse_span)]


class Section(BaseModel):
    """A part of the settings: immutable, and without room for keys it does not know."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, frozen=True)

"""The charts of the page on a dataset, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fastseg.pages.charts import svg, ticks

WIDE, HIGH, LEFT, BELOW = 460, 300, 52, 36


def size_scatter(sizes: Mapping[str, Any], chosen: Sequence[int]) -> str:
    """Every size as a disc, its area the number of photographs; a square marks what the network sees."""
    counted = sizes["counted"]
    most = max(row["photographs"] for row in counted)
    right = 1.08 * max(*(row["width"] for row in counted), chosen[1])
    top = 1.08 * max(*(row["height"] for row in counted), chosen[0])

    def at(wide: float, high: float) -> tuple[float, float]:
        return LEFT + wide / right * (WIDE - LEFT - 10), HIGH - BELOW - high / top * (HIGH - BELOW - 10)

    parts = []
    for wide in ticks(right):
        x = at(wide, 0)[0]
        parts.append(f'<path class="rule" d="M{x:.1f} 10V{HIGH - BELOW}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{wide:.0f}</text>')
    for high in ticks(top):
        y = at(0, high)[1]
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDE - 10}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{high:.0f}</text>')
    for row in counted:
        x, y = at(row["width"], row["height"])
        size = 2.5 + 12 * (row["photographs"] / most) ** 0.5
        said = f"{row['height']}x{row['width']}: {row['photographs']}"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"><title>{said}</title></circle>')
    x, y = at(chosen[1], chosen[0])
    parts.append(f'<rect class="mark" x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12"/>')
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 3}" text-anchor="middle">width, pixels</text>')
    parts.append(f'<text x="12" y="{HIGH / 2 - 10:.0f}" text-anchor="middle" '
                 f'transform="rotate(-90 12 {HIGH / 2 - 10:.0f})">height, pixels</text>')  # fmt: skip
    return svg(parts, "sizes of the photographs", WIDE, HIGH)


def histogram(counts: Sequence[int], labels: Sequence[str], below: str) -> str:
    """Columns of counts; `labels` are spread evenly under them, `below` names the axis."""
    most, count = max(*counts, 1), len(counts)
    step = (WIDE - LEFT - 10) / count
    parts = []
    for place, value in enumerate(counts):
        tall = value / most * (HIGH - BELOW - 24)
        x = LEFT + place * step
        parts.append(f'<rect class="column" x="{x + 1:.1f}" y="{HIGH - BELOW - tall:.1f}" width="{step - 2:.1f}" '
                     f'height="{tall:.1f}"><title>{value}</title></rect>')  # fmt: skip
        if value:
            y = HIGH - BELOW - tall - 4
            parts.append(f'<text x="{x + step / 2:.1f}" y="{y:.1f}" class="small" text-anchor="middle">{value}</text>')
    for place, tick in enumerate(labels):
        x = LEFT + place * (WIDE - LEFT - 10) / (len(labels) - 1)
        anchor = "end" if place == len(labels) - 1 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BELOW + 16}" text-anchor="{anchor}">{escape(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HIGH - BELOW}H{WIDE - 10}"/>')
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 3}" text-anchor="middle">{escape(below)}</text>')
    return svg(parts, below, WIDE, HIGH)

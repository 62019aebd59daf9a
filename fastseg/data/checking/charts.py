"""Small charts as HTML and inline SVG, which follow the page's light or dark colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDE, HIGH, LEFT, BELOW = 460, 300, 52, 36


def bar(share: float, colour: str, words: str) -> str:
    """A bar of `share` (0..1) of its cell, with words on it."""
    width = f"{100 * min(max(share, 0), 1):.2f}%"
    return f'<div class="bar"><i style="width:{width};background:{colour}"></i><span>{escape(words)}</span></div>'


def swatch(rgb: Sequence[int]) -> str:
    """A square of a class's colour."""
    return f'<b class="swatch" style="background:{css(rgb)}"></b>'


def css(rgb: Sequence[int]) -> str:
    """A colour as CSS writes it."""
    return f"rgb({int(rgb[0])},{int(rgb[1])},{int(rgb[2])})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """An HTML table of cells that are HTML already; it scrolls by itself where the screen is narrow."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def size_scatter(sizes: Mapping[str, Any], chosen: Sequence[int]) -> str:
    """Every size as a disc, its area the number of photographs; a square marks what the network sees."""
    counted = sizes["counted"]
    most = max(row["photographs"] for row in counted)
    right = 1.08 * max(*(row["width"] for row in counted), chosen[1])
    top = 1.08 * max(*(row["height"] for row in counted), chosen[0])

    def at(wide: float, high: float) -> tuple[float, float]:
        return LEFT + wide / right * (WIDE - LEFT - 10), HIGH - BELOW - high / top * (HIGH - BELOW - 10)

    parts = []
    for wide in _ticks(right):
        x = at(wide, 0)[0]
        parts.append(f'<path class="rule" d="M{x:.1f} 10V{HIGH - BELOW}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{wide}</text>')
    for high in _ticks(top):
        y = at(0, high)[1]
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDE - 10}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{high}</text>')
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
    return _svg(parts, "sizes of the photographs")


def histogram(counts: Sequence[int], ticks: Sequence[str], below: str) -> str:
    """Columns of counts; `ticks` are spread evenly under them, `below` names the axis."""
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
    for place, tick in enumerate(ticks):
        x = LEFT + place * (WIDE - LEFT - 10) / (len(ticks) - 1)
        anchor = "end" if place == len(ticks) - 1 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HIGH - BELOW + 16}" text-anchor="{anchor}">{escape(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HIGH - BELOW}H{WIDE - 10}"/>')
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 3}" text-anchor="middle">{escape(below)}</text>')
    return _svg(parts, below)


def heat(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A matrix of photographs that show row and column: darker is the larger part of the row's own."""
    rows = []
    for place, (name, counts) in enumerate(zip(names, matrix, strict=True)):
        own = counts[place]
        cells = [escape(name)]
        for count in counts:
            share = count / own if own else 0
            cells.append(f'<div class="heat" style="--share:{round(100 * share)}%">{count:,}</div>')
        rows.append(cells)
    return table(["", *(escape(name) for name in names)], rows, "matrix")


def _svg(parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _ticks(most: float) -> range:
    """Multiples of 1, 2 or 5 times a power of ten up to `most`, three to seven of them."""
    steps = (base * 10**power for power in range(7) for base in (1, 2, 5))
    step = next(step for step in steps if most / step < 7)
    return range(0, int(most) + 1, step)

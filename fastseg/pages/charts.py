"""Small charts as HTML and inline SVG that all pages share; they follow the page's light or dark colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fastseg.hierarchy import Hierarchy


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


def legend(tree: Hierarchy, level: int = -1, kind: str = "") -> str:
    """The classes of a level beside their colours, without background."""
    names, colours = tree.names(level), tree.colours(level)
    spans = (f"<span>{swatch(colours[node])} {escape(plain(names[node]))}</span>" for node in tree.foreground(level))
    return f"<p class='legend {kind}'>{' '.join(spans)}</p>"


def plain(name: str) -> str:
    """A class's name in plain words."""
    return name.replace("_", " ")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", label: str = "table") -> str:
    """An HTML table of cells that are HTML already, the first of a row its heading.

    It scrolls by itself where the screen is narrow, by the keyboard too; `label` is what a screen reader calls it.
    """
    top = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}"><table class="{kind}">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def heat(names: Sequence[str], shares: Sequence[Sequence[float]], words: Sequence[Sequence[str]],
         label: str) -> str:  # fmt: skip
    """A square table of words, the stronger in colour the larger their share (0..1)."""
    rows = [
        [escape(name), *(f'<div class="heat" style="--share:{round(100 * share)}%">{word}</div>'
                         for share, word in zip(shared, said, strict=True))]
        for name, shared, said in zip(names, shares, words, strict=True)
    ]  # fmt: skip
    return table(["", *(escape(name) for name in names)], rows, "matrix", label)


def svg(parts: Sequence[str], title: str, wide: int, high: int) -> str:
    """An inline SVG that fills its column; `title` is what a screen reader says of it."""
    return f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def ticks(most: float, count: int = 7) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from 0 up to `most` (above 0), fewer than `count` steps."""
    steps = (base * 10.0**power for power in range(-9, 10) for base in (1, 2, 5))
    step = next(step for step in steps if most / step < count)
    return [step * place for place in range(int(most / step + 1e-9) + 1)]

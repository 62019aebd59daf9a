"""Curves over epochs as inline SVG that shows its values under the pointer, and the same values as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from fastseg.hierarchy import Hierarchy
from fastseg.overfitting import EPOCHS, RULE, overfitting
from fastseg.pages.charts import svg, table, ticks
from fastseg.plots import level_words

WIDE, HIGH, LEFT, RIGHT, ABOVE, BELOW = 460, 300, 58, 12, 26, 40
Values = Sequence[float | None]


def curves_section(history: Mapping[str, Values], tree: Hierarchy, kept: int | None) -> str:
    """The section of losses, mean IoUs and learning rate; `kept` marks the epoch of the best weights."""
    epochs = [int(epoch) for epoch in history["epoch"]]
    losses = {"training": history["train_loss"], "validation": history.get("valid_loss", [])}
    means = {f"miou{level} ({level_words(tree, level)})": history[f"miou{level}"]
             for level in range(tree.depth) if f"miou{level}" in history}  # fmt: skip
    charts = {"Loss": losses, "Mean IoU": means}
    if "lr" in history:
        charts["Learning rate"] = {"learning rate": history["lr"]}
    figures = "".join(f"<div><h3>{name}</h3>{line_chart(name, epochs, series, kept)}</div>"
                      for name, series in charts.items())  # fmt: skip
    mark = f" The dotted line is epoch {kept}, whose weights were kept." if kept else ""
    rows = [[_number(value) for value in row] for row in zip(*history.values(), strict=True)]
    return (
        f"<section id='curves'><h2>Curves</h2>{_verdict(history)}<p>Point at a chart to read an epoch. The mean IoUs "
        f"are those of the valid split at the network's size, the learning rate is the last of each epoch.{mark}</p>"
        f"<div class='curves'>{figures}</div><details><summary>all values as a table</summary>"
        f"{table(list(history), rows, '', 'values of each epoch')}"
        "</details></section>"
    )


def _verdict(history: Mapping[str, Values]) -> str:
    found = overfitting(history["train_loss"], history.get("valid_loss", []))
    if found:
        return f"<p class='fair'><b>The curves say {escape(str(found))}.</b> That is said where {RULE}.</p>"
    if len(history["epoch"]) <= EPOCHS:
        return f"<p>Too short to say whether it overfits: that takes more than {EPOCHS} epochs.</p>"
    return f"<p>No overfitting, which is said where {RULE}.</p>"


def line_chart(what: str, epochs: Sequence[int], series: Mapping[str, Values], mark: int | None = None) -> str:
    """Lines over epochs from 0 upwards, with a legend; `mark` draws a dotted line at an epoch."""
    known = [v for values in series.values() for v in values if v is not None and math.isfinite(v)]
    top = 1.06 * max([*known, 0]) or 1.0
    low = min([*known, 0]) * 1.06

    def x(epoch: float) -> float:
        return LEFT + (epoch - epochs[0] + 0.5) / (epochs[-1] - epochs[0] + 1) * (WIDE - LEFT - RIGHT)

    def y(value: float) -> float:
        return HIGH - BELOW - (value - low) / (top - low) * (HIGH - BELOW - ABOVE)

    parts = [f'<path class="rule" d="M{LEFT} {y(t):.1f}H{WIDE - RIGHT}"/><text x="{LEFT - 6}" y="{y(t) + 4:.1f}" '
             f'text-anchor="end">{t:g}</text>' for t in ticks(top)]  # fmt: skip
    for epoch in ticks(epochs[-1]):
        if epoch == int(epoch) and epoch >= epochs[0]:
            parts.append(f'<text x="{x(epoch):.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{epoch:.0f}</text>')
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 4}" text-anchor="middle">epoch</text>')
    if mark is not None:
        parts.append(f'<path class="kept" d="M{x(mark):.1f} {ABOVE}V{HIGH - BELOW}"/>')
    for place, values in enumerate(series.values()):
        there = [(x(e), y(v)) for e, v in zip(epochs, values, strict=False) if v is not None and math.isfinite(v)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in there)
        parts.append(f'<polyline class="line s{place}" points="{line}"/>')
        if len(there) <= 40:
            parts += [f'<circle class="s{place}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in there]
    parts += [_hover(i, epoch, x, series) for i, epoch in enumerate(epochs)]
    spans = "".join(f"<span><b class='key s{i}'></b> {escape(name.replace('_', ' '))}</span>"
                    for i, name in enumerate(series))  # fmt: skip
    first, last = epochs[0], epochs[-1]
    ends = "; ".join(f"{name} from {_number(v[0])} to {_number(v[-1])}" for name, v in series.items() if len(v))
    return (f"<p class='legend'>{spans if len(series) > 1 else ''}</p>"
            + svg(parts, f"{what}, epochs {first} to {last}: {ends}", WIDE, HIGH))  # fmt: skip


def _hover(i: int, epoch: int, x: Callable[[float], float], series: Mapping[str, Values]) -> str:
    """A stripe that shows its epoch's values while the pointer is on it."""
    wide = x(epoch + 1) - x(epoch)
    said = "   ".join(f"{name.partition(' ')[0]} {_number(v[i])}" for name, v in series.items() if i < len(v))
    return (
        f'<g class="hit"><rect x="{x(epoch) - wide / 2:.1f}" y="0" width="{wide:.1f}" height="{HIGH}"/>'
        f'<path d="M{x(epoch):.1f} {ABOVE}V{HIGH - BELOW}"/><text x="{WIDE - RIGHT}" y="16" text-anchor="end">'
        f"epoch {epoch}: {escape(said)}</text></g>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"

"""The graphs of a search's page as inline SVG: score against speed, parallel coordinates, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from fastseg.experiments.searching.leaderboard import Entry
from fastseg.experiments.searching.space import label
from fastseg.pages.charts import svg, ticks

WIDE, HIGH, LEFT, RIGHT, ABOVE, BELOW = 560, 320, 52, 16, 28, 44
Place = Callable[[float], float]


def frontier(entries: Sequence[Entry]) -> list[Entry]:
    """The trials that no other beats in score and in photographs a second, the fastest first."""
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (-e.facts["photographs_per_second"], -e.score)):
        if not found or entry.score > found[-1].score:
            found.append(entry)
    return found


def speed_graph(entries: Sequence[Entry], best: Entry, metric: str) -> str:
    """Score against photographs a second, with the line of those that no other beats in both."""
    known = [entry for entry in entries if entry.score is not None and entry.facts.get("photographs_per_second")]
    if not known:
        return "<p>No trial has a score and a speed.</p>"
    fastest = max(entry.facts["photographs_per_second"] for entry in known)
    x = _scale(0, 1.08 * fastest, LEFT, WIDE - RIGHT)
    low, high = _range([entry.score for entry in known])
    y = _scale(low, high, HIGH - BELOW, ABOVE)
    parts = _frame(low, high, y, metric)
    parts += [f'<text x="{x(t):.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{t:g}</text>' for t in ticks(fastest)]
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 6}" text-anchor="middle">photographs a second, '
                 "trained and validated</text>")  # fmt: skip
    front = frontier(known)
    line = " ".join(f"{x(e.facts['photographs_per_second']):.1f},{y(e.score):.1f}" for e in front)
    parts.append(f'<polyline class="front" points="{line}"/>')
    for entry in known:
        a, b = x(entry.facts["photographs_per_second"]), y(entry.score)
        kind = " best" if entry is best else ""
        parts.append(_hit(f'<circle class="spot{kind}" cx="{a:.1f}" cy="{b:.1f}" r="{6 if kind else 5}"/>', entry))
    said = "; ".join(f"{e.label} {e.score:.3f} at {e.facts['photographs_per_second']:g}" for e in front)
    return svg(parts, f"{metric} against photographs a second; best at their speed: {said}", WIDE, HIGH)


def curves_graph(entries: Sequence[Entry], best: Entry, metric: str) -> str:
    """The score of every trial after each of its epochs."""
    known = [(entry, {e: v for e, v in entry.scores.items() if math.isfinite(v)}) for entry in entries]
    known = [(entry, scores) for entry, scores in known if scores]
    if not known:
        return "<p>No trial came to the end of an epoch.</p>"
    last = max(max(scores) for _, scores in known)
    x = _scale(0.5, last + 0.5, LEFT, WIDE - RIGHT)
    low, high = _range([value for _, scores in known for value in scores.values()])
    y = _scale(low, high, HIGH - BELOW, ABOVE)
    parts = _frame(low, high, y, metric)
    parts += [f'<text x="{x(t):.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{t:.0f}</text>'
              for t in ticks(last) if t == int(t) and t >= 1]  # fmt: skip
    parts.append(f'<text x="{(WIDE + LEFT) / 2:.0f}" y="{HIGH - 6}" text-anchor="middle">epoch</text>')
    for entry, scores in sorted(known, key=lambda pair: pair[0] is best):
        kind = " best" if entry is best else " pruned" if entry.state == "pruned" else ""
        points = [(x(epoch), y(scores[epoch])) for epoch in sorted(scores)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dots = "".join(f'<circle class="spot{kind}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points)
        parts.append(_hit(f'<polyline class="trial{kind}" points="{line}"/>{dots}', entry))
    title = f"{metric} after each epoch of {len(known)} trials; the best ends at {best.score:.3f}"
    return svg(parts, title, WIDE, HIGH)


def parallel_graph(entries: Sequence[Entry], keys: Sequence[str], best: Entry, metric: str) -> str:
    """A line a trial over an axis a setting, the last axis its score; pruned trials dashed."""
    known = [entry for entry in entries if entry.last is not None and math.isfinite(entry.last)]
    axes = [key for key in keys if len({str(label(e.picks.get(key))) for e in known}) > 1]
    if len(known) < 2 or not axes:
        return ""
    wide, high = max(900, 130 * (len(axes) + 1)), HIGH
    places = [LEFT + 30 + i * (wide - LEFT - 110) / len(axes) for i in range(len(axes) + 1)]
    scales: list[Callable[[Entry], float]] = []
    parts: list[str] = []
    for key, place in zip([*axes, metric], places, strict=True):
        values = {id(e): e.last if key == metric else e.picks.get(key) for e in known}
        at, marks = _axis(list(values.values()), high)
        scales.append(lambda e, at=at, values=values: at(values[id(e)]))
        name = key.rpartition(".")[2]
        parts.append(f'<path class="rule" d="M{place:.1f} {ABOVE + 12}V{high - 14}"/>')
        parts.append(f'<text class="strong" x="{place:.1f}" y="{ABOVE + 4}" text-anchor="middle">{escape(name)}</text>')
        parts += [f'<text class="small" x="{place + 5:.1f}" y="{y + 3:.1f}">{escape(word)}</text>' for word, y in marks]
    for entry in sorted(known, key=lambda e: e is best):
        kind = " best" if entry is best else " pruned" if entry.state == "pruned" else ""
        line = " ".join(f"{x:.1f},{scale(entry):.1f}" for x, scale in zip(places, scales, strict=True))
        parts.append(_hit(f'<polyline class="trial{kind}" points="{line}"/>', entry))
    return svg(parts, f"settings of {len(known)} trials beside their {metric}; the best: {best.label}", wide, high)


def _axis(values: Sequence[Any], high: int) -> tuple[Callable[[Any], float], list[tuple[str, float]]]:
    """The height of each value on an axis, and its marks; numbers by size (by their logarithm if far apart)."""
    flat = [max(v) if isinstance(v, (list, tuple)) and v and not isinstance(v[0], (str, dict)) else v for v in values]
    numbers = [v for v in flat if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == len(flat):
        log = min(numbers) > 0 and max(numbers) / min(numbers) > 20
        take: Place = math.log if log else float
        low, top = take(min(numbers)), take(max(numbers))
        to = _scale(low, top, high - 22, ABOVE + 22)
        ends = sorted({min(numbers), max(numbers)})
        return (lambda v: to(take(max(v) if isinstance(v, (list, tuple)) else v))), [
            (f"{end:.3g}", to(take(end))) for end in ends]  # fmt: skip
    words = sorted({str(label(v)) for v in values})
    step = (high - ABOVE - 44) / max(1, len(words) - 1)
    heights: Mapping[str, float] = {word: ABOVE + 22 + i * step for i, word in enumerate(words)}
    return (lambda v: heights[str(label(v))]), list(heights.items())


def _scale(low: float, high: float, start: float, end: float) -> Place:
    wide = (high - low) or 1.0
    return lambda value: start + (value - low) / wide * (end - start)


def _range(values: Sequence[float]) -> tuple[float, float]:
    room = 0.08 * (max(values) - min(values)) or 0.02
    return max(0.0, min(values) - room), max(values) + room


def _frame(low: float, high: float, y: Place, metric: str) -> list[str]:
    marks = [low + i * (high - low) / 4 for i in range(5)]
    rules = [f'<path class="rule" d="M{LEFT} {y(t):.1f}H{WIDE - RIGHT}"/><text x="{LEFT - 6}" y="{y(t) + 4:.1f}" '
             f'text-anchor="end">{t:.3f}</text>' for t in marks]  # fmt: skip
    return [*rules, f'<text x="{LEFT - 6}" y="14" text-anchor="end">{escape(metric)}</text>']


def _hit(drawn: str, entry: Entry) -> str:
    """What is drawn of a trial, whose name shows while the pointer is on it."""
    score = "" if entry.last is None else f" {entry.last:.3f}"
    words = escape(f"{entry.stage} {entry.number}: {entry.label}{score}")
    return f'<g class="hit">{drawn}<text x="{LEFT + 6}" y="14">{words}</text></g>'

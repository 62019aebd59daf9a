"""Scores as the tables that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastseg.hierarchy import Hierarchy


def score_table(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    """The table people read: the mean of each level, then its classes, best first; then scores by size."""
    lines = [heading(scores, tree), f"{'':<20}  IoU  95 % interval   precision  recall"]
    intervals = scores.get("intervals") or {}
    for level in range(tree.depth):
        lines.append(f"{f'miou{level}':<20}{_shown(scores[f'miou{level}'])}{_span(intervals.get(f'miou{level}'))}")
        names = [tree.names(level)[node] for node in tree.foreground(level)]
        for name in sorted(names, key=lambda n: -(scores["classes"][n]["iou"] or 0)):
            entry, span = scores["classes"][name], _span(intervals.get("classes", {}).get(name))
            shown = _shown(entry["iou"]) + (span or " " * 16) + f"{_shown(entry['precision'], '–'):>10}"
            lines.append(f"    {name:<16}{shown}{_shown(entry['recall'], '–'):>8}".rstrip())
    if scores.get("boundary"):
        means = "  ".join(f"miou{level} {_shown(scores['boundary'][f'miou{level}'])}" for level in range(tree.depth))
        lines.append(f"boundary IoU, {scores['boundary']['width']:.0%} of the diagonal: {means}")
    for name, part in (scores.get("by_size") or {}).items():
        means = "  ".join(f"miou{level} {_shown(part[f'miou{level}'])}" for level in range(tree.depth))
        share = name.replace("-", " to ").replace("%", " %").replace("<", "under ").replace(">", "over ")
        lines.append(
            f"body {share} of the photograph: {part['images']} photographs" + f"  {means}" * (part["images"] > 0)
        )
    return "\n".join(lines)


def comparison_table(found: Mapping[str, Any], tree: Hierarchy) -> str:
    """The table people read: for each run after the first, how its scores differ from the first one's."""
    lines = [f"{heading(found, tree)}; {found['confidence']:.0%} intervals of paired differences"]
    for other, delta in enumerate(found["differences"], 1):
        ours, theirs = found["scores"][other], found["scores"][0]
        lines.append(f"\n{found['runs'][other]} against {found['runs'][0]}")
        for level in range(tree.depth):
            key = f"miou{level}"
            lines.append(_change(key, theirs[key], ours[key], delta[key]))
            for node in tree.foreground(level):
                name = tree.names(level)[node]
                values = (theirs["classes"][name], ours["classes"][name], delta["classes"][name])
                lines.append(_change(f"    {name}", *values))
    return "\n".join(lines)


def proof_table(proof: Mapping[str, Any]) -> str:
    """The lines people read of an exported file: what it is, and how it compares with PyTorch."""
    size = "any size" if proof["size"] is None else "x".join(map(str, proof["size"]))
    inside = ", preprocessing inside" if proof["preprocessing"] else ""
    of = "confidence" if proof["preprocessing"] else "logits"
    lines = [f"{proof['file']}: {proof['format']}, {proof['precision']}, {size}{inside}, {proof['bytes'] / 1e6:.1f} MB",
             f"{proof['photographs']} photographs, {proof['runtime']} against PyTorch",
             f"equal pixels         {proof['equal_pixels']:.3%}; largest difference of {of} "
             f"{proof['largest_difference']:g}"]  # fmt: skip
    for key, value in proof["before"].items():
        lines.append(f"{key:<20} {_shown(value)} → {_shown(proof['after'][key])}")
    if proof["precision"] == "int8":
        kept = proof["float_operators"]
        lines.append(f"in int8              {proof['int8_operators']} operators; in float {len(kept)}")
        lines += [f"    {name}" for name in kept]
    return "\n".join(lines)


def benchmark_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table people read of a benchmark: fastest first, with what each way costs in scores."""
    levels = [key for key in rows[0] if key.startswith("miou")]
    head = ["", "p50 ms", "p95 ms", "photos/s", "peak MB", *levels]
    lines = []
    for row in rows:
        if row["note"]:
            continue
        times = [f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "photographs_per_second")]
        lines.append([row["runtime"], *times, f"{row['peak_mb']:.0f}", *(_shown(row[key]) for key in levels)])
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    table = ["  ".join(cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(line))
             for line in [head, *lines]]  # fmt: skip
    return "\n".join([*table, *(f"{row['runtime']}: {row['note']}" for row in rows if row["note"])])


def _change(name: str, before: float | None, after: float | None, delta: Mapping[str, Any]) -> str:
    line = f"{name:<20}{_shown(before)} → {_shown(after)}"
    if delta["value"] is not None:
        line += f"  {delta['value']:+.3f}"
    return line + (f"  ({delta['interval'][0]:+.3f} to {delta['interval'][1]:+.3f})" if delta["interval"] else "")


def heading(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    """What the numbers are of, in a line."""
    parts = [f"{scores['images']} photographs", f"{scores['split']} split", f"{scores['protocol']} size"]
    parts += [f"{scores['definition']} definition"]
    parts += [f"{scores['decode']} decoding"] if scores["decode"] else []
    parts += [f"averaged over {scores['tta']}"] if scores.get("tta") else []
    return ", ".join([*parts, "no background in the tree" if tree.background is None else "background excluded"])


def _shown(value: float | None, nothing: str = "absent") -> str:
    return nothing if value is None else f"{value:.3f}"


def _span(bounds: Sequence[float] | None) -> str:
    return f"  {bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""

"""What `check` found, as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastseg.data.checking.census import LARGE, SMALL, percent
from fastseg.data.checking.findings import KINDS, Finding, by_kind, tally

SHOWN = 5
# A matrix of more classes than this no longer fits a terminal.
MOST_COLUMNS = 12


def text_table(root: str, findings: Sequence[Finding], numbers: Mapping[str, Any]) -> str:
    """Findings by kind, then classes by level, sizes, who appears with whom, and the strangest photographs."""
    counts = numbers["photographs"]
    lines = [f"{root}: {counts['train']:,} ids to train on, {counts['valid']:,} to validate on", ""]
    for (severity, kind), group in by_kind(list(findings)).items():
        lines.append(f"{severity}: {kind} ({len(group):,}): {KINDS[kind][1]}")
        lines += [f"    {finding.message}" for finding in group[:SHOWN]]
        lines += [f"    and {len(group) - SHOWN:,} more"] if len(group) > SHOWN else []
    lines += [""] if findings else []
    if numbers["masks_read"]:
        for level, rows in enumerate(numbers["levels"]):
            lines += [*_classes(level, rows), ""]
        lines += [*_sizes(numbers), "", *_together(numbers["cooccurrence"]), ""]
        lines += [*_strangest(numbers["strangest"]), ""] if numbers["strangest"] else []
    return "\n".join([*lines, tally(list(findings))])


def _classes(level: int, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["", "pixels", "share", "of people", "train", "valid", "photographs", "median", "fewest pixels", "vanishes"]
    table = [head]
    for row in rows:
        seen, fewest = row["photographs"], row["fewest"]
        table.append([
            row["name"], f"{row['pixels']:,}", percent(row["share"]), percent(row["share_of_people"]),
            *(percent(row["share_by_split"][split]) for split in ("train", "valid")),
            f"{seen['train']:,} + {seen['valid']:,}", percent(row["median_share"]),
            f"{fewest['pixels']:,} in {fewest['id']}" if fewest else "–", f"{row['vanishes']:,}",
        ])  # fmt: skip
    return _aligned(f"level {level}", table)


def _sizes(numbers: Mapping[str, Any]) -> list[str]:
    sizes, people, pixels = numbers["sizes"], numbers["people"], numbers["pixels"]
    common = ", ".join(f"{row['height']}x{row['width']} ({row['photographs']:,})" for row in sizes["counted"][:4])
    sides = ", ".join(
        f"{key} {sizes[key]['least']} to {sizes[key]['most']}, median {sizes[key]['median']:.0f}"
        for key in ("height", "width")
    )
    usual = f", median {percent(people['share']['median'])} of a photograph" if people["share"] else ""
    return [
        f"sizes       {sizes['distinct']:,} different (height x width); {sides}; most frequent {common}",
        f"people      cover less than {100 * SMALL:.0f} % of {people['small']:,} photographs, "
        f"up to {100 * LARGE:.0f} % of {people['middling']:,}, more of {people['large']:,}, nothing of "
        f"{people['none']:,}{usual}",
        f"no class    {percent(pixels['ignored_share'])} of all pixels are 255",
    ]


def _together(matrix: Mapping[str, Any]) -> list[str]:
    names = matrix["classes"]
    if len(names) > MOST_COLUMNS:
        return [f"photographs that show two classes together: {len(names)} classes, see --json or --report"]
    table = [["", *names]]
    table += [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, matrix["photographs"], strict=True)]
    return _aligned("photographs with both", table)


def _strangest(strange: Sequence[Mapping[str, Any]]) -> list[str]:
    width = max(len(entry["id"]) for entry in strange)
    return [
        "strangest photographs",
        *(f"    {entry['id']:<{width}}  {'; '.join(entry['reasons'])}" for entry in strange),
    ]


def _aligned(title: str, table: list[list[str]]) -> list[str]:
    table[0][0] = title
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return lines

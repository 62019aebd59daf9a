"""What `check` found, as one page with pictures that needs nothing else: no network, no script."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fastseg.data.checking.census import LARGE, SMALL, percent
from fastseg.data.checking.charts import histogram, size_scatter
from fastseg.data.checking.examine import Look
from fastseg.data.checking.findings import KINDS, Finding, by_kind
from fastseg.data.framing import MaskFraming
from fastseg.data.pictures import read_image, read_mask
from fastseg.errors import InputError
from fastseg.overlays import overlay
from fastseg.pages import charts
from fastseg.pages.document import document, jpeg_url
from fastseg.writing import write_text

if TYPE_CHECKING:
    from fastseg.data.check import Report

THUMB = 240
EXAMPLES = 12
# Of a kind of finding: so many with pictures, and so many named at all.
PICTURED, NAMED = 6, 200


def write_page(report: Report, path: Path) -> Path:
    """Write the page under a temporary name, then rename it. Raises `InputError` where it cannot be written."""
    text = page(report)
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write the report {path}: {error.strerror}; name another file") from None
    return path


def page(report: Report) -> str:
    """The page as HTML."""
    numbers = report.statistics
    counts = numbers["photographs"]
    state = "bad" if report.errors else "fair" if report.warnings else "good"
    parts = [
        f"<header><h1>{escape(report.root)}</h1><p class='tally {state}'>{escape(report.tally)}</p>"
        f"<p>{counts['train']:,} ids to train on, {counts['valid']:,} to validate on; {numbers['masks_read']:,} masks "
        f"counted; the network sees {report.size[0]}x{report.size[1]} (height x width).</p></header>",
        _findings(report),
    ]
    if numbers["masks_read"]:
        parts += [_classes(report), _sizes(report), _together(numbers["cooccurrence"]), _strangest(report),
                  _examples(report)]  # fmt: skip
    return document(f"{Path(report.root).name}: {report.tally}", parts)


def _findings(report: Report) -> str:
    if not report.findings:
        return "<section><h2>Findings</h2><p>Nothing is wrong.</p></section>"
    cards = []
    for (severity, kind), group in by_kind(report.findings).items():
        items = "".join(f"<li>{escape(finding.message)}</li>" for finding in group[:NAMED])
        if len(group) > NAMED:
            items += f"<li>and {len(group) - NAMED:,} more</li>"
        listed = f"<ul>{items}</ul>"
        if len(group) > PICTURED:
            listed = f"<details><summary>all {len(group):,}</summary>{listed}</details>"
        pictures = "".join(_pictured(report, finding) for finding in group[:PICTURED])
        cards.append(
            f"<article class='{severity}'><h3><em>{severity}</em> {escape(kind)} <small>{len(group):,}</small></h3>"
            f"<p>{escape(KINDS[kind][1])}</p><div class='grid'>{pictures}</div>{listed}</article>"
        )
    return f"<section><h2>Findings</h2><div class='cards'>{''.join(cards)}</div></section>"


def _pictured(report: Report, finding: Finding) -> str:
    """The finding's photograph under its mask; beside it the one that it is like, both bare to be compared."""
    if finding.other:
        pair = [
            _figure(report, name, f"{name} ({', '.join(s for s, ids in report.splits.items() if name in ids)})", False)
            for name in (finding.name, finding.other)
        ]
        return f"<div class='pair'>{''.join(pair)}</div>"
    if finding.name in report.looks:
        return _figure(report, finding.name, finding.name)
    # A photograph that no list has can be shown, a mask alone not.
    if finding.kind == "photograph without id":
        return _figure(report, finding.name, finding.name, look=Look(finding.name, image=Path(finding.path)))
    return ""


def _figure(report: Report, name: str, caption: str, covered: bool = True, look: Look | None = None) -> str:
    picture = thumbnail(look or report.looks[name], report, covered)
    inside = f'<img src="{picture}" alt="{escape(name)}" loading="lazy">' if picture else "<div class='none'></div>"
    return f"<figure>{inside}<figcaption>{escape(caption)}</figcaption></figure>" if picture else ""


def thumbnail(look: Look, report: Report, covered: bool = True) -> str | None:
    """A small JPEG as a data URL, with its mask laid over where there is one; None where nothing can be shown."""
    if look.image is None:
        return None
    try:
        image = read_image(look.image, look.shape)
    except Exception:  # What is broken was found before; here it only has no picture.
        try:
            image = read_image(look.image)
        except Exception:
            return None
        covered = False
    image.thumbnail((THUMB, THUMB), Image.Resampling.BOX)
    pixels = np.asarray(image)
    if covered and look.counts is not None:
        ids = MaskFraming(pixels.shape[:2]).mask(read_mask(look.mask, len(report.tree)))
        pixels = overlay(pixels, ids, report.tree, alpha=0.55)
    return jpeg_url(Image.fromarray(pixels))


def _classes(report: Report) -> str:
    """For each level shares, photographs, and what is rare."""
    parts = ["<section><h2>Classes, level by level</h2><p>Shares are of all pixels that have a class; bars compare "
             "the classes without background. Train and valid stand side by side: they should agree.</p>"]  # fmt: skip
    head = ["class", "pixels", "share", "of the people", "train", "valid", "photographs (train + valid)",
            "median share where it is", "fewest pixels", f"gone at {report.size[0]}x{report.size[1]}"]  # fmt: skip
    shown = max(report.statistics["masks_read"], 1)
    for level, rows in enumerate(report.statistics["levels"]):
        colours = report.tree.colours(level)
        most = max([row["share"] or 0 for row in rows if not row["background"]] or [0]) or 1
        body = []
        for row, rgb in zip(rows, colours, strict=True):
            seen, fewest, colour = row["photographs"], row["fewest"], charts.css(rgb)
            split = {s: share or 0 for s, share in row["share_by_split"].items()}
            plain = row["background"]
            cells = [
                charts.bar(0 if plain else split[s] / most, colour, percent(row["share_by_split"][s])) for s in split
            ]
            body.append([
                f"{charts.swatch(rgb)} {escape(row['name'])}", f"{row['pixels']:,}", percent(row["share"]),
                percent(row["share_of_people"]), *cells,
                charts.bar(seen["all"] / shown, colour, f"{seen['train']:,} + {seen['valid']:,}"),
                percent(row["median_share"]),
                f"{fewest['pixels']:,} <small>in {escape(fewest['id'])}</small>" if fewest else "–",
                f"{row['vanishes']:,}",
            ])  # fmt: skip
        parts.append(f"<h3>Level {level}</h3>{charts.table(head, body, 'classes', f'classes of level {level}')}")
    return "".join([*parts, "</section>"])


def _sizes(report: Report) -> str:
    sizes, people, pixels = (report.statistics[key] for key in ("sizes", "people", "pixels"))
    spread = "; ".join(
        f"{name} {sizes[key]['least']:{form}} to {sizes[key]['most']:{form}} (median {sizes[key]['median']:{form}})"
        for name, key, form in (
            ("height", "height", ".0f"),
            ("width", "width", ".0f"),
            ("width to height", "aspect", ".2f"),
        )
    )
    usual = f" The median is {percent(people['share']['median'])}." if people["share"] else ""
    return (
        "<section><h2>Sizes</h2><div class='two'>"
        f"<div><h3>Photographs</h3><p>{sizes['distinct']:,} different sizes: {spread}. The square is what the network "
        f"sees.</p>{size_scatter(sizes, report.size)}</div>"
        f"<div><h3>People</h3><p>They cover less than {100 * SMALL:.0f} % of {people['small']:,} photographs, up to "
        f"{100 * LARGE:.0f} % of {people['middling']:,}, more of {people['large']:,}, and nothing of "
        f"{people['none']:,}.{usual} {percent(pixels['ignored_share'])} of all pixels are 255, no class.</p>"
        f"{histogram(people['histogram'], ['0 %', '25 %', '50 %', '75 %', '100 %'], 'part of the photograph')}"
        "</div></div></section>"
    )


def _together(matrix: Mapping[str, Any]) -> str:
    names, counted = matrix["classes"], matrix["photographs"]
    shares = [[count / (row[place] or 1) for count in row] for place, row in enumerate(counted)]
    words = [[f"{count:,}" for count in row] for row in counted]
    return (
        "<section><h2>Who appears with whom</h2><p>Photographs that show both classes; the stronger the colour, the "
        f"larger a part of those with the row's class.</p>"
        f"{charts.heat(names, shares, words, 'photographs that show both classes')}</section>"
    )


def _strangest(report: Report) -> str:
    strange = report.statistics["strangest"]
    if not strange:
        return ""
    figures = "".join(_figure(report, one["id"], f"{one['id']}: {'; '.join(one['reasons'])}") for one in strange)
    return (
        "<section><h2>The strangest photographs</h2><p>Furthest from the others in the area of their people, aspect, "
        f"brightness, contrast, number and mixture of classes.</p>"
        f"{charts.legend(report.tree)}<div class='grid'>{figures}</div></section>"
    )


def _examples(report: Report) -> str:
    names = [name for name, look in report.looks.items() if look.counts is not None and look.thumb is not None]
    chosen: Sequence[str] = random.Random(0).sample(names, min(EXAMPLES, len(names)))
    figures = "".join(_figure(report, name, name) for name in chosen)
    return f"<section><h2>Some at random</h2>{charts.legend(report.tree)}<div class='grid'>{figures}</div></section>"

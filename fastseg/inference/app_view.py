"""What the page shows of a photograph: its classes at every level, as numbers, and as HTML that `app.js` draws on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.predict import Prediction
from fastseg.overlays import palette
from fastseg.pages.document import data_url, jpeg_url

# Pixels a side of what is sent to be looked at; the files to download have the photograph's own size.
SIDE = 1280
OPACITY = 60
RAMP = "<p class='fs-ramp' hidden>0 %<i></i>100 %<span>probability of the chosen class</span></p>"
EMPTY = "<p class='fs-hint'>The masks appear here.</p>"


def areas(prediction: Prediction, level: int = -1) -> list[dict[str, Any]]:
    """For each node of a level, background included: pixels, their share of the photograph, mean confidence there."""
    tree, leaves = prediction.hierarchy, prediction.ids.ravel()
    at = tree.level(level)
    pixels = np.bincount(leaves, minlength=len(tree))
    sums = np.bincount(leaves, prediction.confidence.ravel(), minlength=len(tree))
    found = []
    for node, name in enumerate(at.names):
        members = at.members(node)
        count = int(pixels[members].sum())
        mean = round(float(sums[members].sum()) / count, 4) if count else None
        found.append({"id": node, "name": name, "pixels": count, "share": round(count / leaves.size, 6),
                      "confidence": mean})  # fmt: skip
    return found


def mask_png(prediction: Prediction, level: int = -1) -> bytes:
    """An 8-bit palette PNG (H, W) whose values are the node ids of a level, in the level's colours."""
    image = Image.fromarray(prediction.level(level), "P")
    image.putpalette(palette(prediction.hierarchy, level))
    return _png(image)


def cutout_png(photograph: Image.Image, prediction: Prediction) -> bytes:
    """An RGBA PNG (H, W): all that is not background, which is not only transparent but gone."""
    pixels, background = np.array(photograph.convert("RGBA")), prediction.hierarchy.background
    if background is not None:
        pixels[prediction.ids == background] = 0
    return _png(Image.fromarray(pixels))


def checked_level(tree: Hierarchy, level: Any) -> int:
    """A level that a program asks for; none is the deepest. Raises `InputError` for one that the tree has not."""
    if level is None:
        return tree.depth - 1
    if isinstance(level, bool) or not isinstance(level, (int, float)) or level != level // 1:
        raise InputError(f"level: a whole number is expected; the tree has levels 0 to {tree.depth - 1}")
    tree.level(int(level))
    return range(tree.depth)[int(level)]


def view_html(photograph: Image.Image, prediction: Prediction) -> str:
    """The photograph with its masks, the switches for them, and the table of areas of every level."""
    tree = prediction.hierarchy
    wide, high = photograph.size
    scale = min(1.0, SIDE / max(wide, high))
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    ids = Image.fromarray(prediction.ids).resize(size, Image.Resampling.NEAREST)
    percent = np.round(prediction.confidence * 100).astype(np.uint8)
    confidence = Image.fromarray(percent).resize(size, Image.Resampling.NEAREST)
    facts = json.dumps(_tree_facts(tree))
    pictures = f"data-ids='{data_url(_png(ids), 'png')}' data-confidence='{data_url(_png(confidence), 'png')}'"
    return (
        f"<section class='fs-view' aria-label='masks' data-tree='{escape(facts, quote=True)}' {pictures}>"
        f"<div class='fs-stage'><img src='{jpeg_url(photograph.resize(size, Image.Resampling.BOX))}' "
        f"width={size[0]} height={size[1]} alt='The photograph, {wide} × {high} pixels'><canvas></canvas></div>"
        f"<p class='fs-read'><output>Point at the picture, or at a class below.</output></p>"
        f"<div class='fs-switches'>{_levels(tree)}{_shows()}<label class='fs-range'>Opacity "
        f"<input type=range name=opacity min=0 max=100 step=5 value={OPACITY}><output>{OPACITY} %</output></label>"
        f"{RAMP}</div>{''.join(_table(tree, level, areas(prediction, level)) for level in range(tree.depth))}"
        "<div class='fs-all'><button type=button data-all=1>Show all classes</button>"
        "<button type=button data-all=0>Hide all</button></div></section>"
    )  # fmt: skip


def message_html(message: str) -> str:
    """A message in the place of the masks."""
    return f"<p class='fs-error' role='alert'>{escape(message[:1].upper() + message[1:])}.</p>"


def heading_html(name: str, card: Mapping[str, Any], scores: Mapping[str, Any], limits: str) -> str:
    """The top of the page: what network this is, and how well it did by which ruler."""
    model, size = card.get("model", {}), card["size"]
    network = f"{model.get('arch', 'A network')} on {model.get('encoder', 'its encoder')}"
    keys = [key for key in scores if key.startswith("miou") and scores[key] is not None]
    means = ", ".join(f"{key} {scores[key]:.3f}" for key in sorted(keys))
    said = f" {means} on {scores['images']:,} photographs ({scores['definition']} definition, " \
           f"{scores['protocol']} size)." if means else ""  # fmt: skip
    text = f"{network}, which sees {size[0]}x{size[1]} pixels (height x width).{said} Photographs {limits}; " \
           "none is kept for long."  # fmt: skip
    return f"<header class='fs-head'><h1>{escape(name)}</h1><p>{escape(text)}</p></header>"


def _tree_facts(tree: Hierarchy) -> dict[str, Any]:
    """What the script needs of the tree."""
    levels = [
        {"names": [_words(name) for name in at.names], "table": list(at.table), "shown": tree.foreground(level),
         "colours": tree.colours(level).tolist()}
        for level, at in enumerate(tree.levels)
    ]  # fmt: skip
    return {"levels": levels, "background": tree.background}


def _levels(tree: Hierarchy) -> str:
    deepest = tree.depth - 1
    marks = "".join(
        f"<label><input type=radio name=fs-level value={level}{' checked' * (level == deepest)}>"
        f"{level}<small>{_count(tree, level)}</small></label>" for level in range(tree.depth)
    )  # fmt: skip
    return f"<fieldset class='fs-levels'><legend>Level</legend>{marks}</fieldset>"


def _count(tree: Hierarchy, level: int) -> str:
    names = [tree.names(level)[node] for node in tree.foreground(level)]
    return escape(_words(names[0])) if len(names) == 1 else f"{len(names)} classes"


def _shows() -> str:
    kinds = (("masks", "Masks"), ("confidence", "Confidence"), ("nothing", "Photograph"))
    marks = "".join(f"<label><input type=radio name=fs-show value={kind}{' checked' * (kind == 'masks')}>{said}</label>"
                    for kind, said in kinds)  # fmt: skip
    return f"<fieldset class='fs-shows'><legend>Show</legend>{marks}</fieldset>"


def _table(tree: Hierarchy, level: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """The legend of a level, which switches its classes, with their areas."""
    colours, shown = tree.colours(level), tree.foreground(level)
    lines = []
    for row in sorted(rows, key=lambda row: (row["id"] not in shown, -row["pixels"])):
        name, node = escape(_words(row["name"])), row["id"]
        rgb = ",".join(str(int(value)) for value in colours[node])
        label = (f"<label><input type=checkbox checked data-node={node}><i style='background:rgb({rgb})'></i>{name}"
                 "</label>" if node in shown else f"<span>{name}</span>")  # fmt: skip
        sure = "–" if row["confidence"] is None else f"{row['confidence']:.0%}"
        lines.append(f"<tr data-node={node}><th scope=row>{label}</th><td>{row['share']:.1%}</td>"
                     f"<td>{row['pixels']:,}</td><td>{sure}</td></tr>")  # fmt: skip
    head = "".join(f"<th scope=col>{said}</th>" for said in ("class", "area", "pixels", "confidence"))
    hidden = " hidden" * (level != tree.depth - 1)
    return (f"<table class='fs-areas' data-level={level}{hidden}><caption>Areas at level {level}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")  # fmt: skip


def _words(name: str) -> str:
    return name.replace("_", " ")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()

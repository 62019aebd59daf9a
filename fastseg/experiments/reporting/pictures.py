"""Best, median and worst photographs with truth and prediction, at a level that is chosen on the page.

The switch is a group of radio buttons and the style alone, so it works by keyboard and without a script.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from fastseg.experiments.examples import GROUPS, Example
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy
from fastseg.overlays import IGNORED_GREY
from fastseg.pages.charts import legend
from fastseg.pages.document import data_url, jpeg_url
from fastseg.plots import level_words

OPACITY = 165
WRONG = (213, 0, 50)


def pictures_section(examples: Sequence[Example], tree: Hierarchy) -> str:
    """The section; without examples it says so."""
    top = "<section id='photographs'><h2>Photographs</h2>"
    if not examples:
        return f"{top}<p>There are no example photographs in the run folder.</p></section>"
    deepest = tree.depth - 1
    choices = "".join(
        f"<label><input type='radio' name='level' value='{level}' id='level-{level}'"
        f"{' checked' if level == deepest else ''}> level {level} <small>({escape(level_words(tree, level))})</small>"
        "</label>"
        for level in range(tree.depth)
    )
    shown = "".join(
        f"#photographs:has(#level-{level}:checked) .at-{level}{{display:block}}" for level in range(tree.depth)
    )
    # Where a browser does not know :has, the leaves are shown.
    shown += f"@supports not selector(:has(a)){{.at-{deepest}{{display:block}}}}"
    legends = "".join(legend(tree, level, f"level at-{level}") for level in range(tree.depth))
    groups = []
    for group in GROUPS:
        own = [one for one in examples if one.group == group]
        if own:
            groups.append(f"<h3>{group.capitalize()}</h3>{''.join(_example(one, tree) for one in own)}")
    return (
        f"{top}<style>{shown}</style><p>Sorted by each photograph's own mean IoU over level {deepest}.</p>"
        f"<fieldset><legend>Level shown</legend>{choices}</fieldset><div class='legends'>{legends}</div>"
        f"{''.join(groups)}</section>"
    )


def _example(one: Example, tree: Hierarchy) -> str:
    name, (high, wide) = escape(one.name, quote=True), one.truth.shape
    levels = range(tree.depth)
    panels = (
        ("photograph", []),
        ("truth", [colour_mask(one.truth, tree, level) for level in levels]),
        ("prediction", [colour_mask(one.predicted, tree, level) for level in levels]),
        ("wrong pixels", [wrong_mask(one.truth, one.predicted, tree, level) for level in levels]),
    )
    bare = f"role='img' aria-label='photograph {name}'"
    figures = "".join(
        f"<figure><div class='stack' style='aspect-ratio:{wide}/{high}' {'' if masks else bare}>"
        f"{''.join(_layer(mask, level, f'{what} of {name}, level {level}') for level, mask in enumerate(masks))}</div>"
        f"<figcaption>{what}</figcaption></figure>"
        for what, masks in panels
    )
    # The photograph is in the page once, behind all four.
    photo = jpeg_url(Image.fromarray(one.image), 80)
    return (
        f"<article class='example' style='--photo:url({photo})'><h4>{escape(one.name)} "
        f"<small>mean IoU {one.score:.3f}</small></h4><div class='panels'>{figures}</div></article>"
    )


def _layer(mask: bytes, level: int, words: str) -> str:
    return f"<img class='level at-{level}' src='{data_url(mask, 'png')}' alt='{words}'>"


def colour_mask(ids: np.ndarray, tree: Hierarchy, level: int) -> bytes:
    """Leaf ids (H, W) → a PNG of a level's colours that a photograph shines through; background is clear."""
    palette, opacity = np.full((256, 3), IGNORED_GREY, np.uint8), np.zeros(256, np.uint8)
    palette[: len(tree.names(level))] = tree.colours(level)
    opacity[[*tree.foreground(level), IGNORE_INDEX]] = OPACITY
    return _png(tree.merge(ids, level), palette, opacity)


def wrong_mask(truth: np.ndarray, guess: np.ndarray, tree: Hierarchy, level: int) -> bytes:
    """A PNG that is red where a level's classes differ; pixels without a class count for nothing."""
    wrong = (tree.merge(truth, level) != tree.merge(guess, level)) & (truth != IGNORE_INDEX)
    palette, opacity = np.zeros((256, 3), np.uint8), np.zeros(256, np.uint8)
    palette[1], opacity[1] = WRONG, OPACITY + 40
    return _png(wrong.astype(np.uint8), palette, opacity)


def _png(nodes: np.ndarray, palette: np.ndarray, opacity: np.ndarray) -> bytes:
    picture = Image.fromarray(nodes.astype(np.uint8))
    picture.putpalette(palette.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=opacity.tobytes(), optimize=True)
    return file.getvalue()

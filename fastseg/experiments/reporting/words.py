"""What a run's page says in words: what must be known before it is believed, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape


def caveats_html(found: Iterator[tuple[str, str]]) -> str:
    """Cards of what must be known."""
    cards = "".join(f"<article class='{kind}'><p><em>{kind}</em> {escape(said)}</p></article>" for kind, said in found)
    top = "<section id='beware'><h2>Before you believe it</h2>"
    return f"{top}<div class='cards'>{cards}</div></section>" if cards else ""


def meanings_html(found: list[tuple[str, str]]) -> str:
    """The list of terms."""
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(said)}</dd>" for term, said in found)
    return f"<section id='meaning'><h2>What the numbers mean</h2><dl>{terms}</dl></section>"

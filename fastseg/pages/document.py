"""One HTML page that needs nothing else: its style inside, pictures as data URLs, no script, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources

from PIL import Image


def document(title: str, parts: Sequence[str], *styles: str) -> str:
    """A whole page of parts that are HTML already; `styles` are added to the style that all pages share."""
    shared = resources.files("fastseg.pages").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{''.join([shared, *styles])}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def jpeg_url(image: Image.Image, quality: int = 82) -> str:
    """A picture as the data URL of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return data_url(file.getvalue(), "jpeg")


def data_url(content: bytes, kind: str) -> str:
    """The bytes of an image file, `jpeg` or `png`, as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

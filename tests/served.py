"""A page that is served, seen from outside: what the tests of its parts share."""

import json
import re
import shutil
import socket
import struct
import zlib

import numpy as np
import pytest

from fastseg.inference.uploads import Limits

LIMITS = Limits(file_bytes=300_000, pixels=1_000_000, queue=20, keep_seconds=600)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def bomb(path, side=60_000):
    """A PNG of a few bytes that says it has billions of pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
                     + chunk(b"IEND", b""))  # fmt: skip
    return path


def ask(address, way, body=None, **headers):
    """(status, text) of a request."""
    import httpx

    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    found = httpx.request("GET" if body is None else "POST", f"{address}{way}", headers=headers, timeout=60, **sent)
    return found.status_code, found.text


def upload(address, path):
    """The path that a server gives an uploaded file."""
    import httpx

    found = httpx.post(f"{address}/gradio_api/upload", files={"files": (path.name, path.read_bytes())}, timeout=60)
    return found.status_code, found.json()[0] if found.status_code == 200 else found.text


def predict(address, path, level=-1):
    """The last event of a prediction: its kind and its data."""
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, level]
    status, text = ask(address, "/gradio_api/call/predict", {"data": data})
    assert status == 200, text
    _, text = ask(address, f"/gradio_api/call/predict/{json.loads(text)['event_id']}")
    kind, answer = re.findall(r"event: (\w+)\ndata: (.*)", text)[-1]
    return kind, json.loads(answer)


class opened:
    """A context with a page in it."""

    def __init__(self, chromium, address, **options):
        self.context, self.address, self.outside = chromium.new_context(**options), address, []
        self.context.set_default_timeout(60_000)

    def __enter__(self):
        page = self.context.new_page()
        page.on("request", lambda asked: self.outside.append(asked.url) if not self._own(asked.url) else None)
        page.goto(self.address)
        page.get_by_text("The masks appear here.").wait_for()
        return page

    def __exit__(self, *_):
        self.context.close()
        assert self.outside == []

    def _own(self, url):
        return url.startswith((self.address, "data:", "blob:"))


def send(page, path, wait="[data-drawn]"):
    """Give a photograph to the page and wait for what comes."""
    page.set_input_files("input[type=file]", str(path))
    if wait:
        page.locator(wait).wait_for()


def canvas(page):
    """Colours of the mask's canvas, (H, W, 4)."""
    found = page.locator(".fs-stage canvas").evaluate(
        "c => [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)


def expected(prediction, level, hidden=()):
    tree, ids = prediction.hierarchy, prediction.level(level)
    shown = [node for node in tree.foreground(level) if node not in hidden]
    colours = np.zeros((len(tree.names(level)), 4), np.uint8)
    colours[shown] = np.concatenate([tree.colours(level)[shown], np.full((len(shown), 1), 255)], 1)
    return colours[ids]

"""What a page's server answers at all: its own routes, asked by its own name, in small bodies that name no address."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# The routes that page and programs use. Gradio has more: some fetch addresses for whoever asks, edit the source, or
# look at the server.
ROUTES = re.compile(
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)?/?"
    r"|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info|openapi\.json|app_id|startup-events|theme\.css|upload|upload_progress|reset|cancel)/?"
    # What is not queued runs by this, such as an example that is clicked; what is queued, Gradio refuses there.
    r"|/gradio_api/run/predict/?"
    r"|/gradio_api/queue/(join|data)/?|/gradio_api/heartbeat/\w+|/gradio_api/call/\w+(/\w+)?/?"
    r"|/gradio_api/file=/.+"
)  # fmt: skip
UPLOAD = "/gradio_api/upload"
BODY = 1 << 20
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# Gradio's page writes styles and small scripts into itself; nothing may come from, or go to, anywhere else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "object-src 'none'; form-action 'self'"
)
HEADERS = ((b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
           (b"referrer-policy", b"no-referrer"))  # fmt: skip


class Guard:
    """ASGI middleware: 404 for other routes, 400 for another host's name, 413 for a body that is too large, and 400 for
    one that sends an address in the place of a file, which Gradio would fetch.

    `hosts` are the names that the server is asked by (None: any); an upload may have `upload_bytes`. A host's name is
    looked at so that no other site's name, led to this address, lets that site's scripts read what is here.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...] | None = LOOPBACK, upload_bytes: int = BODY):
        self.app, self.hosts, self.upload_bytes = app, hosts, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        host = re.sub(r":\d+$", "", headers.get(b"host", b"").decode("latin-1"))
        limit = self.upload_bytes if path.startswith(UPLOAD) else BODY
        length = headers.get(b"content-length", b"0")
        if self.hosts is not None and host not in self.hosts:
            await _answer(send, 400, "this server is asked by another name")
        elif not ROUTES.fullmatch(path):
            await _answer(send, 404, "there is nothing here")
        elif not length.isdigit() or int(length) > limit:
            await _answer(send, 413, f"too large: {limit} bytes are taken")
        elif path.startswith(UPLOAD) or scope["method"] != "POST":
            await self.app(scope, _limited(receive, limit), _with_headers(send))
        elif (body := await _whole(_limited(receive, limit))) is not None:
            if _names_address(body):
                await _answer(send, 400, "send the file itself, not its address")
            else:
                await self.app(scope, _again(body, receive), _with_headers(send))


def _limited(receive: Receive, limit: int) -> Receive:
    """A body that was not announced ends at the limit, as if its sender had gone."""
    seen = 0

    async def inner() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return inner


async def _whole(receive: Receive) -> bytes | None:
    """A body; None where its sender has gone."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then whatever comes."""
    given = False

    async def inner() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return inner


def _names_address(body: bytes) -> bool:
    """Whether some `path` in JSON is an address."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if re.match(r"\s*https?:", str(value.get("path", "")), re.IGNORECASE):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def _with_headers(send: Send) -> Send:
    async def inner(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return inner


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})

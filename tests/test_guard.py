"""What a page's server answers, and what it does not."""

import json
import socket
from pathlib import Path

import pytest
from served import ask, predict

from fastseg.inference.guard import ROUTES


def test_no_file_outside_is_readable(address, trained, monkeypatch):
    # As if started where the run is: Gradio once gave out whatever lay in the working folder.
    monkeypatch.chdir(trained)
    own = ("config.yaml", "model.safetensors", "examples/1.jpg")
    outside = [Path("/etc/passwd"), *(trained / name for name in own)]
    ways = [f"/gradio_api/file={path}" for path in outside]
    ways += ["/gradio_api/file=config.yaml", "/gradio_api/file=./model.json", "/file=/etc/passwd", "/etc/passwd",
             "/gradio_api/file/etc/passwd", "/static/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
             "/gradio_api/file=%2Fetc%2Fpasswd", "/gradio_api/file=//etc/passwd", "/svelte/..%2f..%2f..%2fetc%2fpasswd",
             "/gradio_api/file=/proc/self/environ", "/gradio_api/file=file:///etc/passwd"]  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.jpg"
        ways += [f"/gradio_api/file={url}", f"/gradio_api/proxy={url}"]
        for way in ways:
            assert raw(address, way) in (400, 403, 404), way
        for path in [*map(str, outside), url, "config.yaml"]:
            assert refused(address, path), path
        with pytest.raises(TimeoutError):
            server.accept()


def refused(address, path):
    """Whether a photograph at that path is not read."""
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, -1]
    if path.startswith("http"):
        return ask(address, "/gradio_api/call/predict", {"data": data})[0] == 400
    return predict(address, path)[0] == "error"


def raw(address, way):
    """The status of a path sent as it is written, where a client would tidy it up."""
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(f"GET {way} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return int(one.recv(100).split()[1])


def test_other_routes_other_names_and_large_bodies_are_refused(address):
    assert ask(address, "/config", Host="evil.example")[0] == 400
    assert ask(address, "/config", Host="localhost:7860")[0] == 200
    for way in ("/monitoring", "/docs", *(f"/gradio_api/{name}" for name in (
                "deep_link", "proxy=https://a.hf.space", "run/other", "vibe-code", "process_recording",
                "file=https://a.b/c"))):  # fmt: skip
        assert ask(address, way)[0] == 404, way
        assert not ROUTES.fullmatch(way)
    assert ask(address, "/gradio_api/call/predict", b"x" * (1 << 21))[0] == 413
    # What needs the network cannot go past the queue.
    queued = [fn for fn in json.loads(ask(address, "/config")[1])["dependencies"] if fn["queue"] is not False]
    assert len(queued) == 2
    for fn in queued:
        past = {"data": [None] * len(fn["inputs"]), "fn_index": fn["id"]}
        assert ask(address, "/gradio_api/run/predict", past)[0] == 404
    status, text = ask(address, "/gradio_api/queue/join", b"{}")
    assert (status, "Traceback" in text) == (422, False)

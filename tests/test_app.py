"""The page: what it takes and refuses, what it answers programs, and how it works in a browser."""

import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference.app import CURL, serving
from fastseg.inference.app_view import areas, cutout_png, mask_png, view_html
from fastseg.inference.guard import ROUTES
from fastseg.inference.predict import Predictor
from fastseg.inference.uploads import Limits, read_upload

LIMITS = Limits(file_bytes=300_000, pixels=1_000_000, queue=20, keep_seconds=600)


@pytest.fixture(scope="module")
def address(kept_run):
    """A page of a small run, as strangers see it."""
    here = os.getcwd()
    # As if started where the run is: Gradio once gave out whatever lay in the working folder.
    os.chdir(kept_run)
    try:
        with serving(kept_run, port=free_port(), limits=LIMITS) as found:
            yield found
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def photograph(people):
    """A photograph, 64x96."""
    return next(path for path in sorted((people / "JPEGImages").iterdir()) if Image.open(path).size == (96, 64))


@pytest.fixture(scope="module")
def predicted(kept_run, photograph):
    """It, and what the network makes of it."""
    image = Image.open(photograph).convert("RGB")
    return image, Predictor(kept_run).predict(image)


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


def test_a_photograph_of_any_kind_is_read_upright(tmp_path):
    image = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_upload(tmp_path / "turned.png", LIMITS).size == (6, 4)
    for mode, name in (("L", "a.jpg"), ("P", "a.gif"), ("RGBA", "a.webp"), ("CMYK", "a.tif"), ("1", "a.bmp")):
        image.convert(mode).save(tmp_path / name)
        read = read_upload(tmp_path / name, LIMITS)
        assert (read.mode, read.size) == ("RGB", (4, 6))


def test_what_is_no_photograph_is_refused_in_words(tmp_path, photograph):
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "half.jpg").write_bytes(photograph.read_bytes()[:-900])
    (tmp_path / "large.png").write_bytes(bytes(LIMITS.file_bytes + 1))
    (tmp_path / "draws.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    Image.new("1", (1500, 700)).save(tmp_path / "wide.png")
    cases = {"text.jpg": "not a photograph", "half.jpg": "breaks off", "large.png": "0.3 MB; photographs up to 0.3 MB",
             "wide.png": "1,500 × 700 pixels; photographs up to 0.3 MB and 1 megapixel",
             "draws.eps": "not a photograph", "away.jpg": "no longer here"}  # fmt: skip
    for name, said in cases.items():
        with pytest.raises(InputError, match=re.escape(said)):
            read_upload(tmp_path / name, LIMITS)
    for side in (5_000, 60_000):
        with pytest.raises(InputError, match=r"pixels; photographs|far too large"):
            read_upload(bomb(tmp_path / "bomb.png", side), LIMITS)


def test_areas_and_files_are_those_of_the_mask(predicted):
    image, prediction = predicted
    tree = prediction.hierarchy
    for level in range(tree.depth):
        rows, ids = areas(prediction, level), prediction.level(level)
        assert [row["name"] for row in rows] == tree.names(level)
        assert [row["pixels"] for row in rows] == [int((ids == node).sum()) for node in range(len(rows))]
        assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-4)
        for node, row in enumerate(rows):
            if row["pixels"]:
                assert row["confidence"] == pytest.approx(prediction.confidence[ids == node].mean(), abs=1e-3)
        mask = Image.open(io.BytesIO(mask_png(prediction, level)))
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), ids)
        assert np.array_equal(np.asarray(mask.convert("RGB")), tree.colours(level)[ids])
    cut = np.asarray(Image.open(io.BytesIO(cutout_png(image, prediction))))
    assert np.array_equal(cut[..., 3] == 255, prediction.ids != tree.background)
    assert np.array_equal(cut[prediction.ids != 0][:, :3], np.asarray(image)[prediction.ids != 0])
    assert not cut[prediction.ids == 0].any()


def test_a_view_holds_what_the_script_draws(predicted):
    import base64

    image, prediction = predicted
    html = view_html(image, prediction)
    url = re.search(r"data-ids='data:image/png;base64,([^']+)'", html)[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))), prediction.ids)
    assert html.count("<table") == prediction.hierarchy.depth
    assert not re.search(r"https?:|<script", html)


def test_a_program_gets_masks_and_areas(address, photograph, predicted):
    import httpx

    status, path = upload(address, photograph)
    assert status == 200
    for level in (-1, 0, 1):
        kind, (file, facts) = predict(address, path, level)
        assert kind == "complete"
        ids = predicted[1].level(level)
        assert (facts["level"], facts["height"], facts["width"]) == (level % 3, *ids.shape)
        assert facts["classes"] == areas(predicted[1], level)
        got = httpx.get(file["url"])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(got.content))), ids)
    kind, answer = predict(address, path, 7)
    assert kind == "error"
    assert "levels 0 to 2" in json.dumps(answer)


def test_the_documented_curl_lines_work(address, photograph, tmp_path):
    shutil.copy(photograph, tmp_path / "photograph.jpg")
    lines = CURL.replace("ADDRESS", address)
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "event: complete" in done.stdout, done
    assert '"name": "low_hand"' in done.stdout


def test_a_bad_file_is_a_message_to_a_program(address, tmp_path, capfd):
    (tmp_path / "text.jpg").write_text("not a picture")
    for file, said in ((tmp_path / "text.jpg", "not a photograph"), (bomb(tmp_path / "b.png"), "far too large")):
        status, path = upload(address, file)
        assert status == 200
        kind, answer = predict(address, path)
        assert kind == "error"
        assert said in json.dumps(answer)
    (tmp_path / "large.png").write_bytes(bytes(LIMITS.file_bytes + (1 << 17)))
    assert upload(address, tmp_path / "large.png")[0] == 413
    (tmp_path / "larger.png").write_bytes(bytes(LIMITS.file_bytes + 100))
    assert upload(address, tmp_path / "larger.png")[0] == 413
    assert "Traceback" not in capfd.readouterr().err


def test_no_file_outside_is_readable(address, kept_run, tmp_path):
    own = ("config.yaml", "model.safetensors", "examples/1.jpg")
    outside = [Path("/etc/passwd"), *(kept_run / name for name in own)]
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


def test_the_page_asks_for_nothing_outside(address):
    status, text = ask(address, "/")
    assert status == 200
    own = re.sub(r'<meta[^>]*content="[^"]*"[^>]*>', "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)[^"]*', own)
    config = json.loads(ask(address, "/config")[1])
    assert not [sheet for sheet in config.get("stylesheets") or [] if sheet]
    assert "googleapis" not in text + ask(address, "/theme.css")[1]
    assert not config.get("analytics_enabled")


def test_a_full_queue_is_said_at_once(kept_run, photograph, monkeypatch):
    go = threading.Event()

    class Slow(Predictor):
        def predict(self, one):
            go.wait(60)
            return super().predict(one)

    monkeypatch.setattr("fastseg.inference.app.Predictor", Slow)
    with serving(kept_run, port=free_port(), limits=Limits(queue=1)) as found:
        path = upload(found, photograph)[1]
        data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, -1]}
        answers = [ask(found, "/gradio_api/call/predict", data)]
        while answers[-1][0] == 200 and len(answers) < 9:
            answers.append(ask(found, "/gradio_api/call/predict", data))
        go.set()
        assert answers[0][0] == 200
        assert answers[-1][0] == 503
        assert "full" in answers[-1][1]
        event = json.loads(answers[0][1])["event_id"]
        assert "event: complete" in ask(found, f"/gradio_api/call/predict/{event}")[1]


def test_words_that_cannot_be_served(kept_run, capsys):
    assert main(["serve", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(kept_run), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(kept_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"fastseg-parts\[app\]"), serving(kept_run):
        pass


@pytest.mark.slow
def test_files_go_after_a_while_and_all_at_the_end(kept_run, photograph):
    limits = Limits(keep_seconds=4)
    with serving(kept_run, port=free_port(), limits=limits) as found:
        _, path = upload(found, photograph)
        folder = Path(path).parents[2]
        _, (file, _) = predict(found, path)
        examples = [item for item in folder.rglob("*.jpg") if re.fullmatch(r"\d+\.jpg", item.name)]
        assert len(examples) == len(list((kept_run / "examples").glob("*.jpg")))
        assert Path(path).exists()
        assert Path(file["path"]).exists()
        deadline = time.monotonic() + 60
        while (Path(path).exists() or Path(file["path"]).exists()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not Path(path).exists()
        assert not Path(file["path"]).exists()
        assert all(item.exists() for item in examples)
    assert not folder.exists()


@pytest.mark.slow
def test_the_command_connects_to_nobody_and_leaves_nothing(kept_run, tmp_path):
    words = ["serve", str(kept_run), "--port", str(free_port())]
    code = ("import sys, socket\nconnect = socket.socket.connect\n"
            "def seen(self, to):\n    if isinstance(to, tuple): print('CONNECT', to[0], file=sys.stderr, flush=True)\n"
            "    return connect(self, to)\nsocket.socket.connect = seen\n"
            f"from fastseg.cli import main; sys.exit(main({words}))")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path)})  # fmt: skip
    first = process.stdout.readline()
    assert first.startswith("http://127.0.0.1:"), first
    assert list(tmp_path.glob("fastseg-page-*"))
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert set(re.findall(r"CONNECT (\S+)", said)) <= {"127.0.0.1", "localhost"}, said
    assert not list(tmp_path.glob("fastseg-page-*"))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """The page, freshly opened; whatever it asks of others fails the test."""
    with opened(chromium, address) as found:
        yield found


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


@pytest.mark.slow
@needs_chromium
def test_upload_levels_and_legend(page, photograph, predicted):
    send(page, photograph)
    prediction = predicted[1]
    assert np.array_equal(canvas(page), expected(prediction, 2))
    page.locator("label", has=page.locator("[name=fs-level][value='0']")).click()
    assert np.array_equal(canvas(page), expected(prediction, 0))
    page.keyboard.press("ArrowRight")
    assert np.array_equal(canvas(page), expected(prediction, 1))
    box = page.locator(".fs-areas:not([hidden]) input").first
    node = int(box.get_attribute("data-node"))
    box.focus()
    page.keyboard.press("Space")
    page.mouse.move(0, 0)
    page.locator("[name=opacity]").focus()
    assert np.array_equal(canvas(page), expected(prediction, 1, [node]))
    page.locator("[data-all='1']").click()
    page.mouse.move(0, 0)
    page.locator("[name=opacity]").fill("25")
    assert page.locator(".fs-stage canvas").evaluate("c => c.style.opacity") == "0.25"
    page.locator("label", has=page.locator("[value=confidence]")).click()
    assert (canvas(page)[..., 3] == 255).all()
    row = areas(prediction, 1)[prediction.hierarchy.foreground(1)[0]]
    assert f"{row['pixels']:,}" in page.locator(".fs-areas:not([hidden])").inner_text()


@pytest.mark.slow
@needs_chromium
def test_pointing_reads_the_class(page, photograph, predicted):
    send(page, photograph)
    image = page.locator(".fs-stage canvas")
    box, ids = image.bounding_box(), predicted[1].ids
    y, x = np.argwhere(ids != 0)[0] if (ids != 0).any() else (5, 5)
    page.mouse.move(box["x"] + (x + 0.5) * box["width"] / ids.shape[1],
                    box["y"] + (y + 0.5) * box["height"] / ids.shape[0])  # fmt: skip
    name = predicted[1].hierarchy.leaves[ids[y, x]].replace("_", " ")
    assert f"{name}, probability {predicted[1].confidence[y, x] * 100:.0f} %" in page.locator(".fs-read").inner_text()


@pytest.mark.slow
@needs_chromium
def test_mask_and_cutout_are_downloaded(page, photograph, predicted):
    send(page, photograph)
    found = {}
    for name in ("mask", "cutout"):
        with page.expect_download() as waiting:
            page.locator(f"#fs-{name}").click()
        assert waiting.value.suggested_filename == f"{photograph.stem}-{name}.png"
        found[name] = np.asarray(Image.open(waiting.value.path()))
    assert np.array_equal(found["mask"], predicted[1].ids)
    assert np.array_equal(found["cutout"][..., 3] > 0, predicted[1].ids != 0)


@pytest.mark.slow
@needs_chromium
def test_a_wrong_file_a_bomb_and_a_large_file_are_messages(page, photograph, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    for file, said in ((tmp_path / "text.jpg", "not a photograph"), (bomb(tmp_path / "bomb.png"), "far too large")):
        send(page, file, ".fs-error")
        assert said in page.locator(".fs-error").inner_text()
        page.get_by_label("Remove Image").click()
        page.get_by_text("The masks appear here.").wait_for()
    (tmp_path / "large.jpg").write_bytes(photograph.read_bytes() + bytes(LIMITS.file_bytes))
    send(page, tmp_path / "large.jpg", None)
    page.get_by_text(re.compile("exceed|too large", re.I)).first.wait_for()
    assert "Traceback" not in page.content()


@pytest.mark.slow
@needs_chromium
def test_an_example_is_a_click_away(page):
    page.locator("button.gallery-item").first.click()
    page.locator("[data-drawn]").wait_for()


@pytest.mark.slow
@needs_chromium
def test_five_users_at_once(chromium, address, people):
    photographs = sorted((people / "JPEGImages").iterdir())[:5]
    users = [opened(chromium, address) for _ in photographs]
    pages = [user.__enter__() for user in users]
    for page, path in zip(pages, photographs, strict=True):
        send(page, path, None)
    for page, path in zip(pages, photographs, strict=True):
        page.locator("[data-drawn]").wait_for()
        wide, high = Image.open(path).size
        assert f"{wide} × {high} pixels" in page.locator(".fs-stage img").get_attribute("alt")
    for user in users:
        user.__exit__()


def test_five_programs_at_once(address, people):
    photographs = sorted((people / "JPEGImages").iterdir())[:5]

    def one(path):
        return predict(address, upload(address, path)[1])

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(one, photographs))
    shapes = [Image.open(path).size[::-1] for path in photographs]
    assert [(facts["height"], facts["width"]) for _, (_, facts) in found] == shapes


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "light"), (1280, "dark")])
def test_it_fits_the_screen_and_axe_finds_nothing_serious(chromium, address, photograph, axe, width, colours):
    screen = {"viewport": {"width": width, "height": 900}, "color_scheme": colours}
    with opened(chromium, address, bypass_csp=True, **screen) as page:
        send(page, photograph)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(axe)
        found = page.evaluate("axe.run('.fs-head, .fs-view, .fs-programs, #fs-mask, #fs-cutout')")
        assert len(found["passes"]) > 10
        assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found["violations"]] == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (colours == "dark")

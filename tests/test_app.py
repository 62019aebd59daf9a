"""The page: what it answers programs, how it works in a browser, and what it leaves behind."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import LIMITS, ask, bomb, free_port, needs_chromium, opened, predict, send, upload

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.inference.app import CURL, serving
from fastseg.inference.app_view import areas
from fastseg.inference.predict import Predictor
from fastseg.inference.uploads import Limits


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


def test_the_page_asks_for_nothing_outside(address):
    status, text = ask(address, "/")
    assert status == 200
    own = re.sub(r'<meta[^>]*content="[^"]*"[^>]*>', "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)[^"]*', own)
    config = json.loads(ask(address, "/config")[1])
    assert not [sheet for sheet in config.get("stylesheets") or [] if sheet]
    assert "googleapis" not in text + ask(address, "/theme.css")[1]
    assert not config.get("analytics_enabled")


def test_a_full_queue_is_said_at_once(trained, photograph, monkeypatch):
    go = threading.Event()

    class Slow(Predictor):
        def predict(self, one):
            go.wait(60)
            return super().predict(one)

    monkeypatch.setattr("fastseg.inference.app.Predictor", Slow)
    with serving(trained, port=free_port(), limits=Limits(queue=1)) as found:
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


def test_words_that_cannot_be_served(trained, capsys):
    assert main(["serve", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(trained), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"fastseg-parts\[app\]"), serving(trained):
        pass


@pytest.mark.slow
def test_files_go_after_a_while_and_all_at_the_end(trained, photograph):
    limits = Limits(keep_seconds=4)
    with serving(trained, port=free_port(), limits=limits) as found:
        _, path = upload(found, photograph)
        folder = Path(path).parents[2]
        _, (file, _) = predict(found, path)
        examples = [item for item in folder.rglob("*.jpg") if re.fullmatch(r"\d+\.jpg", item.name)]
        assert len(examples) == len(list((trained / "examples").glob("*.jpg")))
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
def test_the_command_connects_to_nobody_and_leaves_nothing(trained, tmp_path):
    words = ["serve", str(trained), "--port", str(free_port())]
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

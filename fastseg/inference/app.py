"""`fastseg serve`: a page on which anyone can try a network, whose address answers programs, too."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from fastseg.errors import InputError
from fastseg.inference.app_view import (
    EMPTY,
    areas,
    checked_level,
    cutout_png,
    heading_html,
    mask_png,
    message_html,
    view_html,
)  # fmt: skip
from fastseg.inference.backends import needed
from fastseg.inference.guard import LOOPBACK, Guard
from fastseg.inference.predict import Prediction, Predictor
from fastseg.inference.uploads import Limits, read_upload
from fastseg.run import METRICS, read_json

PORT = 7860
# Read by Gradio before it sends a word of itself, and where it keeps files: the page's own folder.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
FOLDERS = {"GRADIO_TEMP_DIR": "files", "GRADIO_EXAMPLES_CACHE": "examples"}
CURL = """\
A=ADDRESS/gradio_api
P=$(curl -s -F files=@photograph.jpg $A/upload | cut -d'"' -f2)
E=$(curl -s $A/call/predict -H 'Content-Type: application/json' \\
  -d '{"data": [{"path": "'$P'", "meta": {"_type": "gradio.FileData"}}, -1]}' | cut -d'"' -f4)
curl -sN $A/call/predict/$E"""


def serve(source: str | Path, host: str = "127.0.0.1", port: int | None = None, *, threads: int | None = None,
          device: str | None = None, limits: Limits | None = None) -> None:  # fmt: skip
    """Serve the page of a run, or of an exported file, until Ctrl-C; nothing of it stays on the disk.

    Without `port`: 7860, or the next that is free. Raises `InputError` where the source cannot be opened, Gradio is
    missing, or the port is taken.
    """
    with _ended_cleanly(), serving(source, host, port, threads=threads, device=device, limits=limits) as address:
        print(f"{address}  (Ctrl-C stops it)", flush=True)
        if host not in LOOPBACK:
            print("Anyone who can reach this machine can use the page.", file=sys.stderr)
        threading.Event().wait()


@contextmanager
def serving(source: str | Path, host: str = "127.0.0.1", port: int | None = None, *, threads: int | None = None,
            device: str | None = None, limits: Limits | None = None) -> Iterator[str]:  # fmt: skip
    """A server in threads of this process while the context lasts; gives its address. As `serve` otherwise."""
    limits = limits or Limits()
    predictor = Predictor(source, device=device, threads=threads)
    folder = Path(tempfile.mkdtemp(prefix="fastseg-page-")).resolve()
    try:
        with _environment({**QUIET, **{key: str(folder / name) for key, name in FOLDERS.items()}}):
            gradio = needed("gradio", "app", "a page")
            page = build(predictor, Path(source), folder, limits)
            try:
                _, address, _ = page.launch(
                    server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inbrowser=False,
                    share=False, show_error=False, max_file_size=limits.file_bytes, ssr_mode=False, pwa=False,
                    mcp_server=False, enable_monitoring=False, footer_links=[], inline=False, allowed_paths=[],
                    theme=_theme(gradio), css=_own("app.css"), app_kwargs={"middleware": [_guard(host, limits)]},
                )  # fmt: skip
            except OSError as error:
                raise InputError(f"port {port or PORT} on {host} cannot be used ({error}); give another "
                                 "by --port") from None  # fmt: skip
            try:
                yield address.rstrip("/")
            finally:
                page.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(predictor: Predictor, source: Path, folder: Path, limits: Limits) -> Any:
    """The page as Gradio's Blocks; `folder` is where it writes files."""
    import gradio

    desk = Desk(predictor, folder / FOLDERS["GRADIO_TEMP_DIR"], limits)
    name = source.expanduser().resolve().name
    # Gradio would open a picture before it is looked at, however large it is: files come as they are.
    alone = {"concurrency_limit": 1, "concurrency_id": "network", "preprocess": False}
    with gradio.Blocks(title=f"{name}: fastseg", analytics_enabled=False, fill_width=True,
                       delete_cache=(max(1, limits.keep_seconds // 4), limits.keep_seconds)) as page:  # fmt: skip
        scores = read_json(source / METRICS) if source.is_dir() else {}
        gradio.HTML(heading_html(name, predictor.card, scores, str(limits)), apply_default_css=False)
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2, min_width=300):
                photograph = gradio.Image(type="filepath", label="Photograph", buttons=["fullscreen"], height=340)
                if shown := _examples(source):
                    gradio.Examples([[str(path)] for path in shown], photograph, cache_examples=False,
                                    label="From the validation part", api_visibility="private")  # fmt: skip
            with gradio.Column(scale=3, min_width=300):
                view = gradio.HTML(EMPTY, js_on_load=_own("app.js"), apply_default_css=False, elem_id="fs-view")
                with gradio.Row():
                    mask = gradio.DownloadButton("Mask (PNG of ids)", interactive=False, elem_id="fs-mask")
                    cutout = gradio.DownloadButton("Cut-out (PNG)", interactive=False, elem_id="fs-cutout")
        with gradio.Accordion("For programs", open=False):
            gradio.HTML(
                "<div class='fs-programs'><p>The same address answers programs: the id of a level's node for every "
                "pixel as a PNG, and areas as JSON. The number behind the photograph is the level; −1 is the finest."
                f"</p><pre tabindex='0'>{escape(CURL)}</pre></div>", apply_default_css=False,
                js_on_load="const e = element.querySelector('pre');"
                           "e.textContent = e.textContent.replace('ADDRESS', location.origin);")  # fmt: skip
        _program(gradio, desk, alone)
        photograph.change(desk.show, photograph, [view, mask, cutout], api_visibility="private",
                          trigger_mode="always_last", show_progress_on=view, **alone)  # fmt: skip
    page.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)
    return page


class Desk:
    """Takes photographs in and gives masks out."""

    def __init__(self, predictor: Predictor, folder: Path, limits: Limits):
        self.predictor, self.folder, self.limits = predictor, folder, limits

    def look(self, sent: Any) -> tuple[Path, Image.Image, Prediction]:
        """A photograph that was sent, its file, and what the network makes of it."""
        path = Path(str(sent.get("path") if isinstance(sent, dict) else getattr(sent, "path", ""))).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise InputError("no photograph was sent; upload it, and give the path that is answered")
        photograph = read_upload(path, self.limits)
        return path, photograph, self.predictor.predict(photograph)

    def show(self, sent: Any) -> tuple[Any, Any, Any]:
        """What the page shows of a photograph: masks, and files to download; of a bad file, why it is one."""
        import gradio

        nothing = gradio.DownloadButton(value=None, interactive=False)
        if sent is None:
            return EMPTY, nothing, nothing
        try:
            path, photograph, prediction = self.look(sent)
        except InputError as error:
            return message_html(str(error)), nothing, nothing
        files = {"mask.png": mask_png(prediction), "cutout.png": cutout_png(photograph, prediction)}
        kept = self.keep(path.stem, files)
        buttons = (gradio.DownloadButton(value=file, interactive=True) for file in kept)
        return view_html(photograph, prediction), *buttons

    def answer(self, sent: Any, level: Any = -1) -> tuple[str, dict[str, Any]]:
        """What a program is given: the file of a level's mask, and the areas of its classes."""
        import gradio

        try:
            tree = self.predictor.hierarchy
            level = checked_level(tree, level)
            path, _, prediction = self.look(sent)
        except InputError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        high, wide = prediction.shape
        facts = {"level": level, "height": high, "width": wide, "classes": areas(prediction, level)}
        return self.keep(path.stem, {"mask.png": mask_png(prediction, level)})[0], facts

    def keep(self, stem: str, files: dict[str, bytes]) -> list[str]:
        """Write files where nobody can guess their name; Gradio deletes them after a while."""
        place = self.folder / secrets.token_hex(16)
        place.mkdir(parents=True)
        paths = [place / f"{stem[:60]}-{name}" for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        return [str(path) for path in paths]


def _program(gradio: Any, desk: Desk, alone: dict[str, Any]) -> None:
    """The endpoint `/predict`, which shows nothing on the page."""
    photograph, level = gradio.Image(type="filepath", visible=False), gradio.Number(-1, precision=0, visible=False)
    mask, facts = gradio.File(visible=False), gradio.JSON(visible=False)
    gradio.Button(visible=False).click(desk.answer, [photograph, level], [mask, facts], api_name="predict", **alone)


def _examples(source: Path) -> list[Path]:
    """Small copies of photographs of the validation part, as a run keeps them."""
    return sorted((source / "examples").glob("*.jpg"), key=lambda path: (len(path.stem), path.stem))


def _guard(host: str, limits: Limits) -> Any:
    from starlette.middleware import Middleware

    return Middleware(Guard, hosts=LOOPBACK if host in LOOPBACK else None, upload_bytes=limits.file_bytes + (1 << 16))


def _theme(gradio: Any) -> Any:
    """Gradio's plain theme in the system's own letters, where its default ones would be fetched."""
    fonts = [gradio.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gradio.themes.Font(name) for name in ("ui-monospace", "monospace")]
    return gradio.themes.Default(font=fonts, font_mono=mono, primary_hue="blue")


def _own(name: str) -> str:
    return resources.files("fastseg.inference").joinpath(name).read_text(encoding="utf-8")


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM as an exit that tidies up, as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for as long as a page is served."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

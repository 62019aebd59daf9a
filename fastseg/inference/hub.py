"""A run on the Hugging Face hub: a folder that names nothing of the machine it comes from, and the way back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image

from fastseg.config import dump_config
from fastseg.errors import InputError
from fastseg.inference.hub_card import card_text
from fastseg.run import CONFIG, METRICS, MODEL, WEIGHTS, Run, read_json
from fastseg.settings import Settings
from fastseg.writing import write_json, write_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD, PICTURE, RESULTS = "README.md", "results.jpg", "results.png"
# All that is fetched; what else a repository may hold stays there.
FETCHED = (MODEL, WEIGHTS, CONFIG, METRICS)
PICTURE_SIDE = 1200
REPO = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def push(
    run: str | Path | Run,
    repo: str,
    *,
    private: bool = True,
    license: str | None = None,
    picture: bool = True,
    message: str = "A run of fastseg",
    token: str | None = None,
    api: HfApi | None = None,
) -> str:
    """Publish a run as `repo` (`NAME` or `OWNER/NAME`); returns its address.

    What goes there is what `write_folder` writes. A new repository is private unless you say otherwise, since the
    card's picture shows photographs that may not be yours to give away; that of one that is there already stays as it
    is. `license` is the hub's word for it (`cc-by-4.0`); `api` is an `HfApi` of your own. Raises `InputError` for what
    is no run, and where the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    if not REPO.fullmatch(repo):
        raise InputError(f"{repo!r} is no name of a repository; write NAME or OWNER/NAME")
    api = HfApi(token=token) if api is None else api
    with TemporaryDirectory() as folder:
        write_folder(run, folder, repo, license=license, picture=picture)
        there = _asked(f"cannot make {repo}", lambda: api.create_repo(repo, private=private, exist_ok=True))
        if there.repo_id != repo:
            # The hub knows the owner, and the lines on use name it.
            write_folder(run, folder, there.repo_id, license=license, picture=picture)
        sent = {"repo_id": there.repo_id, "folder_path": folder, "commit_message": message}
        _asked(f"cannot upload to {there.repo_id}", lambda: api.upload_folder(**sent))
    return str(there)


def fetch(repo: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a run on the hub, fetched once and kept in the hub's cache; a folder's own path as it is.

    Only weights (safetensors), JSON and YAML are fetched. Raises `InputError` where it cannot be had or is no run.
    """
    folder = Path(repo).expanduser()
    if not folder.is_dir():
        if not REPO.fullmatch(str(repo)):
            raise InputError(f"{repo}: neither a folder nor a repository's name (OWNER/NAME)")
        from huggingface_hub import snapshot_download

        folder = Path(_asked(f"cannot fetch {repo}", lambda: snapshot_download(
            str(repo), revision=revision, token=token, allow_patterns=list(FETCHED))))  # fmt: skip
    return Run.open(folder).path


def write_folder(
    run: str | Path | Run, folder: str | Path, repo: str, *, license: str | None = None, picture: bool = True
) -> Path:
    """Write what is published of a run: weights, model.json, configuration, scores, and a card with a picture.

    Paths in them lose all but their last part. Returns the folder, which is made where there is none. Raises
    `InputError` for a run without scores, or where the folder cannot be written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if not (scores := read_json(run.path / METRICS)):
        raise InputError(f"{run.path}: it has no {METRICS}; finish it with fastseg train or save_run")
    folder, scores, cfg = Path(folder).expanduser(), without_paths(scores), published(run.cfg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.path / WEIGHTS, folder / WEIGHTS)
        write_json(folder / MODEL, without_paths(dict(run.card)))
        write_text(folder / CONFIG, dump_config(cfg))
        write_json(folder / METRICS, scores)
        shown = picture and _write_picture(run.path / RESULTS, folder / PICTURE)
        write_text(folder / CARD, card_text(run, cfg, scores, repo, license, PICTURE if shown else None))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; name a folder you may write to") from None
    return folder


def published(cfg: Settings) -> Settings:
    """A configuration without the machine's folders; two data folders of one name get numbers."""
    values = without_paths(cfg.model_dump(mode="json"))
    if isinstance(roots := values["data"]["root"], list):
        values["data"]["root"] = [name if (n := roots[:i].count(name)) == 0 else f"{name}-{n + 1}"
                                  for i, name in enumerate(roots)]  # fmt: skip
    return Settings.model_validate(values)


def without_paths(value: Any) -> Any:
    """JSON whose texts that are paths of a machine (from its root, a home or a parent) are their last part alone."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() or path.drive or value.startswith("~") or ".." in path.parts:
            return path.name.replace("..", "") or "data"
    return value


def _write_picture(source: Path, target: Path) -> bool:
    """A JPEG of a run's picture, without whatever else its file holds; False where there is none."""
    try:
        with Image.open(source) as image:
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return False
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE * 3))
    small.save(target, quality=88)
    return True


def _asked(what: str, call: Callable[[], Any]) -> Any:
    """Ask the hub, whose client raises errors of its own, of its HTTP library and of the system."""
    try:
        return call()
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what}: {said}") from error

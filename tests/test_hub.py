"""What is published of a run, and the way back, without a network."""

import getpass
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from fastseg.config import load_config
from fastseg.errors import InputError
from fastseg.inference.hub import fetch, published, push, without_paths, write_folder
from fastseg.run import Run

FILES = ["README.md", "config.yaml", "metrics.json", "model.json", "model.safetensors", "results.jpg"]


class Hub:
    """Stands in for `HfApi`: repositories are folders."""

    def __init__(self, folder, owner="me"):
        self.folder, self.owner, self.private = folder, owner, {}

    def create_repo(self, repo, private, exist_ok):
        name = repo if "/" in repo else f"{self.owner}/{repo}"
        self.private.setdefault(name, private)
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        url = type("Url", (str,), {"repo_id": name})
        return url(f"https://hub/{name}")

    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path):
    """A hub in a folder."""
    return Hub(tmp_path / "hub")


def parts(readme):
    """The YAML at the top, and the Markdown."""
    _, top, text = readme.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(top), text


def test_a_run_goes_there_and_comes_back_the_same(trained, drawn, hub):
    from fastseg.inference.predict import Predictor

    assert Run.open(trained).push_to_hub("tiny", api=hub) == "https://hub/me/tiny"
    folder = hub.folder / "me" / "tiny"
    assert sorted(os.listdir(folder)) == FILES
    assert hub.private == {"me/tiny": True}
    photograph = next((drawn / "JPEGImages").iterdir())
    mine, theirs = Predictor(trained), Predictor.from_hub(folder)
    assert theirs.hierarchy == mine.hierarchy
    assert np.array_equal(theirs.predict(photograph).ids, mine.predict(photograph).ids)


def test_nothing_published_names_the_machine(trained, drawn, tmp_path):
    folder = write_folder(trained, tmp_path / "out", "me/tiny")
    words = {str(drawn), drawn.parent.name, str(trained.parent), "/tmp", os.path.expanduser("~")}
    # Short names stand in any weights by chance.
    words |= {name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4}
    assert any(str(drawn) in (trained / name).read_text() for name in ("config.yaml", "metrics.json"))
    for file in folder.iterdir():
        content = file.read_bytes()
        assert [word for word in words if word.encode() in content] == [], file.name
    cfg = load_config(folder / "config.yaml")
    assert (cfg.data.root, cfg.out, cfg.data.size) == (drawn.name, trained.parent.name, (32, 64))
    assert json.loads((folder / "metrics.json").read_text())["data"] == [drawn.name]
    with Image.open(folder / "results.jpg") as image:
        assert max(image.size) <= 3600
        assert not image.getexif()


@pytest.mark.parametrize(
    ("text", "left"),
    [("/home/anna/data/Pascal-part", "Pascal-part"), ("~/runs", "runs"), ("../secret/data", "data"),
     (r"C:\Users\anna\data", "data"), (r"\\server\share\me\data", "data"), ("..", "data"), ("/", "data"),
     ("JPEGImages", "JPEGImages"), ("a/b", "a/b"), ("imagenet", "imagenet")],
)  # fmt: skip
def test_paths_lose_all_but_their_last_part(text, left):
    assert without_paths({"a": [text, 1, None]}) == {"a": [left, 1, None]}


def test_a_configuration_stays_one(tmp_path):
    cfg = load_config("data.root=[/a/data, /b/data]", "model.weights=/home/anna/w.pth", "out=/home/anna/runs",
                      "augment.albumentations=/x/mine.yaml")  # fmt: skip
    bare = published(cfg)
    assert (bare.data.root, bare.model.weights, bare.out) == (["data", "data-2"], "w.pth", "runs")
    assert bare.augment.albumentations == "mine.yaml"
    assert bare.hierarchy == cfg.hierarchy


def test_the_card_tells_scores_with_their_definitions(trained, hub):
    push(trained, "anna/tiny", api=hub, license="cc-by-4.0", private=False)
    assert hub.private == {"anna/tiny": False}
    top, text = parts(hub.folder / "anna" / "tiny" / "README.md")
    scores = json.loads((trained / "metrics.json").read_text())
    assert (top["license"], top["library_name"], top["pipeline_tag"]) == ("cc-by-4.0", "fastseg", "image-segmentation")
    (result,) = top["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [round(scores[f"miou{d}"], 4) for d in range(3)]
    assert all("dataset, native, leaf" in metric["name"] for metric in result["metrics"])
    for level in range(3):
        low, high = scores["intervals"][f"miou{level}"]
        assert f"**mean (miou{level})** | **{scores[f'miou{level}']:.3f}** | {low:.3f} to {high:.3f}" in text
    for name in ("body", r"upper\_body", r"low\_hand"):
        assert f"| {name} |" in text
    for said in ('Predictor.from_hub("anna/tiny")', "![Photographs, truth and prediction](results.jpg)",
                 "6 photographs, valid split, native size, dataset definition", "one count over all pixels",
                 "Trained on 24 photographs of sample; scored on 6 others", "Only 6 photographs were scored",
                 "chosen because it did best on the valid split"):  # fmt: skip
        assert said in text
    assert [re.sub("^## ", "", line) for line in text.splitlines() if line.startswith("## ")] == [
        "How to use it", "Scores", "What the numbers mean", "Data", "Limits"]  # fmt: skip


def test_the_cards_code_is_code(trained, tmp_path):
    _, text = parts(write_folder(trained, tmp_path / "out", "me/tiny") / "README.md")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(code, "README.md", "exec")
    (tree,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert yaml.safe_load(tree)["hierarchy"] == Run.open(trained).hierarchy.tree


def test_what_a_run_lacks_is_left_out_or_refused(trained, tmp_path, hub):
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("results.png", "environment.json", "history.csv"):
        (run / name).unlink()
    folder = write_folder(run, tmp_path / "out", "me/tiny")
    assert sorted(os.listdir(folder)) == FILES[:-1]
    assert "![" not in (folder / "README.md").read_text()
    assert "results.jpg" not in os.listdir(write_folder(trained, tmp_path / "bare", "me/tiny", picture=False))
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"it has no metrics\.json"):
        push(run, "tiny", api=hub)
    assert not hub.folder.exists()


def test_a_trees_own_words_do_not_break_the_card(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("model.json", "config.yaml", "metrics.json"):
        (run / name).write_text((run / name).read_text().replace("low_hand", "<b>a|b_[x](y)"))
    _, text = parts(write_folder(run, tmp_path / "out", "me/tiny") / "README.md")
    assert r"| 2 | \<b\>a\|b\_\[x\](y) |" in text


def test_a_refusal_is_one_line(trained, tmp_path):
    def refuse(*_, **__):
        raise OSError("401 Client Error:\n\nInvalid username or password.")

    with pytest.raises(InputError, match=r"^cannot make me/tiny: 401 Client Error: Invalid username or password\.$"):
        push(trained, "me/tiny", api=SimpleNamespace(create_repo=refuse))
    for repo in ("", "a/b/c", "../x", "a b"):
        with pytest.raises(InputError, match="no name of a repository"):
            push(trained, repo, api=None)
    with pytest.raises(InputError, match="neither a folder nor"):
        fetch(tmp_path / "away")


def test_fetching_asks_for_what_cannot_run_and_names_a_failure(monkeypatch, trained, tmp_path):
    asked = {}

    def download(repo, **options):
        asked.update(options, repo=repo)
        if repo == "me/gone":
            raise ConnectionError("the hub is away")
        return str(tmp_path if repo == "me/other" else trained)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch("me/tiny", revision="v1", token="t") == trained
    assert (asked["repo"], asked["revision"], asked["token"]) == ("me/tiny", "v1", "t")
    assert sorted(asked["allow_patterns"]) == ["config.yaml", "metrics.json", "model.json", "model.safetensors"]
    with pytest.raises(InputError, match="cannot fetch me/gone: the hub is away"):
        fetch("me/gone")
    with pytest.raises(InputError, match="not a finished run"):
        fetch("me/other")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("spoiled", ["model.safetensors", "model.json", "config.yaml"])
def test_nothing_in_a_strangers_folder_is_executed(trained, tmp_path, spoiled):
    from fastseg.inference.predict import Predictor

    mark = tmp_path / "executed"
    folder = write_folder(trained, tmp_path / "out", "me/tiny")
    (folder / spoiled).write_bytes(pickle.dumps(Bomb(mark)))
    if spoiled == "config.yaml":
        (folder / spoiled).write_text(f"!!python/object/apply:os.system ['touch {mark}']")
        Predictor.from_hub(folder)
    else:
        with pytest.raises(InputError):
            Predictor.from_hub(folder)
    assert not mark.exists()


def test_the_module_needs_no_torch(trained, tmp_path):
    arguments = f"{str(trained)!r}, {str(tmp_path / 'out')!r}, 'me/tiny'"
    code = (f"import sys; from fastseg.inference.hub import write_folder; write_folder({arguments}); "
            "assert not {'torch', 'huggingface_hub'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

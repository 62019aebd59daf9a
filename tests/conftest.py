"""Small drawn datasets and configurations that the tests share."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# Threads that wait in sleep: spinning ones take the two cores from the processes that have work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests in several processes share the cores already.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from fastseg.config import load_config


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Ten drawn photographs, 64x96, 8 to train on and 2 to validate on."""
    from fastseg.data.sample import draw_sample

    return draw_sample(tmp_path_factory.mktemp("data") / "drawn", train=8, valid=2, size=(64, 96), seed=3, workers=1)


@pytest.fixture
def drawn_copy(drawn, tmp_path) -> Path:
    """A copy of the drawn photographs to spoil."""
    import shutil

    return Path(shutil.copytree(drawn, tmp_path / "Pascal-part"))


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """Thirty drawn photographs, 24 to train on and 6 to validate on."""
    from fastseg.data.sample import draw_sample

    root = tmp_path_factory.mktemp("people") / "sample"
    return draw_sample(root, train=24, valid=6, size=(64, 96), seed=5, workers=2)


@pytest.fixture(scope="session")
def spoiled(people, tmp_path_factory):
    """A copy with a fault of each of twenty kinds; (folder, kind → id)."""
    import shutil

    from planted import plant

    root = Path(shutil.copytree(people, tmp_path_factory.mktemp("spoiled") / "data"))
    return root, plant(root)


def tiny_settings(root, out, *overrides):
    """Settings that train in seconds: 32x64, batch 4, one epoch, no flips, pretrained weights or worker processes."""
    return load_config(
        {"name": "tiny", "out": str(out), "data": {"root": str(root), "size": "32x64", "workers": 0},
         "augment": {"preset": "none"}, "model": {"weights": "none"}, "train": {"epochs": 1, "batch_size": 4}},
        *overrides)  # fmt: skip


@pytest.fixture
def tiny(drawn, tmp_path):
    """Makes such settings, whose runs go into the test's own folder."""

    def make(*overrides, root=drawn):
        return tiny_settings(root, tmp_path / "runs", *overrides)

    return make


@pytest.fixture
def quiet(tiny):
    """Makes learners of tiny settings that print nothing."""
    from fastseg.learning.learner import seg_learner

    def make(*overrides, **kwargs):
        learn = seg_learner(tiny(*overrides), **kwargs)
        if hasattr(learn, "progress"):
            learn.remove_cb(learn.progress)
        learn.logger = lambda *_: None
        return learn

    return make


@pytest.fixture(scope="session")
def trained(drawn, tmp_path_factory) -> Path:
    """A run folder of one frozen and two whole epochs, to be read only."""
    from fastseg.experiments.train import train

    out = tmp_path_factory.mktemp("trained") / "runs"
    return train(tiny_settings(drawn, out, "train.epochs=2", "train.frozen_epochs=1"))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run folder `trained`."""
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The script of axe-core: a file that FASTSEG_AXE names, or from the npm registry."""
    import subprocess
    import tarfile

    if path := os.environ.get("FASTSEG_AXE"):
        return Path(path).read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core"], cwd=folder, check=True, timeout=120, capture_output=True)
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as package:
        return package.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module")
def address(trained):
    """The address of a page of a small run, as strangers see it."""
    from served import LIMITS, free_port

    from fastseg.inference.app import serving

    with serving(trained, port=free_port(), limits=LIMITS) as found:
        yield found


@pytest.fixture(scope="session")
def photograph(people) -> Path:
    """One of the thirty photographs, 64x96."""
    from PIL import Image

    return next(path for path in sorted((people / "JPEGImages").iterdir()) if Image.open(path).size == (96, 64))


@pytest.fixture(scope="session")
def predicted(trained, photograph):
    """It, and what the small run's network makes of it."""
    from PIL import Image

    from fastseg.inference.predict import Predictor

    image = Image.open(photograph).convert("RGB")
    return image, Predictor(trained).predict(image)


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright
    from served import CHROMIUM

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """The page, freshly opened; whatever it asks of others fails the test."""
    from served import opened

    with opened(chromium, address) as found:
        yield found

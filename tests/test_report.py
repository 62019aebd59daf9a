"""`report.html`: whole, honest, without an outside reference, and usable in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from pages import Page, whole_page

from fastseg.cli import main
from fastseg.errors import InputError
from fastseg.experiments.report import report
from fastseg.experiments.reporting.pictures import colour_mask, wrong_mask
from fastseg.experiments.reporting.settings import differences
from fastseg.experiments.train import save_run, train
from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
OTHER = {"bg": 2, "thing": {"left": 0, "right_<b>": 1}}
SECTIONS = ["beware", "scores", "curves", "confusion", "photographs", "run", "speed", "environment", "meaning"]


@pytest.fixture(scope="module")
def finished(people, tmp_path_factory):
    """A run of two epochs on thirty photographs, whose best weights were kept."""
    from fastseg.config import load_config

    out = tmp_path_factory.mktemp("report")
    return train(load_config({"name": "tiny", "out": str(out), "data": {"root": str(people), "size": "32x64",
                 "workers": 0, "limit": 12}, "model": {"weights": "none"},
                 "train": {"epochs": 2, "batch_size": 4}}))  # fmt: skip


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(finished, tmp_path / "copied")


def read(run):
    return Page(run.joinpath("report.html").read_text(encoding="utf-8"))


def test_a_run_ends_with_a_page_that_needs_nothing_else(finished):
    text = (finished / "report.html").read_text(encoding="utf-8")
    page = whole_page(text, SECTIONS)
    assert all(address.startswith("data:image/jpeg;base64,") for address in re.findall(r"url\(([^)]*)", text))
    assert len(text) < 6e6
    assert len(page.ids) == len(set(page.ids))
    assert {source[1:] for source in page.sources if source[0] == "#"} <= set(page.ids)


def test_it_says_what_was_run_and_what_came_of_it(finished):
    page, metrics = read(finished), json.loads((finished / "metrics.json").read_text())
    for level in range(3):
        low, high = metrics["intervals"][f"miou{level}"]
        assert f"{metrics[f'miou{level}']:.3f}miou{level}" in page.text
        assert f"{low:.3f} to {high:.3f}" in page.text
    for name in ("low hand", "upper body", "miou2", "train.epochs", "data.limit", "torch", "photographs a second"):
        assert name in page.text
    assert f"fastseg train --config {finished}/config.yaml" in page.text
    assert "drawn people" not in page.text
    assert f"those of epoch {metrics['epoch']} of 2, chosen because it did best on the valid split" in page.text
    assert "Only 6 photographs were scored" in page.text
    assert "the first 12 to train on" in page.text
    assert "one count over all pixels of all photographs" in page.text
    assert [page.text.count(word) for word in ("Best", "Median", "Worst")] == [1, 1, 1]
    assert metrics["worst"][0]["id"] in page.text


def test_it_is_made_anew_of_the_folder_alone(copied, capsys):
    first = (copied / "report.html").read_text()
    (copied / "report.html").unlink()
    assert main(["report", str(copied)]) == 0
    assert capsys.readouterr().out.strip() == str(copied / "report.html")
    assert read(copied).sources == Page(first).sources
    code = f"import sys, fastseg; fastseg.report({str(copied)!r}); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_what_is_missing_is_said(copied):
    for name in ("history.csv", "timing.csv", "environment.json"):
        (copied / name).unlink()
    shutil.rmtree(copied / "examples")
    (copied / "scores" / "valid-native-leaf.npz").write_bytes(b"nothing")
    report(copied)
    page = read(copied)
    assert page.open == []
    for said in ("No epoch is recorded", "No times are recorded", "No peak of memory is recorded", "Not recorded.",
                 "There are no example photographs", "What was counted is not in the run folder"):  # fmt: skip
        assert said in page.text
    (copied / "history.csv").write_text("epoch\nnothing")
    with pytest.raises(InputError, match="not a table of numbers"):
        report(copied)
    (copied / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"it has no metrics\.json"):
        report(copied)
    assert main(["report", str(copied.parent)]) == 2


def test_a_leak_and_overfitting_stand_on_the_page(copied):
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps(metrics | {"leak": ["one", "two"], "keep": "last", "epoch": 5,
                                                               "interrupted": True}))  # fmt: skip
    (copied / "history.csv").write_text(
        "epoch,train_loss,valid_loss,miou0,miou1,miou2,lr\n1,5,3,0.1,0.1,0.1,1e-3\n2,4,1,0.1,0.1,0.3,1e-3\n"
        "3,3,2,0.1,0.1,0.2,1e-3\n4,2,2,0.1,0.1,nan,1e-3\n5,1,2,0.1,0.1,0.2,1e-3\n"
    )
    report(copied)
    text = read(copied).text
    assert "There was a leak: 2 photographs stand in both lists (one, two)" in text
    assert "The run was interrupted" in text
    assert text.count("overfitting after epoch 2: validation loss up 100%") == 2
    assert "last epoch, 5; the valid split chose nothing. (Its highest score was in epoch 2.)" in text


def test_a_learner_with_data_and_a_tree_of_its_own(tmp_path, tiny):
    import torch
    from fastai.data.core import DataLoaders, TfmdDL
    from fastai.vision.core import TensorImage, TensorMask

    from fastseg.learning.learner import seg_learner

    g = torch.Generator().manual_seed(0)
    items = [(TensorImage(torch.rand(3, 32, 64, generator=g)),
              TensorMask(torch.randint(0, 3, (32, 64), generator=g))) for _ in range(4)]  # fmt: skip
    dls = DataLoaders(*(TfmdDL(items, bs=2, device=torch.device("cpu")) for _ in range(2)))
    cfg = tiny("hierarchy=" + json.dumps(OTHER), "train.keep=last")
    learn = seg_learner(cfg, dls)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    run = save_run(learn, tmp_path / "own")
    page = read(run)
    assert page.open == []
    assert "Learner's own DataLoaders" in page.text
    assert "None does. The Learner was fitted by hand on DataLoaders of its own" in page.text
    assert "right <b>" in page.text
    assert page.text.count("photograph 4") == 1
    assert 'id="level-2"' not in (run / "report.html").read_text()
    assert "photographs a second" in page.text


def test_settings_that_differ(tiny):
    found = {key: (value, default) for key, value, default, _ in differences(tiny("loss=[iou]", "data.size=64x32"))}
    assert found["data.size"] == ([64, 32], [128, 128])
    assert found["model.weights"] == ("none", "imagenet")
    assert [loss["name"] for loss in found["loss"][0]] == ["iou"]
    assert {"hierarchy", "train.lr", "train.seed", "data"}.isdisjoint(found)


def test_masks_are_drawn_in_a_levels_colours():
    import io

    from PIL import Image

    truth = np.array([[0, 4, 255], [1, 5, 0]], np.uint8)
    guess = np.array([[0, 2, 4], [5, 5, 1]], np.uint8)

    def pixels(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))

    for level in range(3):
        drawn = pixels(colour_mask(truth, TREE, level))
        colours = TREE.colours(level)
        assert (drawn[0, 0, 3], drawn[1, 2, 3]) == (0, 0)
        for place in ((0, 1), (1, 0), (1, 1)):
            assert drawn[place][:3].tolist() == colours[TREE.merge(truth, level)[place]].tolist()
            assert drawn[place][3] > 0
    wrong = [(pixels(wrong_mask(truth, guess, TREE, level))[..., 3] > 0).astype(int).tolist() for level in range(3)]
    assert wrong == [[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 1]], [[0, 1, 0], [1, 0, 1]]]


FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1400,1000"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The script of axe-core: a file that FASTSEG_AXE names, or from the npm registry."""
    if path := os.environ.get("FASTSEG_AXE"):
        return open(path, encoding="utf-8").read()
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core"], cwd=folder, check=True, timeout=120, capture_output=True)
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as package:
        return package.extractfile("package/axe.min.js").read().decode()


def visible(browser):
    """Levels whose pictures and legends are shown, as the browser lays them out."""
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.level')].filter(e => e.getClientRects().length).map(e => e.className)"
    )
    return {int(re.search(r"at-(\d)", name).group(1)) for name in shown}


@needs_chromium
def test_the_level_switch_works_by_click_and_by_keyboard(browser, finished):
    from selenium.webdriver.common.keys import Keys

    browser.get((finished / "report.html").as_uri())
    assert visible(browser) == {2}
    browser.find_element("css selector", "label:has(#level-0)").click()
    assert visible(browser) == {0}
    switch = browser.find_element("id", "level-0")
    switch.send_keys(Keys.ARROW_RIGHT)
    assert visible(browser) == {1}
    assert browser.switch_to.active_element.get_attribute("id") == "level-1"
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.stack img')].filter(e => e.getClientRects().length)"
        ".map(e => [e.naturalWidth, e.clientWidth, e.clientHeight])"
    )
    assert sizes
    assert all(min(size) > 0 for size in sizes)


@needs_chromium
def test_nothing_is_wider_than_a_narrow_screen(browser, finished):
    browser.get((finished / "report.html").as_uri())
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_chromium
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, axe, finished, colours):
    emulated = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    browser.get((finished / "report.html").as_uri())
    browser.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done({bad: r.violations, good: r.passes.length}))"
    )
    assert found["good"] > 10
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found["bad"]] == []
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (colours == "dark")

"""What the page shows of a photograph, as numbers, and in a browser."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from served import canvas, expected, needs_chromium, opened, send

from fastseg.inference.app_view import areas, cutout_png, mask_png, view_html


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
    image, prediction = predicted
    html = view_html(image, prediction)
    url = re.search(r"data-ids='data:image/png;base64,([^']+)'", html)[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))), prediction.ids)
    assert html.count("<table") == prediction.hierarchy.depth
    assert not re.search(r"https?:|<script", html)


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

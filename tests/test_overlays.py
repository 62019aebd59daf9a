import numpy as np
import pytest
from PIL import Image

from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.overlays import cut_out, legend, overlay, palette, with_legend

TREE = Hierarchy(PASCAL_PART)
GREY = np.full((2, 3, 3), 100, np.uint8)


def test_overlay_by_hand():
    ids = np.array([[0, 4, 255], [0, 5, 0]], np.uint8)
    picture = overlay(GREY, ids, TREE, level=1, alpha=0.5)
    assert picture.dtype == np.uint8
    assert (picture[ids == 0] == 100).all()
    upper, lower = TREE.colours(1)[1:].astype(int)
    assert np.abs(picture[0, 1] - (100 + upper) / 2).max() <= 1
    assert np.abs(picture[1, 1] - (100 + lower) / 2).max() <= 1
    assert picture[0, 2].tolist() == [130, 130, 130]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.6, 1.0])
def test_overlay_is_the_weighted_mean_to_half_a_step(alpha):
    rng = np.random.default_rng(0)
    image, ids = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 7, (40, 50), np.uint8)
    share = round(256 * (1 - alpha)) / 256
    expected = image * share + TREE.colours()[ids] * (1 - share)
    expected[ids == 0] = image[ids == 0]
    assert np.abs(overlay(image, ids, TREE, alpha=alpha) - expected).max() <= 0.51


def test_a_palette_picture_keeps_its_ids():
    ids = np.array([[0, 1, 2], [4, 5, 6]], np.uint8)
    picture = Image.fromarray(ids)
    picture.putpalette(palette(TREE))
    assert (np.asarray(picture) == ids).all()
    assert (np.asarray(picture.convert("RGB")) == TREE.colours()[ids]).all()


@pytest.mark.parametrize("width", [1, 60, 500])
def test_the_legend_shows_every_colour_of_its_level(width):
    strip = np.asarray(legend(TREE, 1, width))
    assert strip.shape[1] == width
    if width >= 60:
        shown = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
        assert {tuple(colour) for colour in TREE.colours(1)[1:].tolist()} <= shown
    assert with_legend(np.zeros((20, width, 3), np.uint8), TREE, 1).size == (width, 20 + len(strip))


def test_a_cut_out_is_bare_outside():
    inside = np.array([[True, False, True], [False, False, False]])
    cut = np.asarray(cut_out(GREY, inside))
    assert (cut[..., 3] == inside * 255).all()
    assert (cut[..., :3] == 100).all()

import numpy as np
import pytest
from PIL import Image

from fastseg.data.pictures import mask_shape, read_image, read_mask
from fastseg.errors import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "I", "F", "YCbCr"])
def test_every_mode_becomes_rgb_of_the_same_picture(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "P":
        image = image.convert("RGB").quantize(256)
        image.info["transparency"] = 3
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tif" if mode in ("F", "I") else "a.png")
    image.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", (32, 24))
    difference = np.asarray(read).astype(int) - grey[..., None]
    # One bit a pixel can only keep the brightness on average.
    assert abs(difference.mean()) < 4 if mode == "1" else np.abs(difference).max() <= 6


def _photograph(path, size, orientation):
    """A picture whose top left corner is red, stored so that `orientation` turns it."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
    ("size", "mask", "turned"),
    [((40, 30), (40, 30), True), ((40, 30), (30, 40), False), ((32, 32), (32, 32), True)],
)
def test_orientation_is_honoured_where_the_mask_says_so(tmp_path, size, mask, turned):
    _photograph(tmp_path / "a.jpg", size, 6)
    image = np.asarray(read_image(tmp_path / "a.jpg", mask)).astype(int)
    assert image.shape[:2] == mask
    # Orientation 6 is a quarter turn clockwise: the red corner moves to the top right.
    corner = image[2, -3] if turned else image[2, 2]
    assert corner[0] > 200 > 60 > corner[1]


def test_orientation_without_a_mask_and_with_one_that_fits_neither(tmp_path):
    _photograph(tmp_path / "a.jpg", (40, 30), 8)
    assert read_image(tmp_path / "a.jpg").size == (30, 40)
    with pytest.raises(InputError, match=r"a.jpg: 40x30 \(height x width\), but its mask is 30x41"):
        read_image(tmp_path / "a.jpg", (30, 41))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_npy_masks_of_any_integer_dtype(tmp_path, dtype):
    ids = RNG.integers(0, 7, (6, 5))
    np.save(tmp_path / "a.npy", ids.astype(dtype))
    read = read_mask(tmp_path / "a.npy", 7)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ids)
    assert mask_shape(tmp_path / "a.npy") == (6, 5)


@pytest.mark.parametrize("palette", [True, False])
def test_png_masks_are_raw_ids(tmp_path, palette):
    ids = RNG.integers(0, 7, (6, 5)).astype(np.uint8)
    ids[0, 0] = 255
    image = Image.fromarray(ids)
    if palette:
        image = Image.frombytes("P", (5, 6), ids.tobytes())
        image.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", 7), ids)


WRONG_MASKS = {
    "float": (np.zeros((3, 4)), "float64"),
    "rgb": (np.zeros((3, 4, 3), np.uint8), r"\(3, 4, 3\)"),
    "empty": (np.zeros((0, 0), np.uint8), r"\(0, 0\)"),
    "stranger": (np.full((3, 4), 7), "class id 7 is not in the tree"),
    "negative": (np.full((3, 4), -1), "class id -1"),
    "large": (np.full((3, 4), 256), "class id 256"),
    "pickled": (np.array([[{}]], dtype=object), "not a readable .npy"),
}


@pytest.mark.parametrize("fault", WRONG_MASKS)
def test_masks_that_cannot_be(tmp_path, fault):
    values, message = WRONG_MASKS[fault]
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "a.npy", 7)


def test_png_masks_that_cannot_be(tmp_path):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="mode RGB"):
        read_mask(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    with pytest.raises(InputError, match=r"b\.png"):
        read_mask(tmp_path / "b.png")
    (tmp_path / "c.npy").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"c\.npy"):
        mask_shape(tmp_path / "c.npy")


def test_a_photograph_that_breaks_off(drawn_copy):
    path = next((drawn_copy / "JPEGImages").iterdir())
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="breaks off"):
        read_image(path)

"""What is taken for a photograph, and what is refused, before memory is taken."""

import re

import numpy as np
import pytest
from PIL import Image
from served import LIMITS, bomb

from fastseg.errors import InputError
from fastseg.inference.uploads import read_upload


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

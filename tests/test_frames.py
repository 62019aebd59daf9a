import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastseg.data.files import Files, JoinedFiles, open_files
from fastseg.data.frames import PADDING, FrameReader, Framing, count_pixels, decode_image
from fastseg.data.framing import ArrayFraming
from fastseg.data.pictures import read_image, read_mask
from fastseg.errors import InputError
from fastseg.hierarchy import IGNORE_INDEX

RNG = np.random.default_rng(0)


def soft(size=(60, 90)):
    """Noise that JPEG likes: smooth, of all colours."""
    coarse = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8))
    return coarse.resize(size[::-1], Image.Resampling.BICUBIC)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


JPEGS = {
    "plain": {"quality": 90},
    "poor": {"quality": 20},
    "full colour": {"quality": 90, "subsampling": 0},
    "half colour": {"quality": 90, "subsampling": 1},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "with exif": turned(1),
    "turned": turned(6),
    "upside down": turned(3),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_decoding_equals_pillows_to_the_bit(tmp_path, kind):
    for size in ((60, 90), (61, 47), (8, 8), (1, 5)):
        soft(size).save(tmp_path / "a.jpg", **JPEGS[kind])
        expected = np.asarray(read_image(tmp_path / "a.jpg"))
        decoded = decode_image(tmp_path / "a.jpg")
        np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("L", "png")]
)
def test_other_modes_and_formats_are_pillows_too(tmp_path, mode, suffix):
    soft().convert(mode).save(tmp_path / f"a.{suffix}")
    expected = np.asarray(read_image(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(decode_image(tmp_path / f"a.{suffix}").permute(1, 2, 0).numpy(), expected)


def test_broken_photographs_are_named(tmp_path):
    file = io.BytesIO()
    soft().save(file, "jpeg")
    whole = file.getvalue()
    for content, said in (
        (whole[: len(whole) // 2], "breaks off"),
        (b"nothing", "not a readable"),
        (b"", "not a readable"),
    ):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.jpg: .*{said}"):
            decode_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(whole)
    with pytest.raises(InputError, match=r"60x90 \(height x width\), but its mask is 90x61"):
        decode_image(tmp_path / "a.jpg", (90, 61))


@pytest.mark.parametrize("size", [(40, 40), (33, 120), (128, 96)])
def test_resizing_is_antialiased_as_pillows(size):
    for own in ((60, 90), (200, 150), (375, 500)):
        image = soft(own)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        mine = Framing(size).image(pixels).permute(1, 2, 0).numpy().astype(int)
        pillow = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(mine - pillow).mean() < 0.5
        same = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
        assert torch.equal(Framing(size).image(pixels), same)


@pytest.mark.parametrize("pad", [False, True])
def test_masks_are_brought_by_nearest_neighbour(pad):
    for own in ((60, 90), (20, 7), (375, 500)):
        ids = RNG.integers(0, 7, own).astype(np.uint8)
        framing = Framing((64, 96), pad)
        top, left, high, wide = framing.box(own)
        expected = np.full((64, 96), IGNORE_INDEX)
        for row in range(high):
            for column in range(wide):
                source = int((row + 0.5) * own[0] / high), int((column + 0.5) * own[1] / wide)
                expected[top + row, left + column] = ids[source]
        np.testing.assert_array_equal(framing.mask(ids), expected)


def test_padding_keeps_the_aspect_in_the_middle():
    framing = Framing((100, 100), pad=True)
    assert framing.box((50, 100)) == (25, 0, 50, 100)
    assert framing.box((300, 150)) == (0, 25, 100, 50)
    assert framing.box((1, 400)) == (49, 0, 1, 100)
    image = torch.full((3, 50, 100), 7, dtype=torch.uint8)
    frame = framing.image(image)
    assert (frame[:, 25:75] == 7).all()
    outside = torch.cat([frame[:, :25], frame[:, 75:]], 1).flatten(1).T
    assert outside.unique(dim=0).tolist() == [list(PADDING)]
    assert Framing.whole([10, 20], "squish") == Framing((10, 20))
    assert Framing.whole([10, 20], "crop") == Framing.whole([10, 20], "pad") == Framing((10, 20), pad=True)


def test_undoing_a_frame_gives_the_photographs_own_pixels():
    ids = np.repeat(np.repeat(RNG.integers(0, 7, (4, 8)), 16, 0), 16, 1).astype(np.uint8)
    framing = Framing((96, 96), pad=True)
    framed = framing.mask(ids)
    logits = F.one_hot(torch.from_numpy(framed).long().clamp(max=7), 8).permute(2, 0, 1)[None].float()
    back = framing.undo(logits, ids.shape)
    assert back.shape == (1, 8, 64, 128)
    assert (back[:, 7] == 0).all()
    assert (back.argmax(1)[0].numpy() == ids).mean() > 0.95
    assert framing.undo(torch.zeros(1, 2, 96, 96), (96, 96)).shape == (1, 2, 96, 96)
    same = torch.rand(1, 2, 5, 7)
    expected = F.interpolate(same, (10, 9), mode="bilinear", align_corners=False)
    assert torch.equal(Framing((5, 7)).undo(same, (10, 9)), expected)


def test_a_reader_gives_whole_batches(drawn):
    files = Files(drawn)
    names = files.ids("train_id.txt")
    reader = FrameReader(files, names, 7, Framing((32, 48)))
    images, masks, shapes = reader([3, 0, 3])
    assert (images.shape, images.dtype, masks.shape, masks.dtype) == (
        (3, 3, 32, 48),
        torch.uint8,
        (3, 32, 48),
        torch.uint8,
    )
    assert torch.equal(images[0], images[2])
    for row, item in enumerate((3, 0)):
        ids = read_mask(files.mask(names[item]))
        assert tuple(shapes[row]) == ids.shape
        np.testing.assert_array_equal(masks[row].numpy(), Framing((32, 48)).mask(ids))
        assert torch.equal(images[row], Framing((32, 48)).image(decode_image(files.image(names[item]))))


def test_counts_are_the_masks_own(drawn):
    files = Files(drawn)
    names = files.ids("train_id.txt")
    expected = sum(np.bincount(read_mask(files.mask(name)).ravel(), minlength=7) for name in names)
    np.testing.assert_array_equal(count_pixels(files, names, 7), expected)


def test_several_folders_are_one_dataset(drawn, drawn_copy):
    both = open_files([drawn, drawn_copy])
    assert isinstance(both, JoinedFiles)
    first, second = drawn.name, drawn_copy.name
    assert len(both.ids("train_id.txt")) == 16
    assert both.ids("train_id.txt", 3) == [
        f"{first}/sample_000000",
        f"{second}/sample_000000",
        f"{first}/sample_000001",
    ]
    assert both.mask(f"{second}/sample_000002") == drawn_copy / "gt_masks" / "sample_000002.npy"
    both.check(both.ids("val_id.txt"))
    with pytest.raises(InputError, match="none of the datasets"):
        both.image("sample_000000")
    assert list(open_files([drawn, drawn]).parts) == [first, f"{first}-2"]
    assert open_files([drawn]) == Files(drawn)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (40, 30), (123, 77)])
def test_arrays_are_framed_and_undone_as_tensors_are(shape, pad):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    arrays, tensors = ArrayFraming((32, 48), pad), Framing((32, 48), pad)
    frame = arrays.image(image).astype(int)
    assert np.abs(frame - tensors.image(torch.from_numpy(image).permute(2, 0, 1)).numpy().astype(int)).max() <= 1
    logits = np.random.default_rng(1).normal(0, 3, (2, 4, 32, 48)).astype(np.float32)
    expected = tensors.undo(torch.from_numpy(logits), shape).numpy()
    np.testing.assert_allclose(arrays.undo(logits, shape), expected, atol=1e-4)
    rows = slice(shape[0] // 3, shape[0] // 3 * 2 + 1)
    for framing, given in ((arrays, logits), (tensors, torch.from_numpy(logits))):
        np.testing.assert_allclose(framing.undo(given, shape, rows=rows), expected[:, :, rows], atol=1e-4)

import pickle

import pytest

from fastseg.data.files import Files, GetImage, GetMask, read_ids
from fastseg.errors import InputError


@pytest.mark.parametrize(
    "text", ["a.1\nb\n", "a.1\r\nb\r\n", "\n a.1  \n\n\tb\t\n\n", "a.1.jpg\nb.JPG", "\ufeffa.1\nb.png\n"]
)
def test_ids_are_read_whatever_the_editor_did(tmp_path, text):
    (tmp_path / "ids.txt").write_bytes(text.encode())
    assert read_ids(tmp_path / "ids.txt") == ["a.1", "b"]


def test_limits_take_the_first_ids(drawn):
    files = Files(drawn)
    assert files.ids("train_id.txt", 3) == files.ids("train_id.txt")[:3]
    assert len(files.ids("train_id.txt")) == 8


def test_getters_are_small_and_picklable(drawn):
    name = Files(drawn).ids("train_id.txt")[0]
    get_image, get_mask = pickle.loads(pickle.dumps((GetImage(drawn), GetMask(drawn, leaves=7))))
    image, mask = get_image(name), get_mask(name)
    assert (image.mode, mask.mode) == ("RGB", "L")
    assert image.size == mask.size


def test_getters_stand_alone_in_somebodys_datablock(drawn):
    from fastai.vision.all import DataBlock, ImageBlock, MaskBlock, RandomSplitter, Resize

    block = DataBlock((ImageBlock, MaskBlock(codes=list("abcdefg"))), get_x=GetImage(drawn), get_y=GetMask(drawn),
                      splitter=RandomSplitter(0.25, seed=0), item_tfms=Resize(32))  # fmt: skip
    x, y = block.dataloaders(Files(drawn).ids("train_id.txt"), bs=4, num_workers=0).one_batch()
    assert x.shape == (4, 3, 32, 32)
    assert y.max() <= 6


def test_check_names_the_first_fault_and_counts_the_rest(drawn_copy):
    files = Files(drawn_copy)
    names = files.ids("train_id.txt")
    files.check(names)
    (drawn_copy / "gt_masks" / f"{names[2]}.npy").unlink()
    (drawn_copy / "JPEGImages" / f"{names[4]}.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{names[2]}: no mask .*{names[2]}\.npy.*1 more ids"):
        files.check(names)
    with pytest.raises(InputError, match="not a readable photograph"):
        files.check(names[3:])
    with pytest.raises(InputError, match="no photograph"):
        files.check(["nobody"])
    with pytest.raises(InputError, match="no folder"):
        Files(drawn_copy, masks="masks").check(names)
    with pytest.raises(InputError, match="no id file"):
        files.ids("nothing.txt")
    with pytest.raises(InputError, match=r"data\.root"):
        Files(drawn_copy / "away").ids("train_id.txt")


def test_a_file_of_another_kind_is_named(drawn_copy):
    files = Files(drawn_copy)
    files.image("sample_000001").rename(drawn_copy / "JPEGImages" / "sample_000001.gif")
    with pytest.raises(InputError, match=r"no photograph .*000001\.jpg \(sample_000001\.gif is not read: .*\.jpg"):
        files.image("sample_000001")
    with pytest.raises(InputError, match=r"none\.jpg: no such photograph"):
        GetImage(drawn_copy)("none.jpg")


def test_an_opened_picture_is_taken_as_it_is(drawn):
    from PIL import Image

    path = Files(drawn).image("sample_000000")
    with Image.open(path) as image:
        assert GetImage(drawn)(image).tobytes() == GetImage(drawn)(path).tobytes()

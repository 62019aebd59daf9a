import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastseg.data.files import Files
from fastseg.data.loaders import PartMask, seg_dataloaders
from fastseg.data.pictures import read_mask
from fastseg.errors import InputError


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_batches_are_photographs_and_ids_of_the_asked_size(tiny):
    dls = seg_dataloaders(tiny("data.size=64x32"))
    x, y = dls.train.one_batch()
    assert (x.shape, x.dtype) == ((4, 3, 64, 32), torch.float32)
    assert (y.shape, y.dtype, type(y)) == ((4, 64, 32), torch.int64, PartMask)
    assert 0 <= x.min() < x.max() <= 1
    assert dls.vocab[4] == "head"
    assert dls.c == 7
    assert (len(dls.train_ds), len(dls.valid_ds)) == (8, 2)


def test_masks_gain_no_class_by_resizing_and_stay_beside_their_photographs(tiny, drawn):
    cfg = tiny("data.size=32x32")
    dls = seg_dataloaders(cfg)
    names = Files(drawn).ids("train_id.txt")
    for i, name in enumerate(names):
        ids = read_mask(Files(drawn).mask(name))
        image, mask = dls.train_ds[i]
        assert image.size == mask.size == ids.shape[::-1]
        _, small = dls.train.after_item(dls.train_ds[i])
        assert set(np.unique(small)) <= set(np.unique(ids))
        # Nearest neighbour takes the pixel under each target pixel's centre.
        rows = ((np.arange(32) + 0.5) * ids.shape[0] / 32).astype(int)
        columns = ((np.arange(32) + 0.5) * ids.shape[1] / 32).astype(int)
        np.testing.assert_array_equal(np.asarray(small), ids[np.ix_(rows, columns)])


def test_limits(tiny, capsys):
    dls = seg_dataloaders(tiny("data.limit=5", "data.limit_valid=1"))
    assert (len(dls.train_ds), len(dls.valid_ds)) == (5, 1)
    assert list(dls.train_ds.items) == [f"sample_{i:06d}" for i in range(5)]
    assert capsys.readouterr().err == ""
    dls = seg_dataloaders(tiny("data.limit=50"))
    assert len(dls.train_ds) == 8
    assert capsys.readouterr().err == "data.limit: 50 is more than the 8 ids of train_id.txt; taking all\n"


def test_counts_are_checked_before_any_picture_is_opened(tiny, drawn_copy):
    for picture in (drawn_copy / "JPEGImages").iterdir():
        picture.write_bytes(b"")
    with pytest.raises(InputError, match=r"8 training photographs are fewer than one batch of 9.*batch_size to 8"):
        seg_dataloaders(tiny("train.batch_size=9", root=drawn_copy))
    (drawn_copy / "val_id.txt").write_text("\n")
    with pytest.raises(InputError, match=r"val_id\.txt: no ids to validate on"):
        seg_dataloaders(tiny(root=drawn_copy))


def test_show_batch_draws_the_level_with_a_legend(tiny):
    dls = seg_dataloaders(tiny())
    batch = dls.one_batch()
    pictures = []
    for level, names in enumerate([["body"], ["upper body", "lower body"], ["low hand", "torso", "low leg"]]):
        dls.show_batch(batch, max_n=4, level=level)
        figure = plt.gcf()
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert shown[: len(names)] == names
        pictures.append(figure.axes[0].images[0].get_array())
    bare = (batch[0][0] * 255).permute(1, 2, 0).numpy()
    head = (batch[1][0] == 4).numpy()
    tree = tiny().classes()
    assert head.any()
    for level, picture in enumerate(pictures):
        node = tree.levels[level].table[4]
        expected = 0.4 * bare[head] + 0.6 * tree.colours(level)[node]
        assert np.abs(picture[head] - expected).max() < 2
        nobody = (batch[1][0] == 0).numpy()
        assert np.abs(picture[nobody] - bare[nobody]).max() < 2


def test_the_order_of_an_epoch_does_not_depend_on_workers(tiny):
    import random

    orders = []
    for workers in (0, 2):
        train = seg_dataloaders(tiny(f"data.workers={workers}")).train
        train.rng = random.Random("0-0")
        orders.append(torch.cat([y.flatten(1).float().mean(1) for _, y in train]))
    assert torch.equal(*(order.as_subclass(torch.Tensor) for order in orders))

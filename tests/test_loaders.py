import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fastseg.data.files import Files
from fastseg.data.loaders import seg_dataloaders
from fastseg.data.masks import PartMask
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


def epoch_of(train, number=0):
    import random

    train.rng, train.epoch = random.Random(number), number
    return [tuple(part.as_subclass(torch.Tensor) for part in batch) for batch in train]


def equal(first, second):
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("resize", ["squish", "pad", "crop"])
def test_augmented_batches_depend_on_seed_and_epoch_not_on_workers_or_the_cache(tiny, tmp_path, monkeypatch, resize):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    keys = (f"data.resize={resize}", "augment.preset=strong", "augment.class_crop=1")

    def loader(*more):
        return seg_dataloaders(tiny(*keys, *more)).train

    first = epoch_of(loader())
    assert first[0][0].shape == (4, 3, 32, 64)
    assert equal(first, epoch_of(loader("data.workers=2")))
    assert equal(first, epoch_of(loader("data.cache=true")))
    assert equal(first, epoch_of(loader("data.cache=device")))
    assert not equal(first, epoch_of(loader(), 1))
    assert not equal(first, epoch_of(loader("train.seed=1")))


def test_a_learner_counts_the_epochs_of_its_augmentation(quiet):
    from fastai.callback.core import Callback

    class Sums(Callback):
        def before_batch(self):
            if self.training:
                sums.append(float(self.x.sum()))

    runs = []
    for fits in ((2,), (1, 1)):
        sums = []
        learn = quiet("augment.preset=light", cbs=Sums())
        for epochs in fits:
            learn.fit(epochs, 1e-4)
        runs.append(sums)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(runs[0]) == 4


def test_padding_is_255_and_validation_sees_the_whole_photograph(tiny):
    for resize in ("pad", "crop"):
        dls = seg_dataloaders(tiny(f"data.resize={resize}", "data.size=64x64"))
        _, y = dls.valid.one_batch()
        for mask, item in zip(y, dls.valid_ds, strict=False):
            wide, high = item[0].size
            inner = (mask != 255).nonzero()
            shape = inner.amax(0) - inner.amin(0) + 1
            assert shape.max() == 64
            assert abs(shape[0] / shape[1] - high / wide) < 0.05
    assert 255 not in seg_dataloaders(tiny()).valid.one_batch()[1]


def test_crops_are_random_parts_at_the_photographs_own_aspect(tiny):
    train = seg_dataloaders(tiny("data.resize=crop", "data.size=32x32", "train.batch_size=8")).train
    shares = torch.stack([(epoch_of(train, i)[0][1] != 255).float().mean((1, 2)) for i in range(6)])
    # From the whole photograph with bars around it to a window that is filled.
    assert shares.min() < 0.85
    assert shares.max() == 1
    assert shares.std() > 0.03


def test_show_batch_unique_shows_one_photograph_many_ways(tiny):
    dls = seg_dataloaders(tiny("augment.preset=strong"))
    *_, samples = dls.train.show_batch(show=False, unique=True, max_n=4)
    assert len({float(image.sum()) for image, _ in samples}) == 4


def test_several_roots_train_together(tiny, drawn, drawn_copy):
    dls = seg_dataloaders(tiny(f"data.root=[{drawn}, {drawn_copy}]", "data.limit=6"))
    assert len(dls.train_ds) == 6
    assert {name.partition("/")[0] for name in dls.train_ds.items} == {drawn.name, drawn_copy.name}
    x, y = dls.valid.one_batch()
    assert torch.equal(x[:2], x[2:])
    assert torch.equal(y[:2], y[2:])

import numpy as np
import pytest
import torch
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.augmentations import AUGMENTATIONS, AugmentSettings
from fastseg.data.augment import CHANCES, Augmentation, draw_chances
from fastseg.data.masks import PartMask
from fastseg.hierarchy import IGNORE_INDEX, PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
SIDES = Hierarchy({"background": 0, "person": {"left_arm": 1, "right_arm": 2, "head": 3}}, [("left_arm", "right_arm")])
# LIP's ids (notes of the field): 14 left-arm, 15 right-arm, 16 left-leg, 17 right-leg, 18 left-shoe, 19 right-shoe.
LIP = Hierarchy(
    {"background": 0, **{f"part{i}": i for i in range(1, 14)},
     "left_arm": 14, "right_arm": 15, "left_leg": 16, "right_leg": 17, "left_shoe": 18, "right_shoe": 19},
    [("left_arm", "right_arm"), ("left_leg", "right_leg"), ("left_shoe", "right_shoe")])  # fmt: skip


def painted(masks):
    """Photographs whose red is the id: what is told of the mask can be read in the picture."""
    x = torch.zeros(len(masks), 3, *masks.shape[1:])
    x[:, 0] = masks / 10
    x[:, 1] = 0.5
    return TensorImage(x), PartMask(masks.long())


def patches(seed, size=(48, 64), leaves=7, count=3):
    """Masks of large patches, so that most pixels lie inside one."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, leaves, (count, 4, 4))
    return torch.from_numpy(coarse.repeat(size[0] // 4, 1).repeat(size[1] // 4, 2))


def change(numbers, masks, size=None, seed=0, tree=TREE, **kwargs):
    transform = Augmentation(size or masks.shape[1:], AugmentSettings(**{"preset": "none", **numbers}), tree, **kwargs)
    chances = draw_chances(seed, 0, range(len(masks)), np.ones((len(masks), 2)))
    x, y = transform((*painted(masks), chances), split_idx=0)
    return x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)


GEOMETRY = st.fixed_dictionaries(
    {
        "flip": st.sampled_from([0.0, 0.5, 1.0]),
        "rotate": st.floats(0, 90),
        "scale": st.tuples(st.floats(0.4, 1), st.floats(1, 2.5)),
        "perspective": st.floats(0, 0.3),
        "class_crop": st.sampled_from([0.0, 0.5, 1.0]),
        "erase": st.sampled_from([0.0, 1.0]),
    }
)


@settings(max_examples=60, deadline=None)
@given(GEOMETRY, st.integers(0, 10**6), st.sampled_from([(48, 64), (32, 32), (60, 40)]))
def test_photograph_and_mask_stay_together_and_no_id_appears(numbers, seed, size):
    masks = patches(seed)
    x, y = change(numbers, masks, size, seed)
    assert set(y.unique().tolist()) <= {*masks.unique().tolist(), IGNORE_INDEX}
    # Where all neighbours are of one id, the interpolated red is that id's.
    inside = (y != IGNORE_INDEX)[:, 1:-1, 1:-1]
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            near = y[:, 1 + down : y.shape[1] - 1 + down, 1 + across : y.shape[2] - 1 + across]
            inside &= near == y[:, 1:-1, 1:-1]
    told = (x[:, 0, 1:-1, 1:-1] * 10).round().long()
    share = (told == y[:, 1:-1, 1:-1])[inside].float().mean()
    assert inside.sum() == 0 or share > 0.995


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_flips_are_exact_inverses_and_exchange_the_pairs(seed):
    masks = patches(seed, leaves=4)
    masks[0, :3] = IGNORE_INDEX
    x, y = painted(masks)
    once = Augmentation((48, 64), AugmentSettings(flip=1.0), SIDES)
    chances = draw_chances(seed, 0, range(3), np.ones((3, 2)))
    first = once((x, y, chances), split_idx=0)
    swapped = masks.flip(-1).clone()
    swapped[masks.flip(-1) == 1], swapped[masks.flip(-1) == 2] = 2, 1
    assert torch.equal(first[1].as_subclass(torch.Tensor), swapped)
    assert torch.equal(first[0].as_subclass(torch.Tensor), x.as_subclass(torch.Tensor).flip(-1))
    back = once((*first, chances), split_idx=0)
    assert torch.equal(back[0], x)
    assert torch.equal(back[1], y)


def test_lips_sides_change_places_where_a_photograph_is_flipped():
    masks = torch.tensor([[[14, 13, 16, 15], [18, 0, 17, 255]]])
    _, y = change({"flip": 1.0}, masks, tree=LIP)
    assert y.tolist() == [[[14, 17, 13, 15], [255, 16, 0, 19]]]


def test_outside_of_the_photograph_is_255_in_the_mask_and_plain_in_the_picture():
    masks = torch.ones(2, 32, 32, dtype=torch.long)
    x, y = change({"scale": (0.5, 0.5)}, masks)
    assert (y == 1).sum(dim=(1, 2)).tolist() == [256, 256]
    assert set(y.unique().tolist()) == {1, IGNORE_INDEX}
    outside = x[:, 0][y == IGNORE_INDEX]
    assert (outside - 124 / 255).abs().median() < 1e-6


def test_erased_is_255():
    masks = torch.full((4, 40, 40), 2)
    x, y = change({"erase": 1.0, "erase_area": (0.1, 0.1)}, masks)
    gone = (y == IGNORE_INDEX).float().mean((1, 2))
    assert torch.allclose(gone, torch.tensor(0.1), atol=0.02)
    for one, ids in zip(x, y, strict=True):
        assert len(one[:, ids == IGNORE_INDEX].unique(dim=1).T) == 1


def test_class_aware_crops_show_the_rare_class():
    masks = torch.zeros(40, 64, 64, dtype=torch.long)
    masks[:, 50:58, 4:12], masks[:, 20:40, 20:40] = 3, 2
    rarity = [0, 0, 1, 400, 0, 0, 0]
    _, y = change({"class_crop": 1.0, "class_crop_zoom": (3, 3)}, masks, rarity=rarity)
    assert ((y == 3).sum(dim=(1, 2)) > 64).float().mean() > 0.9
    # Not over the edge of the photograph, though the class lies near it.
    assert (y != IGNORE_INDEX).all()
    few = {"class_crop": 1.0, "class_crop_zoom": (3, 3), "class_crop_pixels": 65}
    _, y = change(few, masks, rarity=rarity)
    assert ((y == 2).sum(dim=(1, 2)) > 0).all()
    _, y = change({"class_crop": 1.0}, torch.zeros(2, 64, 64, dtype=torch.long))
    assert (y == 0).all()


def test_what_is_drawn_is_a_function_of_seed_epoch_and_item():
    inner = np.ones((3, 2))
    first = draw_chances(1, 2, [5, 6, 5], inner)
    assert torch.equal(first[:2], draw_chances(1, 2, [5, 6], inner[:2]))
    assert torch.equal(first[1:2], draw_chances(1, 2, [6], inner[:1]))
    assert not torch.equal(first[0], first[2])
    for other in (draw_chances(0, 2, [5], inner[:1]), draw_chances(1, 3, [5], inner[:1])):
        assert not torch.equal(first[:1], other)
    assert first.shape == (3, len(CHANCES) + 2)
    assert 0 <= first.min() <= first.max() <= 1
    assert 0.45 < draw_chances(0, 0, range(400), np.zeros((400, 2)))[:, :-2].mean() < 0.55


def test_nothing_happens_to_validation_or_without_a_setting():
    masks = patches(0)
    x, y = painted(masks)
    strong = Augmentation((48, 64), AugmentSettings(preset="strong"), TREE)
    kept = strong((x, y), split_idx=1)
    assert kept[0] is x
    assert kept[1] is y
    x0, y0 = change({}, masks)
    assert torch.equal(x0, x.as_subclass(torch.Tensor))
    assert torch.equal(y0, masks.long())


def test_it_stands_in_somebodys_own_loaders(drawn):
    from fastai.vision.all import DataBlock, ImageBlock, IndexSplitter, Resize

    from fastseg.data.files import Files, GetImage, GetMask
    from fastseg.data.masks import PartMaskBlock

    names = Files(drawn).ids("train_id.txt")
    strong = Augmentation((32, 48), AugmentSettings(preset="strong"), TREE)
    block = DataBlock((ImageBlock, PartMaskBlock(TREE)), getters=[GetImage(drawn), GetMask(drawn)],
                      splitter=IndexSplitter([6, 7]), item_tfms=Resize((32, 48)), batch_tfms=strong)  # fmt: skip
    dls = block.dataloaders(names, bs=4, num_workers=0)
    torch.manual_seed(0)
    x, y = dls.train.one_batch()
    assert (x.shape, y.shape) == ((4, 3, 32, 48), (4, 32, 48))
    assert 255 in y
    assert 255 not in dls.valid.one_batch()[1]


@pytest.mark.parametrize("preset", AUGMENTATIONS)
def test_presets_set_every_number(preset):
    numbers = AugmentSettings(preset=preset).resolved()
    assert all(getattr(numbers, key) is not None for key in AUGMENTATIONS["none"])
    assert AugmentSettings(preset=preset).active() == (preset != "none")
    assert AugmentSettings(preset=preset, rotate=3).resolved().rotate == 3

import numpy as np
import torch
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data.augment import Augmentation, draw_chances
from fastseg.data.loaders import PartMask
from fastseg.hierarchy import IGNORE_INDEX, PASCAL_PART, Hierarchy
from fastseg.settings import AugmentSettings

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
    transform = Augmentation(size or masks.shape[1:], AugmentSettings(**numbers), tree, **kwargs)
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

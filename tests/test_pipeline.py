import json

import numpy as np
import pytest
import torch
import yaml

from fastseg.data.loaders import seg_dataloaders
from fastseg.data.pipeline import Pipeline
from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy

TREE = Hierarchy(PASCAL_PART)
SIDES = Hierarchy({"background": 0, "arms": {"left_arm": 1, "right_arm": 2}}, [("left_arm", "right_arm")])
FLIP = {"__class_fullname__": "HorizontalFlip", "p": 0.5}
TURN = {"__class_fullname__": "Affine", "rotate": [-30, 30], "p": 1.0, "fill_mask": 255, "mask_interpolation": 0}


def written(path, *transforms):
    content = {"__version__": "2.0.8", "transform": {"__class_fullname__": "Compose", "transforms": list(transforms)}}
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


def frames():
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 7, (3, 4, 4))).byte()
    masks = masks.repeat_interleave(8, 1).repeat_interleave(12, 2)
    return (masks[:, None] * 30).expand(3, 3, 32, 48).clone(), masks


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_photograph_and_mask_go_through_it_together(tmp_path, suffix):
    images, masks = frames()
    pipeline = Pipeline(written(tmp_path / f"a.{suffix}", FLIP), TREE)
    outcomes = set()
    for epoch in range(12):
        x, y = pipeline(images.clone(), masks.clone(), (0, epoch), [4, 5, 6])
        assert torch.equal(x, (y[:, None] * 30).expand_as(x))
        for row in range(3):
            outcomes.add(torch.equal(y[row], masks[row].flip(-1)))
    assert outcomes == {True, False}


def test_its_luck_is_a_function_of_seed_epoch_and_item(tmp_path):
    images, masks = frames()
    file = written(tmp_path / "a.yaml", TURN)
    first = Pipeline(file, TREE)(images.clone(), masks.clone(), (0, 1), [4, 5, 6])
    second = Pipeline(file, TREE)(images.flip(0).clone(), masks.flip(0).clone(), (0, 1), [6, 5, 4])
    assert torch.equal(first[0], second[0].flip(0))
    assert 255 in first[1]
    other = Pipeline(file, TREE)(images.clone(), masks.clone(), (0, 2), [4, 5, 6])
    assert not torch.equal(first[0], other[0])


def test_batches_of_a_configuration_with_a_pipeline(tiny, tmp_path):
    file = written(tmp_path / "a.yaml", TURN)
    batches = []
    for workers in (0, 2):
        dls = seg_dataloaders(tiny(f"augment.albumentations={file}", f"data.workers={workers}"))
        train = dls.train.new(shuffle=False)
        batches.append(next(iter(train)))
        assert 255 not in dls.valid.one_batch()[1]
    assert 255 in batches[0][1]
    assert torch.equal(batches[0][0], batches[1][0])


FAULTS = {
    "missing": (None, "No such file"),
    "not a pipeline": ("just: words", "no pipeline in it"),
    "not yaml": ("a: [", "not YAML or JSON"),
    "unknown transform": (
        "transform: {__class_fullname__: Nonsense, p: 1.0}",
        "not a pipeline that this albumentations",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_pipeline(tmp_path, fault):
    text, said = FAULTS[fault]
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"augment\.albumentations: .*a\.yaml: .*{said}"):
        Pipeline(tmp_path / "a.yaml", TREE)


def test_mirroring_is_refused_where_the_tree_has_sides(tmp_path):
    file = written(tmp_path / "a.yaml", {"__class_fullname__": "OneOf", "p": 1, "transforms": [FLIP, TURN]})
    Pipeline(file, TREE)
    with pytest.raises(InputError, match=r"HorizontalFlip would leave 'left_arm' on the wrong side; .*augment\.flip"):
        Pipeline(file, SIDES)


def test_what_it_makes_must_fit(tmp_path):
    images, masks = frames()
    smaller = written(tmp_path / "a.yaml", {"__class_fullname__": "Resize", "height": 8, "width": 8, "p": 1})
    with pytest.raises(InputError, match=r"gives uint8 \(8, 8, 3\) of \(32, 48, 3\)"):
        Pipeline(smaller, TREE)(images, masks, (0, 0), [0, 1, 2])
    filled = written(tmp_path / "b.yaml", {**TURN, "fill_mask": 9})
    with pytest.raises(InputError, match=r"makes the class id 9; .*fill_mask: 255"):
        Pipeline(filled, TREE)(images, masks, (0, 0), [0, 1, 2])


def test_the_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(InputError, match=r"pip install 'fastseg-parts\[albumentations\]'"):
        Pipeline(written(tmp_path / "a.yaml", TURN), TREE)

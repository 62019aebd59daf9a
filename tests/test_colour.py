import io

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur

from fastseg.data.colour import blur, boxes, jpeg, recolour

ONE, ZERO = torch.ones(2), torch.zeros(2)


def pictures(seed=0, size=(24, 40)):
    """Soft noise: a picture with edges of every direction and no pure black or white."""
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0.1, 0.9)


def test_factors_of_one_change_nothing():
    x = pictures()
    assert torch.allclose(recolour(x, ONE, ONE, ONE, ZERO), x, atol=1e-6)


def test_brightness_contrast_and_saturation_by_hand():
    x = pictures()
    luma = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(recolour(x, ONE * 0.5, ONE, ONE, ZERO), x * 0.5, atol=1e-6)
    mean = luma.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(recolour(x, ONE, ONE * 0.4, ONE, ZERO), mean + (x - mean) * 0.4, atol=1e-5)
    assert torch.allclose(recolour(x, ONE, ONE, ZERO, ZERO), luma.expand_as(x), atol=1e-6)


def test_a_third_of_the_circle_turns_red_to_green_and_leaves_grey():
    x = pictures() * 0.5 + 0.2
    assert torch.allclose(recolour(x, ONE, ONE, ONE, ONE / 3), x.roll(1, 1), atol=1e-5)
    grey = torch.full((2, 3, 4, 4), 0.3)
    assert torch.allclose(recolour(grey, ONE, ONE, ONE, ONE * 0.17), grey, atol=1e-6)


def test_each_photograph_by_its_own_numbers():
    x = pictures()
    out = recolour(x, torch.tensor([1.0, 0.5]), ONE, ONE, ZERO)
    assert torch.allclose(out[0], x[0], atol=1e-6)
    assert torch.allclose(out[1], x[1] * 0.5, atol=1e-6)


def test_blur_is_a_gaussian():
    x = pictures()
    out = blur(x, torch.tensor([1.0, 1.0]))
    expected = gaussian_blur(x, [7, 7], [1.0, 1.0])
    assert torch.allclose(out[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], atol=1e-5)
    assert torch.allclose(blur(x, torch.tensor([1e-9, 2.0]))[0], x[0], atol=1e-6)


def test_jpeg_is_as_poor_as_a_jpeg_of_that_quality():
    x = pictures(size=(40, 56)).mean(1, keepdim=True).expand(2, 3, 40, 56)
    for quality in (20, 50, 90):
        out = jpeg(x, ONE * quality)
        grey = (x[0, 0] * 255).round().byte().numpy()
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "jpeg", quality=quality)
        real = torch.from_numpy(np.asarray(Image.open(file)).copy()).float() / 255
        assert (out[0, 0] - real).abs().mean() * 255 < 0.6
    assert jpeg(pictures(size=(21, 35)), ONE * 50).shape == (2, 3, 21, 35)
    errors = [(jpeg(x, ONE * quality) - x).abs().mean() for quality in (10, 40, 90)]
    assert errors[0] > errors[1] > errors[2]


def test_boxes_have_the_asked_area_aspect_and_place():
    area, aspect = torch.tensor([0.25, 0.125, 1.0]), torch.tensor([1.0, 2.0, 5.0])
    place = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    found = boxes(area, aspect, place, (40, 40))
    assert found[0].nonzero().amax(0).tolist() == [19, 19]
    assert found[1].sum() == 200
    assert found[1].nonzero().amin(0).tolist() == [30, 20]
    assert found[2].float().mean() > 0.4

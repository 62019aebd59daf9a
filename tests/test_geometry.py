import math

import torch

from fastseg.data.geometry import homographies, rare_pixels, warp

FILL = torch.tensor([0.4, 0.5, 0.6])


def moved(images, masks, size=None, centre=(0.0, 0.0), zoom=1.0, angle=0.0, tilt=(0.0, 0.0)):
    count = len(images)
    matrices = homographies(torch.tensor([centre] * count), torch.full((count,), zoom), torch.full((count,), angle),
                            torch.tensor([tilt] * count), size or images.shape[-2:])  # fmt: skip
    return warp(images, masks, matrices, size or images.shape[-2:], FILL)


def test_nothing_moved_is_nothing_changed():
    images, masks = torch.rand(2, 3, 20, 30), torch.randint(0, 7, (2, 20, 30))
    x, y = moved(images, masks)
    assert torch.allclose(x, images, atol=1e-5)
    assert torch.equal(y, masks)


def test_a_quarter_turn_by_hand():
    masks = torch.arange(12).view(1, 3, 4)
    images = masks[:, None].expand(1, 3, 3, 4).float() / 12
    x, y = moved(images[..., :3], masks[..., :3], angle=math.pi / 2)
    # The source of the target's right edge lies at the source's lower edge: the picture turns against the clock.
    assert y.tolist() == [[[2, 6, 10], [1, 5, 9], [0, 4, 8]]]
    assert torch.allclose(x[:, 0] * 12, y.float(), atol=1e-4)


def test_turns_are_rigid_in_pixels():
    masks = torch.zeros(1, 40, 80, dtype=torch.long)
    masks[:, 10:30, 30:50] = 1
    _, y = moved(torch.zeros(1, 3, 40, 80), masks, angle=math.pi / 2)
    rows, columns = torch.nonzero(y[0] == 1, as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (20, 20)


def test_zoom_two_is_the_middle_at_twice_the_size():
    masks = torch.randint(0, 7, (1, 16, 16))
    _, y = moved(torch.rand(1, 3, 16, 16), masks, zoom=2.0)
    assert torch.equal(y, masks[:, 4:12, 4:12].repeat_interleave(2, 1).repeat_interleave(2, 2))
    _, y = moved(torch.rand(1, 3, 16, 16), masks, zoom=2.0, centre=(0.5, -0.5))
    assert torch.equal(y, masks[:, 0:8, 8:16].repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_a_larger_source_is_brought_to_the_target_without_flicker():
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    x, _ = moved(stripes, torch.zeros(1, 64, 64, dtype=torch.long), size=(24, 24), zoom=0.9)
    inside = x[:, :, 4:-4, 4:-4]
    # Stripes of one pixel are grey from afar, where bilinear sampling alone would show a false pattern.
    assert (inside - 0.5).abs().max() < 0.1


def test_perspective_bends_one_side_away():
    masks = torch.ones(1, 40, 40, dtype=torch.long)
    _, y = moved(torch.zeros(1, 3, 40, 40), masks, tilt=(0.3, 0.0))
    left, right = (y[0, :, 0] == 1).float().mean(), (y[0, :, -1] == 1).float().mean()
    assert left < right
    assert set(y.unique().tolist()) == {1, 255}


def test_rare_pixels_are_of_the_drawn_class_and_as_often_as_rarity_says():
    masks = torch.zeros(1, 10, 20, dtype=torch.long)
    masks[:, :, :4], masks[:, 2, 15] = 1, 2
    count = 2000
    chances = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    place, found = rare_pixels(masks.expand(count, -1, -1), torch.tensor([0.0, 1, 3, 9]), chances, 1)
    assert found.all()
    columns, rows = ((place[:, 0] + 1) * 10 - 0.5).round().long(), ((place[:, 1] + 1) * 5 - 0.5).round().long()
    drawn = masks[0, rows, columns]
    assert set(drawn.unique().tolist()) == {1, 2}
    assert abs((drawn == 2).float().mean() - 0.75) < 0.03
    ones = columns[drawn == 1]
    assert all(abs((ones == c).float().mean() - 0.25) < 0.08 for c in range(4))
    assert not rare_pixels(masks, torch.tensor([0.0, 1, 3, 9]), chances[:1], 41)[1].any()
    assert rare_pixels(masks, torch.tensor([0.0, 1, 3, 9]), chances[:1], 40)[1].all()

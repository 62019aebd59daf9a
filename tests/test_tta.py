import numpy as np
import pytest
import torch
from test_hierarchy import LIP, SIDES, TREE

from fastseg.data.frames import Framing
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.inference.plan import Plan
from fastseg.inference.tta import Tta, average, mirrored_channels, probabilities
from fastseg.learning.model import create_model, mask_logits
from fastseg.settings import ModelSettings, Settings

HANDS = Hierarchy(
    {"background": 0, "left": {"lh": 1, "lf": 2}, "right": {"rh": 4, "rf": 3}}, [("lh", "rh"), ("lf", "rf")]
)


def plan(tta=None, tree=TREE, size=(32, 32), resize="squish", arch="Unet", **choices):
    card = {"hierarchy": tree.tree, "mirror": [[tree.leaves[a], tree.leaves[b]] for a, b in tree.mirror],
            "size": size, "resize": resize, "head": choices.pop("head", "leaves"),
            "model": {"arch": arch, "encoder": "resnet18", "args": {}}}  # fmt: skip
    return Plan.of_card(card, Framing, tta=tta, **choices)


def frames(plan, image):
    """A photograph (3, H, W) as a batch of one, once for each of a plan's frame sizes, in 0..255."""
    return [framing.image(image)[None].float() for framing in plan.framings]


def ids(plan, model, image):
    with torch.inference_mode():
        return next(plan.predict(mask_logits(model), frames(plan, image), [image.shape[1:]]))


class Pixelwise(torch.nn.Module):
    """Random logits of each pixel's colour alone, so that a flip of the photograph flips them."""

    def __init__(self, channels=7):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Conv2d(3, channels, 1)

    def forward(self, x):
        return (self.layer(x / 255) * 20).sin() * 5


class Sides(torch.nn.Module):
    """Hands and feet by the side of the photograph they are on: what a network for mirrored pairs would learn."""

    def __init__(self, tree):
        super().__init__()
        self.tree, self.anchor = tree, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        middle = torch.linspace(-1, 1, x.shape[-1]).expand(x.shape[0], x.shape[2], -1)
        logits = x.mean(1, keepdim=True).repeat(1, len(self.tree), 1, 1) / 255
        for (a, b), strength in zip(self.tree.mirror, (3.0, 2.0), strict=True):
            logits[:, a] -= middle * strength
            logits[:, b] += middle * strength
        return logits


def photograph(shape=(48, 60), seed=0):
    values = torch.randint(0, 256, (*shape, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return values.permute(2, 0, 1)


def test_words():
    assert Tta.parse("flip") == Tta(True, (1.0,))
    assert Tta.parse("0.75, 1,flip") == Tta(True, (0.75, 1.0))
    assert str(Tta.parse("flip,0.75,1,1.25")) == "flip,0.75,1,1.25"
    for text, said in (("flop", "'flop' is neither"), ("0", "'0' is neither"), ("", "'' is neither"),
                       ("nan", "'nan' is"), ("flip,flip", "twice"), ("1,1.0", "twice"), ("9", "up to 4")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            Tta.parse(text)


def test_scales_are_sizes_that_the_architecture_takes():
    def sizes(text, arch, size):
        framings = Tta.parse(text).framings(Framing(size, pad=True), ModelSettings(arch=arch))
        assert all(framing.pad for framing in framings)
        for framing in framings:
            Settings.model_validate({"data": {"size": list(framing.size)}, "model": {"arch": arch}})
        return [framing.size for framing in framings]

    assert sizes("0.75,1,1.25", "FPN", (128, 192)) == [(96, 128), (128, 192), (160, 256)]
    assert sizes("0.75,1.3", "Unet", (50, 33)) == [(38, 25), (65, 43)]
    assert sizes("0.5,1", "PAN", (192, 192)) == [(128, 128), (192, 192)]
    with pytest.raises(InputError, match=r"0\.9 and 1 are both 128x128 to FPN"):
        sizes("0.9,1", "FPN", (128, 128))


@pytest.mark.parametrize("protocol", ["native", "resized"])
@pytest.mark.parametrize(("resize", "size"), [("squish", (32, 32)), ("pad", (33, 47)), ("pad", (64, 32))])
@pytest.mark.parametrize("tta", ["flip", "1"])
def test_an_equivariant_network_gives_exactly_the_plain_result(tta, resize, size, protocol):
    model, image = Pixelwise(), photograph()
    choices = {"size": size, "resize": resize, "protocol": protocol}
    plain = ids(plan(**choices), model, image)
    assert len(plain.unique()) > 3
    assert torch.equal(ids(plan(tta, **choices), model, image), plain)


@pytest.mark.parametrize("protocol", ["native", "resized"])
def test_mirrored_pairs_change_places(protocol):
    for tree in (HANDS, Hierarchy(HANDS.tree)):
        model, image = Sides(HANDS), photograph()
        same = torch.equal(ids(plan("flip", tree, protocol=protocol), model, image),
                           ids(plan(None, tree, protocol=protocol), model, image))  # fmt: skip
        # Without the pairs the sides cancel, which is what not undoing the mirror would look like.
        assert same == bool(tree.mirror)


@pytest.mark.parametrize("resize", ["squish", "pad"])
@pytest.mark.parametrize("column", [16, 40])
def test_scales_are_aligned(resize, column):
    """An edge stays where it is, to the pixel, at half and twice the size; half a pixel's shift would move it."""

    class Bright(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(8.0))

        def forward(self, x):
            light = (x.mean(1) / 255 - 0.5) * self.gain
            return torch.stack([light, -light, *[torch.full_like(light, -99)] * 5], 1)

    image = torch.zeros(64, 64, 3, dtype=torch.uint8).permute(2, 0, 1)
    image[:, :, column:] = 255
    expected = torch.ones(64, 64, dtype=torch.uint8)
    expected[:, column:] = 0
    for tta in (None, "0.5,1,2", "flip,0.5,1,2", "0.5", "flip,2"):
        assert torch.equal(ids(plan(tta, resize=resize), Bright(), image), expected), tta


@pytest.mark.parametrize("head", ["leaves", "nodes"])
def test_probabilities_are_averaged_after_each_look_is_undone(head):
    """Any network: softmax or sigmoid of both looks, the mirrored one turned back and its pairs exchanged, by hand."""
    channels = len(HANDS) if head == "leaves" else HANDS.node_count
    model, image = create_model(ModelSettings(weights="none"), channels).eval(), photograph((64, 64))
    scored = plan("flip", HANDS, (64, 64), head=head)
    x = image[None].float()
    chance = (lambda t: t.softmax(1)) if head == "leaves" else torch.sigmoid
    swap = [0, 4, 3, 2, 1] if head == "leaves" else [0, 4, 3, 2, 1, 5, 7, 6]
    with torch.inference_mode():
        mean = (chance(model(x)) + chance(model(x.flip(-1)))[:, swap].flip(-1)) / 2
        views = [logits for _, logits in scored.views(mask_logits(model), [x])]
        got = chance(average(views, head).float())
    torch.testing.assert_close(got, mean, atol=1e-5, rtol=1e-4)
    assert (ids(scored, model, image) == mean[:, :5].argmax(1)[0]).float().mean() > 0.999


def test_a_flipped_photograph_gets_the_flipped_prediction():
    model, image = create_model(ModelSettings(weights="none"), 5).eval(), photograph((64, 64))
    scored = plan("flip,0.5,1", HANDS, (64, 64))
    swap = torch.tensor([0, 4, 3, 2, 1], dtype=torch.uint8)
    one, other = ids(scored, model, image), ids(scored, model, image.flip(-1))
    assert (swap[other.long()].flip(-1) == one).float().mean() > 0.999
    plain = plan(None, HANDS, (64, 64))
    assert (swap[ids(plain, model, image.flip(-1)).long()].flip(-1) == ids(plain, model, image)).float().mean() < 0.999


def test_channels_in_a_mirror():
    lip = Hierarchy(LIP, SIDES)
    assert mirrored_channels(TREE, "nodes") == list(range(12))
    assert [i for i, j in enumerate(mirrored_channels(lip)) if i != j] == [14, 15, 16, 17, 18, 19]
    # Leaves 1 4, 2 3; then left and right, level 0: 0 background, then the same.
    assert HANDS.node_slices == (slice(5, 8), slice(0, 5))
    assert mirrored_channels(HANDS, "nodes") == [0, 4, 3, 2, 1, 5, 7, 6]
    torn = Hierarchy({"background": 0, "a": {"lh": 1, "head": 2}, "b": {"rh": 3, "foot": 4}}, [("lh", "rh")])
    assert mirrored_channels(torn) == [0, 3, 2, 1, 4]
    with pytest.raises(InputError, match="tear 'a' apart"):
        plan("flip", torn, head="nodes")


def test_many_looks_of_extreme_logits_stay_finite():
    far = torch.tensor([[[[80.0]], [[-80.0]], [[0.0]]]])
    assert int(average([far, far], "leaves").argmax(1)) == 0
    logits = average([far, far], "nodes")
    assert torch.isfinite(logits).all()
    assert logits[0, :, 0, 0].argsort().tolist() == [1, 2, 0]
    np.testing.assert_allclose(average([far[:, 2:], far[:, 2:]], "nodes").numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("head", ["leaves", "nodes"])
def test_numpy_averages_as_torch_does(head):
    looks = [np.random.default_rng(i).normal(0, 9, (1, 5, 6, 7)).astype(np.float32) for i in range(3)]
    tensors = [torch.from_numpy(look) for look in looks]
    np.testing.assert_allclose(probabilities(looks[0], head), probabilities(tensors[0], head), atol=1e-6)
    np.testing.assert_allclose(average(looks, head), average(tensors, head), rtol=2e-4, atol=1e-4)

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import made_run
from torch import nn

from fastseg.errors import InputError
from fastseg.inference import tiles
from fastseg.inference.predict import Predictor
from fastseg.inference.tiles import CONTEXT, GRID, Span, Tiling, frame_size, in_tiles
from fastseg.inference.whole import WholeFrame

CCP = Path(__file__).parents[2] / "shared" / "data" / "ccp"
CARD = {"size": [32, 64], "model": {"arch": "FPN", "encoder": "resnet18", "auxiliary": 0.0, "args": {}}}


class Local(nn.Module):
    """Three layers that see three pixels around each, with borders of zeros, at half the size and back."""

    def __init__(self, norm=False, corners=False):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GELU()]
        layers += [nn.GroupNorm(4, 8)] if norm else []
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8, 5, 3, padding=1)).eval()

    def forward(self, x):
        return self.layers(x)


class Gated(Local):
    """With a squeeze-and-excitation, by a pool or by a mean."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        x = self.layers(x)
        mean = nn.functional.adaptive_avg_pool2d(x, 1) if self.pool else x.mean((2, 3), keepdim=True)
        return x * (mean * 4).sigmoid()


def frame(high, wide, seed=0):
    """(1, 3, h, w), brighter towards one corner, so that tiles differ from the whole."""
    noise = torch.randn(1, 3, high, wide, generator=torch.Generator().manual_seed(seed))
    return noise + torch.linspace(-3, 3, wide) + torch.linspace(-2, 2, high)[:, None]


@pytest.mark.parametrize("context", [0, 8, 160])
@pytest.mark.parametrize(("length", "side"), [(1000, 480), (481, 480), (480, 480), (960, 384), (3007, 416), (700, 699)])
def test_tiles_cover_everything_once(length, side, context):
    span = Span.of(length, side, context)
    total = np.zeros(length)
    for place, weights in zip(span.places, span.weights, strict=True):
        assert place.stop - place.start == side
        assert place.start % GRID == 0 or place.stop == length
        total[place] += weights
        inner = [place.start > 0, place.stop < length]
        edge = max(0, context - tiles.FADE // 2)
        # Where another tile sees more, what is near the border counts nothing.
        assert (weights[:edge].max(initial=0) < 1e-5) or not inner[0]
        assert (weights[side - edge :].max(initial=0) < 1e-5) or not inner[1]
    np.testing.assert_allclose(total, 1, atol=1e-5)
    starts = [place.start for place in span.places]
    assert max(np.diff(starts), default=0) <= max(GRID, side - 2 * context)


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_a_local_network_gives_the_same_in_tiles(library):
    network, image = Local(), frame(700, 450)
    with torch.inference_mode():
        expected = network(image)
        tiling = Tiling((64, 96))
        assert tiling.is_for((65, 30))
        assert not tiling.is_for((64, 96))
        sizes = []

        def sees(tile):
            sizes.append(tuple(tile.shape[2:]))
            return network(tile) if library == "torch" else network(torch.from_numpy(tile)).numpy()

        given = image if library == "torch" else image.numpy()
        found = torch.as_tensor(in_tiles(sees, given, tiling, 5, WholeFrame if library == "torch" else None))
    assert set(sizes) == {(64 + 2 * CONTEXT, 96 + 2 * CONTEXT)}
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_fixed_tiles_have_the_files_size():
    network, image = Local(), frame(200, 330)
    tiling = Tiling.of(CARD, fixed=(96, 128))
    with torch.inference_mode():
        found = in_tiles(network, image, tiling, 5)
        torch.testing.assert_close(found, network(image), atol=1e-4, rtol=1e-4)
    assert {span.weights.shape[1] for span in tiling.spans((200, 330))} == {96, 128}


@pytest.mark.parametrize("network", [Local(norm=True), Local(corners=True), Gated(True), Gated(False)])
def test_layers_that_see_the_whole_are_kept_right(network):
    image, tiling = frame(640, 512), Tiling((64, 64))
    with torch.inference_mode():
        expected = network(image)
        alone = (in_tiles(network, image, tiling, 5) - expected).abs().max()
        right = (in_tiles(network, image, tiling, 5, WholeFrame) - expected).abs().max()
    assert alone > 0.01
    assert right < 2e-3


def test_many_logits_are_halved_and_too_many_refused(monkeypatch):
    network, image, tiling = Local(), frame(480, 448), Tiling((64, 64))
    with torch.inference_mode():
        expected = network(image)
        monkeypatch.setattr(tiles, "HALF", 0)
        found = in_tiles(network, image, tiling, 5)
        assert found.dtype == torch.float16
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.99
        monkeypatch.setattr(tiles, "MOST", 1000)
        with pytest.raises(InputError, match="480x448 with 5 classes is too large"):
            in_tiles(network, image, tiling, 5)


def test_sizes_and_tiles_by_their_words():
    assert frame_size(CARD) == (32, 64)
    assert frame_size(CARD, "3") == (96, 192)
    assert frame_size(CARD, "100x70") == (96, 64)
    assert Tiling.of(CARD).side == (768, 768)
    assert Tiling.of(CARD | {"size": [1024, 512]}).side == (1024, 768)
    assert Tiling.of(CARD, "100x64").side == (128, 64)


def test_a_predictor_sees_a_closer_look_in_tiles(drawn, tmp_path):
    """A network that sees 40 pixels around each: in tiles the mask is the same, with a flip and a scale, too."""
    run = made_run(tmp_path / "run", drawn)
    image = np.array(np.random.default_rng(0).integers(0, 256, (50, 70, 3)), np.uint8)
    for choices in ({}, {"tta": "flip"}, {"decode": "path"}):
        whole = Predictor(run, size=12, tile=2000, **choices).predict(image)
        tiled = Predictor(run, size=12, tile=128, **choices).predict(image)
        assert (whole.ids == tiled.ids).mean() > 0.995
        np.testing.assert_allclose(whole.marginals(0), tiled.marginals(0), atol=0.05)


@pytest.mark.slow
def test_twelve_megapixels_in_tiles_within_two_gigabytes(drawn, tmp_path):
    fpn = ["model.arch=FPN", "model.encoder=timm-tf_efficientnet_lite0"]
    run = made_run(tmp_path / "run", drawn, arch=fpn, size="256x256")
    code = f"""
import resource, numpy as np
from fastseg import Predictor
photograph = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
p = Predictor({str(run)!r}, size="3008x4000").predict(photograph)
assert p.ids.shape == p.confidence.shape == (3000, 4000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    print(f"\n{int(done.stdout) / 1e9:.2f} GB (2)")
    assert int(done.stdout) < 2e9


@pytest.mark.slow
@pytest.mark.skipif(not CCP.is_dir(), reason="no ../shared/data/ccp here")
def test_tiles_agree_with_one_pass_on_real_photographs(tmp_path):
    """A network trained for three epochs at 192x128, at three and four times that, in parts of 128 and 256 pixels."""
    from fastseg.config import load_config
    from fastseg.experiments.train import train

    tree = {"background": 0, "person": {"body": {"hair": 1, "skin": 2},
            "clothes": {"upper": 3, "lower": 4, "full": 5, "footwear": 6}, "carried": 7}}  # fmt: skip
    data = {"root": str(CCP), "size": "192x128", "workers": 0, "limit_valid": 16}
    train_settings = {"epochs": 3, "batch_size": 16}
    run = train(load_config({"hierarchy": tree, "out": str(tmp_path), "train": train_settings, "data": data}))
    paths = [CCP / "JPEGImages" / f"{name}.jpg" for name in (CCP / "val_id.txt").read_text().split()[:6]]
    for size, tile in ((3, 128), (4, 256)):
        whole, tiled = Predictor(run, size=size, tile=4000), Predictor(run, size=size, tile=tile)
        same = [(whole.predict(path).ids == tiled.predict(path).ids).mean() for path in paths]
        print(f"\n{size} times, parts of {tile}: {100 * np.mean(same):.2f} % of pixels, {100 * min(same):.2f} at worst")
        assert np.mean(same) > 0.995

import numpy as np
import pytest
import torch
from exporting import made_run

from fastseg.data.frames import Framing
from fastseg.inference.graph import Logits, Photographs
from fastseg.inference.plan import Plan
from fastseg.learning.model import mask_logits, trained_model
from fastseg.run import Run

SIZES = [(1, 1), (1, 77), (33, 1), (64, 96), (32, 64), (50, 40), (128, 128), (97, 211), (20, 300), (331, 250)]


def texture(shape, seed=0):
    """A photograph (H, W, 3) uint8 with edges and smooth parts."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape[0] // 9 + 1, shape[1] // 9 + 1, 3)).repeat(9, 0).repeat(9, 1)
    noise = rng.integers(-20, 21, (*shape, 3))
    return np.clip(coarse[: shape[0], : shape[1]] + noise, 0, 255).astype(np.uint8)


def expected(run, photograph):
    """(ids, confidence) the way `evaluate` goes, from its own pieces."""
    network, card = mask_logits(trained_model(run)), run.card
    plan = Plan.of_card(card, Framing)
    frame = plan.framing.image(torch.from_numpy(photograph.copy()).permute(2, 0, 1))[None]
    centre, spread = (torch.tensor(card[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
    with torch.inference_mode():
        views = plan.views(network, [(frame.float() - centre) / spread])
        scores = plan.scores(views, 0, photograph.shape[:2])
        ids = plan.tree.decode(scores, head=plan.head)[0]
        leaves = scores[:, : len(plan.tree)]
        shares = leaves.softmax(1) if plan.head == "leaves" else leaves.sigmoid()
    return ids, shares[0].gather(0, ids[None].long())[0]


@pytest.mark.parametrize("more", [(), ("data.resize=pad",), ("loss=[cross_entropy, tree_min]",)],
                         ids=["squish", "pad", "nodes"])  # fmt: skip
def test_a_photograph_goes_the_way_that_evaluate_goes(drawn, tmp_path, more):
    run = Run.open(made_run(tmp_path / "run", drawn, *more))
    graph = Photographs(trained_model(run), run.card).eval()
    seen = set()
    for i, shape in enumerate(SIZES):
        photograph = texture(shape, i)
        ids, confidence = expected(run, photograph)
        with torch.inference_mode():
            found, sure = graph(torch.from_numpy(photograph))
        assert found.dtype == torch.uint8
        assert (found.shape, sure.shape) == (shape, shape)
        # 8-bit resizing rounds by tables of its own: single grey values may differ by one.
        assert (found == ids).float().mean() > 0.995
        assert (sure - confidence).abs().mean() < 0.01
        seen |= set(ids.unique().tolist())
    assert len(seen) == 7


def test_an_auxiliary_head_is_left_out(drawn, tmp_path):
    run = Run.open(made_run(tmp_path / "run", drawn, "model.auxiliary=0.1"))
    model, images = trained_model(run), torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        assert isinstance(model(images), tuple)
        assert torch.equal(Logits(model)(images), model(images)[0])

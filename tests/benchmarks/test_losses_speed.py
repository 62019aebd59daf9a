"""What each loss, forward and backward, adds to a training step; on a GPU too where there is one."""

import pytest
import torch
from timing import paired

from fastseg.config import load_config
from fastseg.learning.losses import build_loss
from fastseg.learning.model import create_model, place

pytestmark = pytest.mark.slow
MOST = 0.15
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOSSES = ["cross_entropy", "focal", "iou", "dice", "tversky", "level_ce", "tree_min", "lovasz",
          "{name: iou, levels: [0, 1, 2]}", "{name: lovasz, per_image: true}"]  # fmt: skip


def settled(work):
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


@pytest.fixture(scope="module")
def step():
    """A step of FPN-lite0 on 16 photographs of 128x128, with cross-entropy."""
    cfg = load_config("sample", "model.weights=none")
    model, loss = place(create_model(cfg.model, 7), DEVICE).train(), torch.nn.CrossEntropyLoss(ignore_index=255)
    optimizer = torch.optim.Adam(model.parameters())
    x, y = torch.randn(16, 3, 128, 128, device=DEVICE), torch.randint(0, 7, (16, 128, 128), device=DEVICE)

    def work():
        loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_a_small_part_of_a_step(name, step):
    cfg = load_config(f"loss=[{name}]")
    loss, channels = build_loss(cfg).to(DEVICE), cfg.classes().channels(cfg.head)
    # As a network gives them: laid out channels last on a CPU, and not equally likely.
    logits = torch.randn(16, channels, 128, 128, device=DEVICE)
    if DEVICE.type == "cpu":
        logits = logits.contiguous(memory_format=torch.channels_last)
    logits.requires_grad_()
    target = torch.randint(0, 7, (16, 128, 128), device=DEVICE)
    target[:, :10] = 255
    share = paired(lambda: settled(lambda: loss(logits, target).backward()), lambda: settled(step), 5)
    limit = None if "lovasz" in name and DEVICE.type == "cpu" else MOST
    print(f"\n{name} / a training step on {DEVICE.type}: {share:.3f} ({f'at most {limit}' if limit else 'sorts'})")
    assert limit is None or share <= limit

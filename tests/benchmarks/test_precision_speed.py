"""What precision, memory format, compiling and the fused optimiser make of a training step, beside plain float32.

As a script it prints all of them.
"""

import pytest
import torch
from fastai.optimizer import Adam
from timing import paired
from torch.amp import autocast

from fastseg.config import load_config
from fastseg.learning.model import create_model, place
from fastseg.learning.optimizers import FusedAdam

pytestmark = pytest.mark.slow
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# A CPU without units for bf16 imitates it, at 16 x the time: there a small batch, and fewer rounds.
SIZE, BATCH = (128, 128), 16 if DEVICE.type == "cuda" else 4
X, Y = torch.randn(BATCH, 3, *SIZE, device=DEVICE), torch.randint(0, 7, (BATCH, *SIZE), device=DEVICE)


def step(optimizer=FusedAdam, half=False, channels_last=None, compiled=False):
    """A training step, compiled and warm."""
    torch.manual_seed(0)
    model = place(create_model(load_config("sample", "model.weights=none").model, 7), DEVICE, channels_last).train()
    if compiled:
        model.compile()
    opt, loss = optimizer([list(model.parameters())], lr=1e-3), torch.nn.CrossEntropyLoss()

    def work():
        with autocast(DEVICE.type, dtype=torch.bfloat16, enabled=half):
            logits = model(X)
        loss(logits.float(), Y).backward()
        opt.step()
        opt.zero_grad()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    work()
    return work


KINDS = {
    "channels_last": {"channels_last": True},
    "bf16": {"half": True, "channels_last": False},
    "bf16, channels_last": {"half": True, "channels_last": True},
    "channels_last, compiled": {"channels_last": True, "compiled": True},
}


def beside_float32(name):
    """The time of a step as a share of that in plain float32."""
    options = KINDS[name]
    rounds = 1 if options.get("half") and DEVICE.type == "cpu" else 5
    share = paired(step(**options), step(channels_last=False), rounds)
    print(f"a step, {name} / float32 contiguous, {DEVICE.type}: {share:.2f}")
    return share


def test_channels_last_is_not_slower_where_it_is_the_default():
    assert beside_float32("channels_last") <= 1.0 or DEVICE.type != "cpu"


def test_the_fused_step_beside_fastais():
    model = create_model(load_config("sample", "model.weights=none").model, 7).to(DEVICE)
    model(X[:2]).mean().backward()
    ours, theirs = (kind([list(model.parameters())], lr=1e-3) for kind in (FusedAdam, Adam))
    for opt in (ours, theirs):
        opt.step()
    share = paired(ours.step, theirs.step, 5)
    print(f"\nAdam's step, fused / fastai's, {DEVICE.type}: {share:.2f}")
    assert share <= 0.8


if __name__ == "__main__":
    # The others have no bar: `auto` takes none of them on a CPU.
    for kind in KINDS:
        beside_float32(kind)

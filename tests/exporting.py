"""A run folder made by hand, whose network exports in seconds and tells classes apart."""

import torch

from fastseg.config import load_config
from fastseg.learning.model import create_model
from fastseg.run import Run, model_card, write_weights
from fastseg.writing import write_json

SMALL = ["model.arch=Unet", "model.encoder=resnet18", "model.args={encoder_depth: 3, decoder_channels: [16, 8, 8]}"]


def made_run(folder, root, *overrides, arch=SMALL, size="32x64"):
    """A run folder of an untrained network with loud logits, normalised to other values than usual."""
    cfg = load_config({"data": {"root": str(root), "size": size, "workers": 0}, "model": {"weights": "none"},
                       "train": {"batch_size": 4}}, *arch, *overrides)  # fmt: skip
    folder.mkdir()
    Run(folder).write_config(cfg)
    write_json(folder / "model.json", model_card(cfg, ([0.5, 0.45, 0.4], [0.2, 0.25, 0.3])))
    torch.manual_seed(0)
    model = create_model(cfg.model, cfg.classes().channels(cfg.head))
    for batch_norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        batch_norm.running_mean.normal_(0, 0.1)
    head = model.segmentation_head[0]
    with torch.no_grad():
        # Every class wins somewhere: the mean of each channel over noise is taken off, and its spread set to 4.
        logits = model.eval()(torch.randn(4, 3, *cfg.data.size))
        logits = logits if isinstance(logits, torch.Tensor) else logits[0]
        spread, mean = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
        head.weight.mul_((4 / spread)[:, None, None, None])
        head.bias.copy_((head.bias - mean) * 4 / spread)
    write_weights(folder / "model.safetensors", model)
    return folder

"""Scores of a network on a dataset: logits brought to each photograph's own size, one confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastseg.data.check import quick_check
from fastseg.data.files import Files, JoinedFiles, dataset_files
from fastseg.data.frames import Framing, decode_image, scoring_frame
from fastseg.data.machine import reading_workers
from fastseg.data.pictures import read_mask
from fastseg.decoding import leaf_ids
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.learning.metrics import LevelIoU
from fastseg.learning.model import create_model, place
from fastseg.run import Run
from fastseg.settings import ModelSettings, Settings

SPLITS = ("valid", "train")
FEW = 64  # photographs that are read sooner than workers start
Batches = Iterable[tuple[Tensor, Sequence[Tensor]]]


def evaluate(run: str | Path | Run, root: str | Path | None = None, split: str = "valid",
             progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:  # fmt: skip
    """Scores of a finished run on a dataset's split at native size, dataset definition, leaf decoding.

    `root` takes the place of the run's own data. The result holds `miou0`, `miou1`, …, `pixel_accuracy`, `classes`
    (name → level, iou), the classes that are `absent`, and the names of definition, protocol, decoding and split.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    cfg = (
        run.cfg
        if root is None
        else run.cfg.model_copy(
            update={"data": run.cfg.data.model_copy(update={"root": str(root), "limit": None, "limit_valid": None})}
        )
    )
    if split not in SPLITS:
        raise InputError(f"split {split!r} is none of {', '.join(SPLITS)}")
    files, names = split_files(cfg, split)
    quick_check(cfg, files, [], names)
    model, tree, card = load_model(run), run.hierarchy, run.card
    framing = scoring_frame(card["size"], card["resize"])
    batches = native_batches(files, names, len(tree), framing, card["mean"], card["std"], cfg)
    scores = score(model, tree, batches, framing, (lambda n: progress(n, len(names))) if progress else None)
    return summary(scores, "native", split, len(names))


def load_model(run: Run) -> nn.Module:
    """The network of a run with its trained weights, in evaluation mode, on the CPU or the CUDA device if there is."""
    model = create_model(ModelSettings(**run.card["model"], weights="none"), len(run.hierarchy))
    try:
        model.load_state_dict(run.weights())
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{run.path}: its weights do not fit its network; the run is damaged ({said})") from None
    return place(model, torch.device("cuda" if torch.cuda.is_available() else "cpu")).eval()


def split_files(cfg: Settings, split: str) -> tuple[Files | JoinedFiles, list[str]]:
    """Where a configuration's photographs lie, and the ids of one of its splits."""
    files = dataset_files(cfg)
    listed, limit = (
        (cfg.data.valid_ids, cfg.data.limit_valid) if split == "valid" else (cfg.data.train_ids, cfg.data.limit)
    )
    names = files.ids(listed, limit)
    if not names:
        raise InputError(f"{files.root / listed}: no ids to score")
    return files, names


class _Photographs(Dataset):
    """Items (3, h, w) uint8, framed for the network, and (H, W) uint8 ids at the photograph's own size."""

    def __init__(self, files: Files | JoinedFiles, names: Sequence[str], leaves: int, framing: Framing):
        self.files, self.names, self.leaves, self.framing = files, names, leaves, framing

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        ids = read_mask(self.files.mask(self.names[i]), self.leaves)
        image = decode_image(self.files.image(self.names[i]), ids.shape)
        return self.framing.image(image), torch.from_numpy(ids)


def native_batches(files: Files | JoinedFiles, names: Sequence[str], leaves: int, framing: Framing,
                   mean: Sequence[float], std: Sequence[float],
                   cfg: Settings) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:  # fmt: skip
    """Batches of normalised photographs as the network sees them, and the masks at their own size."""
    workers = reading_workers() if cfg.data.workers is None else cfg.data.workers
    loader = DataLoader(
        _Photographs(files, names, leaves, framing),
        cfg.train.batch_size,
        num_workers=workers if len(names) > FEW else 0,
        collate_fn=_collate,
    )
    centre, spread = torch.tensor(mean).view(1, 3, 1, 1) * 255, torch.tensor(std).view(1, 3, 1, 1) * 255
    for images, masks in loader:
        yield (images.float() - centre) / spread, masks


def _collate(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    return torch.stack([image for image, _ in items]), [ids for _, ids in items]


def predict_batch(
    model: nn.Module, images: Tensor, sizes: Iterable[Sequence[int]], framing: Framing | None = None
) -> Iterator[Tensor]:
    """(H, W) leaf ids of each photograph of a batch at its own size, on the network's device.

    `framing` is how the photographs were brought to the batch's size; None where that is their own.
    """
    device = next(model.parameters()).device
    logits = model(images.to(device))
    for one, size in zip(logits, sizes, strict=True):
        one = one[None].float()
        yield leaf_ids(framing.undo(one, size) if framing else one)[0]


@torch.inference_mode()
def score(model: nn.Module, tree: Hierarchy, batches: Batches, framing: Framing | None = None,
          seen: Callable[[int], None] | None = None) -> LevelIoU:  # fmt: skip
    """Count what a network makes of batches of photographs and masks of any sizes, photograph by photograph."""
    scores, count, device = LevelIoU(tree), 0, next(model.parameters()).device
    model.eval()
    for images, masks in batches:
        for ids, mask in zip(predict_batch(model, images, [m.shape for m in masks], framing), masks, strict=True):
            scores.update(ids[None], mask[None].to(device))
        count += len(masks)
        if seen:
            seen(count)
    return scores


def summary(scores: LevelIoU, protocol: str, split: str, images: int) -> dict[str, Any]:
    """Plain numbers for JSON: NaN becomes None."""
    tree = scores.hierarchy
    classes = {}
    for level in range(tree.depth):
        for name, value in zip(tree.names(level), scores.class_iou(level).tolist(), strict=True):
            classes.setdefault(name, {"level": level, "iou": _number(value)})
    return {
        **{name: _number(float(value)) for name, value in scores.compute().items()},
        "definition": scores.definition, "protocol": protocol, "decode": "leaf", "split": split, "images": images,
        "classes": classes, "absent": [name for name, entry in classes.items() if entry["iou"] is None],
    }  # fmt: skip


def score_table(scores: dict[str, Any], tree: Hierarchy) -> str:
    """The table people read: the mean of each level, then its classes, best first."""
    background = "no background in the tree" if tree.background is None else "background excluded"
    lines = [
        f"{scores['images']} photographs, {scores['split']} split, {scores['protocol']} size, "
        f"{scores['definition']} definition, {background}"
    ]
    for level in range(tree.depth):
        lines.append(f"miou{level}  {_shown(scores[f'miou{level}'])}")
        names = [tree.names(level)[node] for node in tree.foreground(level)]
        for name in sorted(names, key=lambda n: -(scores["classes"][n]["iou"] or 0)):
            lines.append(f"    {name:<16}{_shown(scores['classes'][name]['iou'])}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:.3f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value

"""What the recipe for small budgets is worth on real photographs: its ingredients, and all of it against plain code.

    python tests/benchmarks/recipes.py ingredients --config ccp.yaml --out nbs/results/ingredients_ccp.csv
    python tests/benchmarks/recipes.py against_plain --config ccp.yaml --out nbs/results/recipe_ccp.csv

`ccp.yaml` holds a class tree and the folder of a dataset with PNG masks. Ingredients are compared on every fifth of the
first 500 training ids, which are then not trained on; the valid part is for the comparison with plain code alone. A row
that stands in the table is not run again, so both can be stopped and started.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from fastai.vision.all import CrossEntropyLossFlat, DataBlock, ImageBlock, Learner, MaskBlock, Normalize, Resize
from PIL import Image

from fastseg import evaluate, evaluate_masks, load_config, save_run, seg_learner
from fastseg.data.files import read_ids
from fastseg.inference.evaluate import split_files
from fastseg.learning.encoders import encoder_stats, imagenet_weights
from fastseg.learning.learner import peak_rate
from fastseg.learning.schedules import fit

SIZE, EPOCHS, SEEDS = (192, 128), 6, (0, 1, 2)
HELD = 100
# Overrides of the defaults, which are the recipe. First each row adds one thing to the row above it, up to the recipe;
# then each changes one thing of it.
RATES, PLAIN_LOSS, STILL = "train.lr=[3e-4, 3e-3]", "loss=[cross_entropy]", "augment.preset=none"
INGREDIENTS = {
    "plain cross-entropy": [STILL, PLAIN_LOSS, RATES, "train.batch_size=16"],
    "+ batch 8": [STILL, PLAIN_LOSS, RATES],
    "+ rates 2e-3 and 1e-2": [STILL, PLAIN_LOSS],
    "+ IoU": [STILL],
    "+ flips: the recipe": [],
    "IoU at all levels": ["loss=[cross_entropy, {name: iou, levels: [0, 1, 2]}]"],
    "level CE for CE": ["loss=[level_ce, iou]"],
    "tree-min for both": ["loss=[tree_min]"],
}
TTA = {"none": None, "flip": "flip", "flip + scales": "flip,0.75,1,1.25"}


def ingredients(args):
    """A row for each variant and seed."""
    with TemporaryDirectory() as folder:
        data = load_config(args.config).data
        ids = read_ids(Path(data.root) / data.train_ids)
        held = ids[: 5 * HELD : 5]
        lists = {"valid_ids": held, "train_ids": [name for name in ids if name not in set(held)]}
        for key, names in lists.items():
            (Path(folder) / key).write_text("\n".join(names))
        split = [f"data.{key}={Path(folder) / key}" for key in lists]
        for seed in args.seeds:
            for name in args.only or INGREDIENTS:
                if not is_done(args.out, variant=name, seed=str(seed)):
                    run, times = recipe(args, seed, folder, *split, *INGREDIENTS[name])
                    write(args.out, {"variant": name, "seed": seed, **times, **scores_of(evaluate(run))})


def against_plain(args):
    """Plain code and recipe in turns, a row each for every seed; the recipe's scores also with averaged looks."""
    for seed in args.seeds:
        for side in ("plain", "recipe"):
            if is_done(args.out, side=side, seed=str(seed), tta="none"):
                continue
            with TemporaryDirectory() as folder:
                if side == "plain":
                    times = plain(args, seed, Path(folder))
                    found = evaluate_masks(folder, load_config(args.config).data.root, config=args.config)
                    write(args.out, {"side": side, "tta": "none", "seed": seed, **times, **scores_of(found)})
                    continue
                run, times = recipe(args, seed, folder)
                for name, tta in TTA.items():
                    found = evaluate(run, tta=tta)
                    write(args.out, {"side": side, "tta": name, "seed": seed, **times, **scores_of(found)})


def recipe(args, seed, folder, *more):
    """The defaults at the size and length of all runs here; (run folder, times of the training)."""
    cfg = load_config(args.config, f"data.size={SIZE[0]}x{SIZE[1]}", f"train.epochs={EPOCHS}", "train.keep=last",
                      f"train.seed={seed}", *more)  # fmt: skip
    learn = seg_learner(cfg)
    with learn.no_bar(), learn.no_logging():
        rate = peak_rate(cfg, learn.dls)
        times = timed(lambda: fit(learn, EPOCHS, rate, cfg.train.schedule, cfg.train.warmup))
    return save_run(learn, Path(folder) / f"run-{time.time_ns()}"), times


def plain(args, seed, folder):
    """Cross-entropy with fastai and smp alone, as a notebook has it; writes masks of the valid part, returns times."""
    cfg = load_config(args.config)
    files, names = split_files(cfg, "valid")
    train, leaves = files.ids(cfg.data.train_ids), list(cfg.classes().leaves)
    torch.manual_seed(seed)
    np.random.seed(seed)
    encoder = "timm-tf_efficientnet_lite0"
    model = smp.FPN(encoder, encoder_weights=None, classes=len(leaves))
    model.encoder.load_state_dict(imagenet_weights(encoder, model.encoder.state_dict()))
    block = DataBlock(
        blocks=(ImageBlock, MaskBlock(leaves)),
        get_x=lambda name: files.image(name),
        get_y=lambda name: files.mask(name),
        splitter=lambda items: (list(range(len(train))), list(range(len(train), len(items)))),
        item_tfms=Resize(SIZE, method="squish"),
        batch_tfms=Normalize.from_stats(*encoder_stats(encoder)),
    )
    dls = block.dataloaders(train + names, bs=16, seed=seed)
    learn = Learner(dls, model, CrossEntropyLossFlat(axis=1), splitter=lambda m: [
        list(m.encoder.parameters()), [*m.decoder.parameters(), *m.segmentation_head.parameters()]])  # fmt: skip
    with learn.no_bar(), learn.no_logging():
        times = timed(lambda: learn.fit_one_cycle(EPOCHS, slice(3e-4, 3e-3)))
    model.eval()
    with torch.inference_mode():
        for name in names:
            wide, high = Image.open(files.image(name)).size
            logits = model(dls.test_dl([name]).one_batch()[0])
            ids = F.interpolate(logits.as_subclass(torch.Tensor), (high, wide), mode="bilinear").argmax(1)[0]
            Image.fromarray(ids.numpy().astype(np.uint8)).save(folder / f"{name}.png")
    return times


def timed(work):
    """Seconds by the clock, and of this process and its workers."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return {"seconds": round(time.perf_counter() - started, 1),
            "processor_seconds": round(sum(os.times()[:4]) - before, 1)}  # fmt: skip


def scores_of(found):
    """The means and every class's IoU, rounded for a table; empty for an absent class."""
    means = {key: round(value, 4) for key, value in found.items() if key.startswith("miou") and value is not None}
    each = {name: entry["iou"] for name, entry in found["classes"].items()}
    return means | {name: "" if value is None else round(value, 4) for name, value in each.items()}


def is_done(path, **keys):
    """Whether the table has such a row."""
    if not path.is_file():
        return False
    with path.open() as file:
        return any(all(row[key] == value for key, value in keys.items()) for row in csv.DictReader(file))


def write(path, row):
    """Append a row."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("ingredients", "against_plain"))
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="+", choices=INGREDIENTS)
    chosen = parser.parse_args()
    {"ingredients": ingredients, "against_plain": against_plain}[chosen.what](chosen)

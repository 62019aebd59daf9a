"""Small datasets to check, and twenty faults, one of each kind, planted into a copy of a drawn sample."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from fastseg.config import load_config
from fastseg.data.files import Files


def plant(root: Path) -> dict[str, str]:
    """Spoil a drawn sample of at least 20 training ids; returns kind of finding → the id that it must name."""
    images, masks = root / "JPEGImages", root / "gt_masks"
    train, valid = ((root / name).read_text().split() for name in ("train_id.txt", "val_id.txt"))
    names = iter(train)
    planted: dict[str, str] = {}

    def spoil(kind: str) -> tuple[str, Path, Path]:
        planted[kind] = name = next(names)
        return name, images / f"{name}.jpg", masks / f"{name}.npy"

    def reread(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.convert("RGB")

    spoil("id without photograph")[1].unlink()
    spoil("id without mask")[2].unlink()
    spoil("unreadable photograph")[1].write_bytes(b"nothing")
    photograph = spoil("truncated photograph")[1]
    photograph.write_bytes(photograph.read_bytes()[:-400])
    spoil("unreadable mask")[2].write_bytes(b"nothing")
    mask = spoil("truncated mask")[2]
    mask.write_bytes(mask.read_bytes()[:-400])
    mask = spoil("shapes differ")[2]
    np.save(mask, np.load(mask)[:-3])
    photograph = spoil("shapes differ by EXIF rotation")[1]
    exif = Image.Exif()
    exif[0x0112] = 6
    reread(photograph).save(photograph, exif=exif, quality=90)
    mask = spoil("id outside the tree")[2]
    ids = np.load(mask)
    ids[3, 4] = 9
    np.save(mask, ids)
    mask = spoil("float mask")[2]
    np.save(mask, np.load(mask).astype(np.float32))
    mask = spoil("RGB mask")[2]
    Image.fromarray(np.load(mask)).convert("RGB").save(mask.with_suffix(".png"))
    mask.unlink()
    mask = spoil("pickled mask")[2]
    mask.write_bytes(pickle.dumps(np.load(mask)))
    doubled = spoil("duplicate id")[0]
    both = spoil("same id in both splits")[0]
    mask = spoil("empty mask")[2]
    np.save(mask, np.zeros_like(np.load(mask)))
    mask = spoil("vanishes when resized")[2]
    ids = np.zeros_like(np.load(mask))
    ids[0, 0] = 4
    np.save(mask, ids)

    source = next(names)
    reread(images / f"{source}.jpg").save(images / "saved_again.png")
    np.save(masks / "saved_again.npy", np.load(masks / f"{source}.npy"))
    planted["same pixels in both splits"] = "saved_again"
    source = next(names)
    near = ImageEnhance.Brightness(ImageOps.mirror(reread(images / f"{source}.jpg"))).enhance(1.1)
    near.save(images / "near.jpg", quality=60)
    np.save(masks / "near.npy", np.load(masks / f"{source}.npy")[:, ::-1].copy())
    planted["near-duplicate in both splits"] = "near"
    reread(images / f"{valid[0]}.jpg").rotate(180).save(images / "stray.jpg")
    np.save(masks / "lonely.npy", np.zeros((4, 5), np.uint8))
    planted |= {"photograph without id": "stray", "mask without id": "lonely"}
    (root / "train_id.txt").write_text("\n".join([*train, doubled]))
    (root / "val_id.txt").write_text("\n".join([*valid, both, "saved_again", "near"]))
    return planted


def settings(root, *overrides):
    """Settings of a dataset at 32x32."""
    return load_config(f"data.root={root}", "data.size=32", *overrides)


def kinds(report):
    """(kind, id) of every finding."""
    return {(finding.kind, finding.name) for finding in report.findings}


def write(root, name, ids, image=None):
    """One id with a photograph of noise, or of its own, and a mask."""
    for folder in ("JPEGImages", "gt_masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(name.encode())).integers(0, 256, (6, 6, 3), np.uint8)
    image = image or Image.fromarray(noise).resize(ids.shape[::-1])
    image.save(root / "JPEGImages" / f"{name}.png")
    np.save(root / "gt_masks" / f"{name}.npy", ids)


def dataset(root, train, valid):
    """A folder of {id: mask}."""
    for names, listed in ((train, "train_id.txt"), (valid, "val_id.txt")):
        for name, ids in names.items():
            write(root, name, np.asarray(ids, np.uint8))
        (root / listed).write_text("\n".join(names))
    return root


def listed(root):
    """Files, ids to train on, ids to validate on."""
    files = Files(root)
    return files, files.ids("train_id.txt"), files.ids("val_id.txt")

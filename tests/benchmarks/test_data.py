"""The data path's timings; `pytest tests/benchmarks -m slow -s` prints them."""

import io
import os
import time

import pytest
import torch
from PIL import Image
from timing import paired
from torchvision.io import ImageReadMode, decode_jpeg

from fastseg.config import load_config
from fastseg.data.cache import cached_reader, clear_cache
from fastseg.data.files import Files
from fastseg.data.frames import FrameReader, Framing
from fastseg.data.loaders import seg_dataloaders
from fastseg.data.machine import cores

pytestmark = pytest.mark.slow
FRAME = Framing((400, 400))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """256 drawn photographs, most of them 375 high and 500 wide."""
    from fastseg.data.sample import draw_sample

    return Files(draw_sample(tmp_path_factory.mktemp("bench") / "drawn", 256, 1))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))


def decoders(files, names):
    """Plain decoding of the photographs in memory, by whatever is installed."""
    contents = [files.image(name).read_bytes() for name in names]
    buffers = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    known = {
        "torchvision": lambda: [decode_jpeg(one, ImageReadMode.RGB).shape for one in buffers],
        "Pillow": lambda: [Image.open(io.BytesIO(one)).convert("RGB").size for one in contents],
    }
    try:
        import cv2

        arrays = [one.numpy() for one in buffers]
        known["OpenCV"] = lambda: [cv2.imdecode(one, cv2.IMREAD_COLOR).shape for one in arrays]
    except ImportError:
        pass
    return known


def seconds(work):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def test_reading_files_against_plain_decoding(photographs, monkeypatch):
    names = photographs.ids("train_id.txt", 96)
    reader = FrameReader(photographs, names, 7, FRAME)
    known = {name: (seconds(work), work) for name, work in decoders(photographs, names).items()}
    fastest = min(known, key=lambda name: known[name][0])

    def read():
        for start in range(0, len(names), 32):
            reader(range(start, start + 32))

    ratio = paired(read, known[fastest][1])
    alone = [f"{name} {spent / len(names) * 1e3:.2f} ms" for name, (spent, _) in known.items()]
    monkeypatch.setattr("fastseg.data.frames.MOST_THREADS", 1)
    single = paired(read, known[fastest][1])
    print(f"\nplain decoding: {', '.join(alone)}; photograph and mask from files, ready for the batch / {fastest}: "
          f"{ratio:.2f} (at most 2.2), in one thread {single:.2f}")  # fmt: skip
    assert ratio <= 2.2


def test_batches_from_the_cache(photographs):
    names = photographs.ids("train_id.txt")
    cached = cached_reader(FrameReader(photographs, names, 7, FRAME))
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0)).tolist()

    def gather():
        for start in range(0, 256, 32):
            cached(order[start : start + 32])

    gather()
    each = seconds(gather) / 256 * 1e3
    batch = cached(order[:32])[0]
    convert = seconds(lambda: batch.float().div_(255).sub_(0.45).div_(0.22)) / 32 * 1e3
    print(f"\nfrom the cache: {each:.3f} ms a photograph and mask of 400x400 (at most 0.15); to floats, normalised, on "
          f"this CPU: {convert:.2f} ms")  # fmt: skip
    assert each <= 0.15


def test_the_cache_is_built_at_the_reader_s_speed_on_all_cores(photographs, tmp_path, monkeypatch):
    many = Files(tmp_path / "many")
    for path in [*photographs.root.glob("*/*.jpg"), *photographs.root.glob("*/*.npy")]:
        for i in range(4):
            link = many.root / path.parent.name / f"{path.stem}_{i}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    names = [f"{name}_{i}" for i in range(4) for name in photographs.ids("train_id.txt")]
    reader = FrameReader(many, names, 7, FRAME)
    monkeypatch.setattr("fastseg.data.frames.MOST_THREADS", 1)

    def read():
        for start in range(0, len(names), 16):
            reader(range(start, start + 16))

    def build():
        clear_cache()
        cached_reader(reader)

    ratio, most = paired(build, read, 3) * cores(), 2.0
    print(f"\ncache of {len(names)} photographs built on {cores()} cores / reading them at one core's speed times "
          f"{cores()}: {ratio:.2f} (at most {most})")  # fmt: skip
    assert ratio <= most


def test_an_augmented_epoch_from_the_cache_against_a_batch_in_memory(photographs):
    from fastseg.learning.learner import seg_learner

    cfg = load_config("sample", f"data.root={photographs.root}", "data.limit=64", "data.cache=true",
                      "data.size=128x128", "augment.preset=light", "model.weights=none", "data.workers=0")  # fmt: skip
    learn = seg_learner(cfg, dls=seg_dataloaders(cfg))
    model, loss_of, train = learn.model, learn.loss_func, learn.dls.train
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    x, y = (part.as_subclass(torch.Tensor) for part in train.one_batch())

    def step(images, masks):
        loss_of(model(images), masks).backward()
        optimizer.step()
        optimizer.zero_grad()

    def epoch():
        for images, masks in train:
            step(images.as_subclass(torch.Tensor), masks.as_subclass(torch.Tensor))

    def in_memory():
        for _ in range(len(train)):
            step(x, y)

    ratio = paired(epoch, in_memory, 5)
    print(f"\nepoch with augment light from the cache / on one batch in memory, 128x128: {ratio:.3f} (at most 1.15)")
    assert ratio <= 1.15

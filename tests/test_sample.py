"""The drawn sample: its layout, its sameness, and that it is neither easier nor stranger than what it stands for."""

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastseg.data import sample as sample_module
from fastseg.data.drawing.shots import frame_size, shoot
from fastseg.data.sample import CLASSES, draw_sample, embedded_sample
from fastseg.errors import InputError

# The real set's shares of all pixels, in per cent.
SHARES = np.array([78.6, 2.2, 7.0, 1.3, 6.0, 2.3, 2.7])
LEGS = (0.62, 0.73)


def ids_of(root, name):
    return (root / name).read_text().split()


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def shares_and_legs(masks):
    """Mean share of each class in per cent, and the share of masks with a leg."""
    counts = np.array([np.bincount(mask.ravel(), minlength=7) / mask.size for mask in masks])
    return 100 * counts.mean(0), np.mean(counts[:, 3] + counts[:, 5] > 0)


def colour_only_miou(root, class_weight=None):
    """The mean IoU over six parts of a logistic regression on a pixel's colour, judged on the validation images."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)

    def pixels(names, count):
        colours, labels = [], []
        for name in names:
            rgb = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg")).reshape(-1, 3)
            mask = np.load(root / "gt_masks" / f"{name}.npy").ravel()
            chosen = rng.choice(len(mask), min(count, len(mask)), replace=False)
            colours.append(rgb[chosen] / np.float32(255))
            labels.append(mask[chosen])
        return np.concatenate(colours), np.concatenate(labels).astype(int)

    model = LogisticRegression(class_weight=class_weight, max_iter=200)
    model.fit(*pixels(ids_of(root, "train_id.txt"), 400))
    colours, truth = pixels(ids_of(root, "val_id.txt"), 40_000)
    matrix = np.bincount(truth * 7 + model.predict(colours), minlength=49).reshape(7, 7)
    hits = np.diag(matrix)
    return np.mean((hits / (matrix.sum(0) + matrix.sum(1) - hits))[1:])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """120 images of up to 96 × 128."""
    return draw_sample(tmp_path_factory.mktemp("drawn") / "sample", 90, 30, (96, 128), seed=3)


def test_the_layout_is_pascal_parts(drawn):
    train, valid = ids_of(drawn, "train_id.txt"), ids_of(drawn, "val_id.txt")
    assert train == [f"sample_{k:06d}" for k in range(90)]
    assert valid == [f"sample_{k:06d}" for k in range(90, 120)]
    lines = (drawn / "classes.txt").read_text().splitlines()
    assert lines == [f"{k}: {name}" for k, name in enumerate(CLASSES)]
    assert len(list((drawn / "JPEGImages").iterdir())) == len(list((drawn / "gt_masks").iterdir())) == 120
    for name in train + valid:
        photo, mask = Image.open(drawn / "JPEGImages" / f"{name}.jpg"), np.load(drawn / "gt_masks" / f"{name}.npy")
        assert photo.mode == "RGB"
        assert photo.size == mask.shape[::-1]
        assert mask.dtype == np.uint8
        assert mask.max() <= 6
        assert max(photo.size) <= 128


def test_most_photographs_have_the_size_asked_for_and_some_lie_on_their_side():
    sizes = [frame_size(np.random.default_rng((0, k)), (375, 500)) for k in range(1000)]
    share = {size: sizes.count(size) / 1000 for size in sizes}
    assert share[375, 500] == max(share.values()) >= 0.35
    assert 0.15 < np.mean([height > width for height, width in sizes]) < 0.35
    assert share[333, 500] > 0.03
    assert max(map(max, sizes)) == 500


def test_the_same_bytes_for_any_number_of_workers_and_for_a_longer_sample(tmp_path):
    one = draw_sample(tmp_path / "one", 20, 4, (64, 80), seed=5, workers=1)
    two = draw_sample(tmp_path / "two", 20, 4, (64, 80), seed=5, workers=2)
    more = draw_sample(tmp_path / "more", 26, 4, (64, 80), seed=5, workers=2)
    assert contents(one) == contents(two)
    for name in ids_of(one, "train_id.txt"):
        assert (one / "gt_masks" / f"{name}.npy").read_bytes() == (more / "gt_masks" / f"{name}.npy").read_bytes()


def test_another_seed_draws_other_images():
    first, again, other = (shoot(seed, 4, (64, 80)) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("size", [(16, 16), (16, 160), (160, 16), (64, 64)])
def test_any_shape_can_be_drawn(size):
    for index in range(40):
        rgb, mask = shoot(11, index, size)
        assert rgb.shape == (*mask.shape, 3)
        assert max(mask.shape) <= max(size)


def test_workers_that_are_spawned_draw_too(tmp_path):
    # On macOS and Windows a worker starts empty and has to find all that it needs by importing it.
    code = (
        "import multiprocessing, sys\n"
        "from fastseg.data.sample import draw_sample\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    draw_sample(sys.argv[1], 16, 8, (32, 40), seed=5, workers=2)\n"
    )
    script = tmp_path / "spawn.py"
    script.write_text(code)
    subprocess.run([sys.executable, str(script), str(tmp_path / "spawned")], check=True, timeout=60)
    here = draw_sample(tmp_path / "here", 16, 8, (32, 40), seed=5, workers=1)
    assert contents(here) == contents(tmp_path / "spawned")


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    draw_sample(tmp_path / "sample", 19, 2, (32, 32), progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [21] * len(seen)
    assert seen == sorted(seen)
    assert seen[-1] == (21, 21)
    assert len(seen) > 1


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="not an empty folder"):
        draw_sample(tmp_path, 2, 1, (32, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (draw_sample(empty, 2, 1, (32, 32)) / "train_id.txt").is_file()


def test_a_drawing_that_breaks_off_leaves_nothing_behind(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "sample", 20, 4, (32, 32), progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("train", "valid", "size", "seed"),
    [(0, 0, (32, 32), 0), (-1, 2, (32, 32), 0), (2, 1, (8, 32), 0), (2, 1, (32, 32), -1)],
)
def test_impossible_numbers_are_refused(tmp_path, train, valid, size, seed):
    with pytest.raises(InputError, match="cannot draw"):
        draw_sample(tmp_path / "sample", train, valid, size, seed)
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_sample_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    first = embedded_sample(3, 1, (32, 40), 7)
    assert first.parent == tmp_path
    monkeypatch.setattr(sample_module, "_draw_beside", lambda *_: pytest.fail("drawn a second time"))
    assert embedded_sample(3, 1, (32, 40), 7) == first
    monkeypatch.undo()
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    assert embedded_sample(3, 1, (32, 40), 8) != first
    assert embedded_sample(3, 1, (40, 40), 7) != first


def test_the_loser_of_a_race_takes_the_winners_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    draw, marks = sample_module._draw_beside, []

    def draw_while_another_finishes(root, *rest):
        folder = draw(root, *rest)
        if not marks:
            marks.append("the winner's")
            (draw(root, *rest) / "winner.txt").write_text(marks[0])
            next(path.parent for path in tmp_path.glob(".*/winner.txt")).rename(root)
        return folder

    monkeypatch.setattr(sample_module, "_draw_beside", draw_while_another_finishes)
    root = embedded_sample(3, 1, (32, 40), 7)
    assert (root / "winner.txt").read_text() == marks[0]
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert sample_module.cache_folder() == tmp_path / "xdg" / "fastseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sample_module.cache_folder() == tmp_path / ".cache" / "fastseg"


def test_importing_the_sample_loads_nothing_heavy():
    code = (
        "import sys; from fastseg.data.sample import shoot; shoot(0, 0, (32, 32))\n"
        "print({'torch', 'fastai', 'sklearn', 'scipy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_class_shares_and_legs_are_near_the_real_sets():
    # 480 images: fewer say too little about the share with legs, whose standard error is 2 % here.
    shares, legs = shares_and_legs([shoot(1, k, (96, 128))[1] for k in range(480)])
    assert np.all(np.abs(shares / SHARES - 1) < 1 / 3), dict(zip(CLASSES, shares.round(2), strict=True))
    assert LEGS[0] <= legs <= LEGS[1]


def test_colour_alone_does_not_tell_the_part(drawn):
    assert colour_only_miou(drawn) <= 0.10
    assert colour_only_miou(drawn, "balanced") <= 0.10


def test_the_colour_only_judge_sees_colours(tmp_path):
    # The control for the test above: where each part has its own colour, colour alone is enough.
    root = draw_sample(tmp_path / "sample", 12, 4, (64, 64), seed=1)
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)])
    for path in (root / "gt_masks").iterdir():
        picture = Image.fromarray(colours[np.load(path)].astype(np.uint8))
        picture.save(root / "JPEGImages" / f"{path.stem}.jpg", quality=95, subsampling=0)
    assert colour_only_miou(root) > 0.6


@pytest.mark.slow
def test_the_default_sample_as_it_is_shipped(tmp_path):
    root = draw_sample(tmp_path / "sample")
    masks = [np.load(path) for path in sorted((root / "gt_masks").iterdir())]
    shares, legs = shares_and_legs(masks)
    assert len(masks) == 576 + 96
    assert np.all(np.abs(shares / SHARES - 1) < 1 / 3), dict(zip(CLASSES, shares.round(2), strict=True))
    assert LEGS[0] <= legs <= LEGS[1]
    assert colour_only_miou(root) <= 0.10
    assert colour_only_miou(root, "balanced") <= 0.10


def test_a_worker_of_a_pool_draws_without_a_pool_of_its_own(tmp_path):
    # Daemonic workers must not have children.
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        root = pool.apply(draw_sample, (tmp_path / "sample", 16, 1, (32, 32)))
    assert len(ids_of(root, "train_id.txt")) == 16

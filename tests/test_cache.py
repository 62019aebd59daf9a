import json
import os
import pickle
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastseg.data import cache
from fastseg.data.cache import cached_reader, clear_cache, on_device
from fastseg.data.files import Files
from fastseg.data.frames import FrameReader, Framing
from fastseg.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))


def reader(root, size=(32, 48), pad=False, names=None):
    files = Files(root)
    return FrameReader(files, files.ids("train_id.txt") if names is None else names, 7, Framing(size, pad))


def same(first, second):
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True))


def built(monkeypatch):
    """A list of what is read from files from here on."""
    seen = []
    read = FrameReader.__call__

    def noted(self, items):
        seen.extend(self.names[i] for i in items)
        return read(self, items)

    monkeypatch.setattr(FrameReader, "__call__", noted)
    return seen


@pytest.mark.parametrize("pad", [False, True])
def test_the_cache_gives_what_the_files_give(drawn, pad):
    plain = reader(drawn, pad=pad)
    cached = cached_reader(plain)
    for items in ([0], [7, 2, 2, 5], list(range(8))):
        assert same(cached(items), plain(items))
    images, masks, _ = cached([1, 2])
    assert (images.dtype, masks.dtype, images.shape) == (torch.uint8, torch.uint8, (2, 3, 32, 48))
    images[:] = 0
    assert same(cached([1, 2]), plain([1, 2])), "a batch that is changed must not change the cache"


def test_a_second_run_reads_nothing_and_another_size_all(drawn, monkeypatch):
    cached_reader(reader(drawn))
    seen = built(monkeypatch)
    cached_reader(reader(drawn))
    assert seen == []
    cached_reader(reader(drawn, size=(16, 16)))
    assert len(seen) == 8
    cached_reader(reader(drawn, names=Files(drawn).ids("val_id.txt")))
    assert seen[8:] == Files(drawn).ids("val_id.txt")


def test_an_edited_mask_rebuilds_only_itself(drawn_copy, monkeypatch):
    old = cached_reader(reader(drawn_copy))
    before = old([4])
    path = Files(drawn_copy).mask("sample_000004")
    np.save(path, (np.load(path) + 1) % 7)
    seen = built(monkeypatch)
    new = cached_reader(reader(drawn_copy))
    assert seen == ["sample_000004"]
    assert same(new(list(range(8))), reader(drawn_copy)(list(range(8))))
    assert not same(new([4])[1:2], before[1:2])
    # A run that is under way goes on with what it began with.
    assert same(old([4]), before)


def test_what_a_killed_run_left_is_written_over(drawn, monkeypatch):
    whole = cached_reader(reader(drawn))
    index = whole.folder / "index.json"
    entries = json.loads(index.read_text())
    kept = dict(list(entries.items())[:3])
    index.write_text(json.dumps(kept))
    with (whole.folder / "images.bin").open("r+b") as file:
        file.seek(3 * 32 * 48 * 3)
        file.write(b"\0" * 1000)
    seen = built(monkeypatch)
    again = cached_reader(reader(drawn))
    assert len(seen) == 5
    assert same(again(list(range(8))), reader(drawn)(list(range(8))))
    with (again.folder / "images.bin").open("r+b") as file:
        file.truncate(1000)
    assert same(cached_reader(reader(drawn))([6, 7]), reader(drawn)([6, 7]))
    index.write_text("{half")
    assert same(cached_reader(reader(drawn))([6]), reader(drawn)([6]))


def test_a_file_that_cannot_be_read_stops_it_by_name(drawn_copy):
    image = Files(drawn_copy).image("sample_000003")
    image.write_bytes(image.read_bytes()[:400])
    with pytest.raises(InputError, match=r"sample_000003\.jpg"):
        cached_reader(reader(drawn_copy))
    assert not list((cache._home()).glob("*/index.json"))


def test_no_room_is_said_before_anything_is_written(drawn, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40_000))
    with pytest.raises(InputError, match=r"8 photographs need 0\.05 MB .* free there; set FASTSEG_CACHE"):
        cached_reader(reader(drawn))
    assert not list(cache._home().glob("*/*.bin"))


def test_a_pickled_reader_maps_the_files_itself(drawn):
    cached = cached_reader(reader(drawn))
    cached([0])
    copy = pickle.dumps(cached)
    assert len(copy) < 3000
    assert same(pickle.loads(copy)([5]), cached([5]))


def test_parallel_runs_share_one_store(drawn, tmp_path):
    code = (
        "import sys; from pathlib import Path; from fastseg.data.cache import cached_reader;"
        "from fastseg.data.files import Files; from fastseg.data.frames import FrameReader, Framing;"
        "f = Files(Path(sys.argv[1])); r = FrameReader(f, f.ids('train_id.txt'), 7, Framing((32, 48)));"
        "print(int(cached_reader(r)(list(range(8)))[0].long().sum()))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(drawn)], stdout=subprocess.PIPE, env={**os.environ})
            for _ in range(2)]  # fmt: skip
    sums = {int(run.communicate()[0]) for run in runs}
    assert sums == {int(reader(drawn)(list(range(8)))[0].long().sum())}
    stores = [folder for folder in cache._home().iterdir() if folder.is_dir()]
    assert len(stores) == 1
    assert (stores[0] / "masks.bin").stat().st_size == 8 * 32 * 48


def test_clearing_removes_every_store(drawn):
    assert clear_cache() == (0, 0)
    cached_reader(reader(drawn))
    cached_reader(reader(drawn, pad=True))
    count, freed = clear_cache()
    assert count == 2
    assert freed > 2 * 8 * 32 * 48 * 4
    assert not list(cache._home().glob("*/*"))


def test_the_command_clears_it(drawn, capsys):
    from fastseg.cli import main

    cached_reader(reader(drawn))
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "1 cached sets of frames removed, 0.1 MB freed\n"
    assert not list(cache._home().glob("*"))
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "nothing is cached\n"


def test_on_a_cpu_the_mapped_files_are_the_device_s_memory(drawn, monkeypatch, capsys):
    cached = cached_reader(reader(drawn))
    assert on_device([cached], torch.device("cpu")) == [cached]
    monkeypatch.setattr(cache, "free_memory", lambda _: 1000)
    assert on_device([cached], torch.device("meta")) == [cached]
    assert "reading from the disk's cache instead" in capsys.readouterr().err


def test_frames_on_a_device_are_gathered_there(drawn):
    cached = cached_reader(reader(drawn))
    there = cache.DeviceReader(cached, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    images, masks, shapes = there([6, 1, 1])
    assert same((images.cpu(), masks.cpu(), shapes), cached([6, 1, 1]))

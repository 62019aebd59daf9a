"""Files are whole or not there, whoever reads, and whatever ends their writer."""

import csv
import json
import threading

import pytest

from fastseg.writing import tidy, whole, write_bytes, write_json, write_rows


def test_a_reader_beside_a_writer_sees_whole_files_only(tmp_path):
    path, seen = tmp_path / "a.json", set()
    write_json(path, [0] * 50_000)
    writer = threading.Thread(target=lambda: [write_json(path, [i] * 50_000) for i in range(8)])
    writer.start()
    while writer.is_alive():
        seen.add(len(json.loads(path.read_text())))
    assert seen <= {50_000}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("flush", [False, True])
def test_bytes_take_the_place_of_earlier_ones(tmp_path, flush):
    for content in (b"long content", b"short"):
        write_bytes(tmp_path / "a", content, flush)
        assert (tmp_path / "a").read_bytes() == content


def test_what_fails_leaves_the_file_before_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")

    def interrupted():
        with whole(path) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_rows_are_read_back(tmp_path):
    rows = [{"epoch": "1", "name": "a, b"}, {"epoch": "2", "name": 'c "d"'}]
    write_rows(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_leftovers_of_killed_processes_go(tmp_path):
    (tmp_path / "a.json.part77").write_text("half")
    (tmp_path / "examples.part77").mkdir()
    (tmp_path / "examples.part77" / "1.jpg").write_text("half")
    (tmp_path / "a.json").write_text("whole")
    tidy(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]

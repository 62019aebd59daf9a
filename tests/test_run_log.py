import re
import sys

import pytest

from fastseg.experiments.run_log import RunLog

TIME = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d  "


def test_what_is_said_is_written_with_times(tmp_path, capsys):
    file = tmp_path / "log.txt"
    file.write_text("earlier\n")
    stderr = sys.stderr
    with RunLog() as log:
        print("before there is a folder", file=sys.stderr)
        log.open(file)
        print("a li", end="", file=sys.stderr)
        print("ne", file=sys.stderr)
        print("\r1 of 2", end="\r", file=sys.stderr)
        print("\r2 of 2: done   ", file=sys.stderr, flush=True)
        log.note("for the file alone")
        assert sys.stderr.isatty() == stderr.isatty()
    assert sys.stderr is stderr
    first, *lines = file.read_text().splitlines()
    assert first == "earlier"
    assert all(re.match(TIME, line) for line in lines)
    said = ["before there is a folder", "a line", "2 of 2: done", "for the file alone"]
    assert [re.sub(TIME, "", line) for line in lines] == said
    assert capsys.readouterr().err == "before there is a folder\na line\n\r1 of 2\r\r2 of 2: done   \n"


def test_how_it_ended_is_written_and_a_full_disk_stops_nothing(tmp_path, capsys):
    log = RunLog()
    log.open(tmp_path / "log.txt")
    with pytest.raises(ValueError, match="two"), log:
        raise ValueError("one\ntwo")
    assert re.sub(TIME, "", (tmp_path / "log.txt").read_text(), flags=re.M) == "ended by ValueError: one\ntwo\n"
    with RunLog() as log:
        log.open(tmp_path)
        print("said all the same", file=sys.stderr)
    assert capsys.readouterr().err == "said all the same\n"

"""`log.txt`: what was said on stderr during a run, with times."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any


class RunLog:
    """Within it, what goes to stderr also goes into a file, line by line, each with its time; earlier lines stay.

    Lines that come before `open` wait for it. A line that overwrites itself (a progress bar) is written as it ends.
    """

    def __init__(self):
        self.file: Path | None = None
        self.waiting: list[str] = []
        self.begun = ""

    def __enter__(self) -> RunLog:
        self.stream = sys.stderr
        self.redirection = contextlib.redirect_stderr(self)
        self.redirection.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if error is not None:
            self.note(f"ended by {kind.__name__}" + (f": {error}" if str(error) else ""))
        self.redirection.__exit__(kind, error, trace)

    def open(self, file: Path) -> None:
        """Write what waits, and from now on each line as it comes."""
        self.file = file
        self._append()

    def note(self, text: str) -> None:
        """Lines for the file alone."""
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        self.waiting += [f"{now}  {line}\n" for line in text.splitlines() if line.strip()]
        self._append()

    def write(self, text: str) -> int:
        """What is said."""
        self.stream.write(text)
        *whole, self.begun = (self.begun + text).split("\n")
        for line in whole:
            self.note(line.rstrip().rpartition("\r")[2])
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _append(self) -> None:
        if self.file is None:
            return
        # A full disk must not stop a run for its log.
        with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
            file.writelines(self.waiting)
        self.waiting = []

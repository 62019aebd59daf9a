"""Which network, which loss, which settings: many short trainings, the best of them written down.

The search itself is Optuna's: its samplers pick, its pruners end what is hopeless, its storage lets workers on many
machines share a study. Here are the stages, and the run folder that each trial is.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg.config import dump_config, load_config
from fastseg.errors import InputError
from fastseg.run import with_full_paths
from fastseg.settings import Settings
from fastseg.writing import write_text

if TYPE_CHECKING:
    from fastseg.experiments.searching.leaderboard import Entry

CONFIG, FINAL = "search.yaml", "final"
WIDEST = 60  # characters of a column


def search(cfg: Settings | None = None, finish: bool = False) -> Path:
    """Search as configured and return the folder `out/name`, which holds leaderboard.csv, search.html and best.yaml.

    The same call goes on with a search that was stopped or killed, and shares it with other processes that make it;
    of a finished one it writes the pages anew. With `finish`, the winner is then trained on all the data with the
    whole schedule, in a folder `final-…` beside them. As each trial is trained in a process of its own, a script that
    calls this needs the usual `if __name__ == "__main__":`.

    Raises `InputError` for settings and data that no trial can be made of, and where all trials failed. Ctrl-C and
    SIGTERM stop after a batch, once its checkpoint is written, with KeyboardInterrupt or SystemExit.
    """
    _check_installed()
    from fastseg.experiments.searching.jobs import JobFailed, run_job
    from fastseg.experiments.searching.space import check_space, metric_of, trial_settings
    from fastseg.experiments.searching.stages import Stages

    cfg = load_config("search_sample") if cfg is None else cfg
    metric = metric_of(cfg)
    check_space(cfg)
    with _listening(), _quiet():
        try:
            run_job("prepare", trial_settings(cfg, 0, metric))
        except JobFailed as error:
            raise InputError(str(error)) from None
        folder = _make_folder(cfg)
        stages = Stages(cfg, folder, metric)
        stages.run()
        best = stages.conclude()
    if finish:
        _finish(cfg, folder, best, metric)
    return folder


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError("search: Optuna is not installed; pip install 'fastseg-parts[search]'") from None


def _make_folder(cfg: Settings) -> Path:
    from fastseg.experiments.searching.stages import TRIALS

    folder = Path(cfg.out).expanduser() / cfg.name
    try:
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot make {folder}: {error.strerror}; name a folder you may write to") from None
    write_text(folder / CONFIG, dump_config(with_full_paths(cfg)))
    return folder


def _finish(cfg: Settings, folder: Path, best: Entry, metric: str) -> Path:
    """Train the winner on all the data, or go on with that."""
    from fastseg.experiments.searching.leaderboard import finished_settings
    from fastseg.experiments.train import train
    from fastseg.run import CONFIG as RUN_CONFIG
    from fastseg.run import Run

    name = f"{FINAL}-{best.stage}-{best.number:03d}"
    final, run = finished_settings(cfg, best, metric).model_copy(update={"name": name}), folder / name
    run.mkdir(exist_ok=True)
    if not (run / RUN_CONFIG).is_file():
        Run(run).write_config(final)
    print(f"training the winner, {best.label}, on all the data", file=sys.stderr, flush=True)
    return train(final, run)


@contextmanager
def _listening() -> Iterator[None]:
    """SIGTERM ends the search as Ctrl-C does, with the status of a process that it ended."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, ask)
    except ValueError:
        # Not in the main thread.
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        if asked:
            raise SystemExit(128 + asked[0]) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing meanwhile: not of each trial, which we do, nor that parts of it are new."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def table_of(folder: Path, most: int = 10) -> str:
    """The best trials of leaderboard.csv in columns of text."""
    from fastseg.experiments.searching.leaderboard import read_leaderboard

    rows = read_leaderboard(folder)
    keys = ["rank", "stage", "trial", "state", *_told(rows)]
    lines = [[key.rpartition(".")[2] for key in keys]]
    lines += [[_short(row[key]) for key in keys] for row in rows[:most]]
    wide = [max(len(line[i]) for line in lines) for i in range(len(keys))]
    text = ["  ".join(word.ljust(width) for word, width in zip(line, wide, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *([f"… and {len(rows) - most} more"] if len(rows) > most else [])])


def _told(rows: list[dict[str, str]]) -> list[str]:
    """The score, settings and sizes: of the columns behind `state` those that differ."""
    columns = list(rows[0])[4:]
    left_out = ("reason", "peak_memory_mib", "training_seconds", "run_seconds", "run")
    told = [key for key in columns if key not in left_out and not key.startswith("native")
            and len({row[key] for row in rows}) > 1]  # fmt: skip
    return told + ["reason"] * any(row["reason"] for row in rows)


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value if len(value) <= WIDEST else f"{value[: WIDEST - 1]}…"

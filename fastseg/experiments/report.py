"""`report.html`: one page that explains a run, made of its folder alone: no dataset, no network, no script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

from fastseg.errors import InputError
from fastseg.experiments.examples import read_examples
from fastseg.experiments.reporting.curves import curves_section
from fastseg.experiments.reporting.pictures import pictures_section
from fastseg.experiments.reporting.scores import confusion_section, headline, scores_section, shown
from fastseg.experiments.reporting.settings import settings_section
from fastseg.experiments.reporting.words import caveats, caveats_html, meanings, meanings_html
from fastseg.inference.stored import SCORES, kept_counts
from fastseg.inference.tables import heading
from fastseg.pages.charts import table
from fastseg.pages.document import document
from fastseg.run import CONFIG, ENVIRONMENT, HISTORY, METRICS, REPORT, TIMING, Run, read_columns, read_json
from fastseg.writing import write_text

PLACES = {"scores": "scores", "curves": "curves", "confusion": "confusion", "photographs": "photographs",
          "run": "what was run", "speed": "speed and memory", "environment": "environment",
          "meaning": "what the numbers mean"}  # fmt: skip


def report(run: str | Path) -> Path:
    """Write the page of a run into its folder; returns its path.

    It needs the run's folder alone and no part of torch; what the folder lacks is said on the page. Raises `InputError`
    for a folder that is no run, has no scores yet, or cannot be written.
    """
    opened = Run.open(run)
    path = opened.path / REPORT
    text = page(opened)
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; copy the run to where you may write") from None
    return path


def page(run: Run) -> str:
    """The page as HTML."""
    scores, facts = read_json(run.path / METRICS), read_json(run.path / ENVIRONMENT)
    if not scores:
        raise InputError(f"{run.path}: it has no {METRICS}; finish it with fastseg train or save_run")
    cfg, tree, history = run.cfg, run.hierarchy, read_columns(run.path / HISTORY)
    counts = kept_counts(run, scores)
    matrix = None if counts is None else counts.matrices.sum(0, dtype="int64")
    kept = scores.get("epoch") if scores.get("keep") == "best" else None
    body = [
        f"<header><h1>{escape(run.path.resolve().name)}</h1><p>{escape(cfg.model.arch)} on "
        f"{escape(cfg.model.encoder)}, {cfg.data.size[0]}x{cfg.data.size[1]} (height x width). Scores of "
        f"{escape(heading(scores, tree))}.</p>{headline(scores, tree)}<nav aria-label='sections'>"
        f"{''.join(f'<a href=#{place}>{name}</a> ' for place, name in PLACES.items())}</nav></header>",
        caveats_html(caveats(cfg, scores, history, facts, tree)),
        scores_section(scores, tree),
        curves_section(history, tree, kept) if history else
        "<section id='curves'><h2>Curves</h2><p>No epoch is recorded.</p></section>",
        confusion_section(matrix, tree),
        pictures_section(read_examples(run.path), tree),
        settings_section(cfg, _repeats(run.path, facts)),
        _speed(read_columns(run.path / TIMING), facts),
        _environment(facts),
        _others(run.path / SCORES, tree.depth),
        meanings_html(meanings(scores, tree, cfg.data.size)),
    ]  # fmt: skip
    style = resources.files("fastseg.experiments.reporting").joinpath("report.css").read_text(encoding="utf-8")
    return document(f"{run.path.resolve().name}: a run of fastseg", body, style)


def _repeats(folder: Path, facts: Mapping[str, Any]) -> str:
    command = f"<pre tabindex='0'>fastseg train --config {escape(shlex.quote(str(folder / CONFIG)))}</pre>"
    if facts.get("trained_by") == "train" and not facts.get("own_data"):
        return f"{command}<p>On the same machine and CPU it gives the same history, epoch by epoch.</p>"
    what = "on DataLoaders of its own " if facts.get("own_data") else ""
    return (
        f"<p>None does. The Learner was fitted by hand {what}and saved with <code>save_run</code>; the calls that "
        "fitted it are not recorded, and the settings of <code>train</code> may not be those that were used. "
        f"A run of the recorded settings:</p>{command}"
        if facts
        else f"{command}<p>Whether it was trained so is not recorded.</p>"
    )


def _speed(timing: Mapping[str, list[float | None]], facts: Mapping[str, Any]) -> str:
    top = "<section id='speed'><h2>Speed and memory</h2><div class='two'>"
    seconds = [s for s in timing.get("seconds", []) if s]
    photographs = facts.get("photographs") or {}
    total = sum(n or 0 for n in photographs.values())
    lines = []
    if seconds:
        usual = median(seconds)
        lines.append(["an epoch (median)", f"{usual:.1f} s"])
        lines.append(["all epochs", f"{sum(seconds) / 60:.1f} min" if sum(seconds) > 120 else f"{sum(seconds):.0f} s"])
        if total and all(photographs.values()):
            lines.append(["photographs a second", f"{total / usual:.3g}"])
            lines.append(["an epoch's photographs", f"{photographs['train']:,} + {photographs['valid']:,}"])
    speed = table(["", "time"], lines, "", "speed") if lines else "<p>No times are recorded.</p>"
    peaks = [[escape(name), f"{mib:,} MiB"] for name, mib in (facts.get("peak_memory_mib") or {}).items()]
    memory = table(["", "peak"], peaks, "", "memory") if peaks else "<p>No peak of memory is recorded.</p>"
    each = ""
    if len(seconds) > 1:
        rows = [[f"{int(e or 0)}", f"{s or 0:.2f}"] for e, s in zip(timing["epoch"], timing["seconds"], strict=True)]
        listed = table(["epoch", "seconds"], rows, "", "time of each epoch")
        each = f"<details><summary>each epoch</summary>{listed}</details>"
    return f"{top}<div><h3>Speed</h3>{speed}{each}</div><div><h3>Memory</h3>{memory}</div></div></section>"


def _environment(facts: Mapping[str, Any]) -> str:
    rows = [
        [escape(name), escape(f"{value:,}" if isinstance(value, int) else str(value))]
        for name, value in facts.items()
        if isinstance(value, (str, int)) and not isinstance(value, bool) and name != "trained_by"
    ]
    listed = table(["", "this run's"], rows, "facts", "environment") if rows else "<p>Not recorded.</p>"
    return f"<section id='environment'><h2>Environment</h2>{listed}</section>"


def _others(folder: Path, depth: int) -> str:
    """What `evaluate` has written beside the run's own scores."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        scores = read_json(path)
        words = [scores.get(key) for key in ("split", "images", "protocol", "definition", "decode", "tta")]
        means = [shown(scores.get(f"miou{level}")) for level in range(depth)]
        rows.append([escape(path.stem), *(escape(str(w)) if w else "–" for w in words), *means])
    if not rows:
        return ""
    head = ["file", "split", "photographs", "protocol", "definition", "decoding", "averaged over",
            *(f"miou{level}" for level in range(depth))]  # fmt: skip
    return f"<section id='others'><h2>Other scores of this run</h2>{table(head, rows, '', 'other scores')}</section>"

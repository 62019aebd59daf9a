"""`search.html`: which trial won and why, what the others came to, and what the settings matter."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib import resources
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import TrialState
from PIL import Image

from fastseg.experiments.examples import Example, read_examples
from fastseg.experiments.reporting.pictures import colour_mask
from fastseg.experiments.searching.graphs import curves_graph, parallel_graph, speed_graph
from fastseg.experiments.searching.leaderboard import BEST, Entry, comparable, ranked
from fastseg.experiments.searching.space import label
from fastseg.hierarchy import IGNORE_INDEX, Hierarchy
from fastseg.pages.charts import bar, legend, table
from fastseg.pages.document import document, jpeg_url
from fastseg.settings import Settings
from fastseg.writing import write_text

PAGE = "search.html"
THUMBNAIL = (176, 120)
FEWEST = 5  # trials of a stage from which the importance of its settings can be told


def write_page(folder: Path, cfg: Settings, found: Sequence[Entry], studies: Sequence[Study], metric: str) -> Path:
    """Write the page of a search that has a winner; returns its path."""
    path = folder / PAGE
    write_text(path, page(cfg, found, studies, metric, folder))
    return path


def page(cfg: Settings, found: Sequence[Entry], studies: Sequence[Study], metric: str, folder: Path) -> str:
    """The page as HTML."""
    best = comparable(cfg, found)[0]
    stages = [stage.name for stage in cfg.search.stages]
    each = [[entry for entry in found if entry.stage == name] for name in stages]
    graphs = "".join(
        f"<h3>{escape(name)}</h3><div class='wide-svg'>{drawn}</div>"
        for name, own in zip(stages, each, strict=True)
        if (drawn := parallel_graph(own, list(cfg.search.space), best, metric))
    )
    body = [
        _header(cfg, found, best, metric, folder),
        _trials(cfg, found, metric),
        _heat(cfg, each[0], metric),
        "<section id='speed'><h2>Score against speed</h2><p>Every complete trial; the dotted line joins those that no "
        f"other beats both in score and in speed. Point at one to read which it is.</p>"
        f"{speed_graph([e for e in found if e.state == 'complete'], best, metric)}</section>",
        "<section id='settings'><h2>Settings beside scores</h2><p>A line is a trial; the red one won, dashed ones were "
        f"pruned (their score is that of their last epoch).</p>{graphs or '<p>Too few trials.</p>'}</section>",
        _importance(stages, studies),
        "<section id='curves'><h2>Learning curves</h2><p>Red: the winner; dashed: pruned.</p>"
        f"{curves_graph(found, best, metric)}</section>",
    ]
    style = resources.files("fastseg.experiments.searching").joinpath("search.css").read_text(encoding="utf-8")
    return document(f"{cfg.name}: a search of fastseg", body, style)


def _header(cfg: Settings, found: Sequence[Entry], best: Entry, metric: str, folder: Path) -> str:
    states = Counter(entry.state for entry in found)
    tally = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "failed", "running", "waiting")
                      if states[state])  # fmt: skip
    hours = sum(entry.seconds or 0 for entry in found) / 3600
    spent = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    command = f"fastseg train --config {shlex.quote(str(folder.resolve() / BEST))}"
    return (
        f"<header><h1>{escape(cfg.name)}: {escape(best.label)}</h1>{_why(cfg, found, best, metric)}"
        f"<div class='tiles'><div><strong>{best.score:.3f}</strong>{escape(metric)} of the winner, "
        f"{escape(best.stage)} {best.number}</div><div><strong>{len(found)}</strong>trials: {tally}</div>"
        f"<div><strong>{spent}</strong>of training</div></div><p>The same again, with as few photographs "
        "and epochs as the trial had:</p>"
        f"<pre tabindex='0'>{escape(command)}</pre></header>"
    )


def _why(cfg: Settings, found: Sequence[Entry], best: Entry, metric: str) -> str:
    """The winner's lead, and how much of it may be luck."""
    alike = comparable(cfg, found)
    said = [f"It had the highest {metric} of {len(alike)} complete trials"]
    if len(alike) > 1:
        second = alike[1]
        said.append(f", {best.score - second.score:.3f} above the second ({escape(second.label)}) and "
                    f"{best.score - alike[len(alike) // 2].score:.3f} above the median trial")  # fmt: skip
    said.append(". ")
    if interval := best.facts.get("interval"):
        said.append(f"Drawing the photographs anew moves the score of its weights between {interval[0]:.3f} and "
                    f"{interval[1]:.3f}: trials nearer to it than that are as good as it. ")  # fmt: skip
    said.append("The score chose the winner, so it is somewhat too good: the highest of many is also the luckiest.")
    if cfg.data.root is None:
        said.append(" The photographs are the embedded sample's drawn people, and say nothing of real ones.")
    return f"<p>{''.join(said)}</p>"


def _trials(cfg: Settings, found: Sequence[Entry], metric: str) -> str:
    tree, order = cfg.classes(), ranked(found)
    shown = _shared([entry.run for entry in order if entry.state == "complete"], tree)
    rows = []
    for rank, entry in enumerate(order, 1):
        facts, complete = entry.facts, entry.state == "complete"
        size = facts.get("parameters")
        speed = facts.get("photographs_per_second")
        why = f"<span class='why'>{escape(entry.reason)}</span>" if entry.reason else ""
        rows.append([
            str(rank) if complete else "–", thumbnail(entry.run, shown, tree) if complete else "",
            "" if entry.last is None else f"{entry.last:.3f}", escape(entry.label) or "–",
            f"{escape(entry.stage)} {entry.number}", f"{entry.state}{why}", str(max(entry.scores, default=0)),
            f"{size / 1e6:.2f} M" if size else "", f"{speed:g}" if speed else "",
            f"{entry.seconds:.0f} s" if entry.seconds else "",
        ])  # fmt: skip
    head = ["rank", "prediction", escape(metric), "settings", "trial", "state", "epochs",
            "parameters", "photographs a second", "time"]  # fmt: skip
    note = ("Scores are those of the kept epoch at the network's size, for pruned trials of their last epoch. "
            f"Pictures are predictions for {escape(shown or 'a photograph')}, or another where the run did not keep "
            "that; of trials whose run folder is on this machine.")  # fmt: skip
    return (f"<section id='trials'><h2>All trials</h2><p>{note}</p>{legend(tree)}"
            f"{table(head, rows, 'trials', 'trials by rank')}</section>")  # fmt: skip


def _shared(runs: Sequence[str], tree: Hierarchy) -> str | None:
    """The photograph that most runs have among their examples; one that shows much of the classes counts for more."""
    weights: Counter[str] = Counter()
    for run in runs:
        for example in _examples(run):
            classes = example.truth[example.truth != IGNORE_INDEX]
            weights[example.name] += float(np.mean(classes != tree.background)) if classes.size else 0.0
    return min(weights, key=lambda name: (-weights[name], name)) if weights else None


@lru_cache(maxsize=512)
def _examples(run: str) -> tuple[Example, ...]:
    # A finished run does not change.
    return tuple(read_examples(Path(run))) if run else ()


def thumbnail(run: str, wanted: str | None, tree: Hierarchy) -> str:
    """A photograph under a run's prediction: the wanted one, or the run's median one."""
    examples = _examples(run)
    if not examples:
        return ""
    order = {"median": 1, "best": 2, "worst": 3}
    one = min(examples, key=lambda example: 0 if example.name == wanted else order[example.group])
    return _drawn(run, one.name, tree)


@lru_cache(maxsize=512)
def _drawn(run: str, name: str, tree: Hierarchy) -> str:
    one = next(example for example in _examples(run) if example.name == name)
    photo = Image.fromarray(one.image).convert("RGBA")
    mask = Image.open(io.BytesIO(colour_mask(one.predicted, tree, tree.depth - 1))).convert("RGBA")
    photo.alpha_composite(mask.resize(photo.size, Image.Resampling.NEAREST))
    picture = photo.convert("RGB")
    picture.thumbnail(THUMBNAIL)
    return f"<img src='{jpeg_url(picture, 78)}' alt='prediction for {escape(name, quote=True)}'>"


def _heat(cfg: Settings, found: Sequence[Entry], metric: str) -> str:
    """Network by loss of the first stage; the darker the better."""
    keys = cfg.search.stage_keys(0)
    sides = [key for key in keys if key.startswith("model")], [key for key in keys if not key.startswith("model")]
    if not all(sides):
        return ""
    cells: dict[tuple[str, str], Entry] = {}
    for entry in found:
        if entry.picks:
            where = tuple(", ".join(str(label(entry.picks[k])) for k in side if k in entry.picks) for side in sides)
            kept = cells.get(where)
            if kept is None or (entry.last or -1) > (kept.last or -1):
                cells[where] = entry
    networks, others = (list(dict.fromkeys(where[i] for where in cells)) for i in (0, 1))
    scores = [entry.last for entry in cells.values() if entry.last is not None]
    low, high = min(scores, default=0), max(scores, default=1)
    rows = [[escape(network), *(_cell(cells.get((network, other)), low, high) for other in others)]
            for network in networks]  # fmt: skip
    means = "; ".join(_mean(name, cells, i) for i in (0, 1) for name in (networks, others)[i])
    return (
        f"<section id='networks'><h2>Network and loss</h2><p>{escape(metric)}, the number of parameters and "
        "photographs a second (trained and validated). A pruned trial shows the score of its last epoch.</p>"
        f"{table(['', *map(escape, others)], rows, 'matrix', 'network by loss')}<p><small>Means of what is complete: "
        f"{means}.</small></p></section>"
    )


def _mean(name: str, cells: Mapping[tuple[str, str], Entry], side: int) -> str:
    own = [e.score for where, e in cells.items() if where[side] == name and e.score is not None]
    return f"{escape(name)} {fmean(own):.3f}" if own else f"{escape(name)} –"


def _cell(entry: Entry | None, low: float, high: float) -> str:
    if entry is None or entry.last is None:
        return f"<div class='heat' style='--share:0%'>{escape(entry.state) if entry else '–'}</div>"
    share = round(100 * (entry.last - low) / ((high - low) or 1))
    size, speed = entry.facts.get("parameters"), entry.facts.get("photographs_per_second")
    words = [f"{size / 1e6:.2f} M" if size else "", f"{speed:g}/s" if speed else "",
             entry.state if entry.state != "complete" else ""]  # fmt: skip
    said = " · ".join(word for word in words if word)
    return f"<div class='heat' style='--share:{share}%'>{entry.last:.3f}<small>{said}</small></div>"


def _importance(stages: Sequence[str], studies: Sequence[Study]) -> str:
    parts = []
    for name, study in zip(stages, studies, strict=False):
        complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(complete) < FEWEST:
            parts.append(f"<h3>{escape(name)}</h3><p>Under {FEWEST} complete trials, too few to tell.</p>")
            continue
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError) as error:
            parts.append(f"<h3>{escape(name)}</h3><p>Cannot be told: {escape(str(error))}</p>")
            continue
        rows = [[escape(key), bar(share, "var(--blue)", f"{share:.0%}")] for key, share in found.items()]
        parts.append(f"<h3>{escape(name)}</h3>{table(['setting', 'importance'], rows, 'bars', f'importance, {name}')}")
    return (
        "<section id='importance'><h2>What mattered</h2><p>The share of the scores' variance that each setting "
        "explains (functional ANOVA over random forests, Hutter et al. 2014), of each stage's complete "
        f"trials. With few trials it is rough.</p>{''.join(parts)}</section>"
    )

"""The card of a published run: what it is, how it is used, how well it does by which ruler, and where it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fastseg.hierarchy import Hierarchy
from fastseg.inference.tables import heading
from fastseg.inference.words import caveats, meanings
from fastseg.run import ENVIRONMENT, HISTORY, Run, read_columns, read_json
from fastseg.settings import Settings

TASK = "image-segmentation"
TAGS = ("fastseg", TASK, "semantic-segmentation", "human-parsing")
# Terms that the card gives no number of.
UNUSED = ("curves", "photographs a second", "peak memory")
LIMITS = (
    "Where people overlap, their parts share one mask: persons are not told apart.",
    "What the data does not show (other clothes, poses, light, cameras, drawn people for a network of photographs, and "
    "the reverse) was neither learned nor scored.",
    "Do not use it to identify, judge or watch people: it knows parts of bodies and nothing of persons.",
)


def card_text(run: Run, cfg: Settings, scores: Mapping[str, Any], repo: str, license: str | None,
              picture: str | None) -> str:  # fmt: skip
    """README.md in the hub's layout: YAML at the top, then Markdown. `cfg` and `scores` are as published."""
    tree, facts = run.hierarchy, read_json(run.path / ENVIRONMENT)
    name = repo.rpartition("/")[2]
    known = caveats(cfg, scores, read_columns(run.path / HISTORY), facts, tree)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(tree, scores, cfg, name, license), sort_keys=False)}---",
        f"# {name}",
        f"{cfg.model.arch} on {_plain(cfg.model.encoder)}, {cfg.data.size[0]}x{cfg.data.size[1]} (height x width). It "
        f"gives every pixel of a photograph a leaf of the tree below, and with it a class on each of {tree.depth} "
        "levels. Trained with fastseg.",
        f"![Photographs, truth and prediction]({picture})" if picture else "",
        f"## How to use it\n\nWith fastseg (`fastseg-parts`) installed:\n\n```python\n"
        f'from fastseg import Predictor\n\npredictor = Predictor.from_hub("{repo}")\n'
        f'prediction = predictor.predict("photograph.jpg")\nprediction.ids          # (H, W) leaf ids\n'
        f"prediction.level(0)     # (H, W) ids of the nodes of level 0\n```",
        f"```yaml\n{yaml.safe_dump({'hierarchy': tree.tree}, sort_keys=False)}```",
        f"## Scores\n\n{_plain(heading(scores, tree))}.\n\n{_table(scores, tree)}",
        _by_size(scores, tree),
        "## What the numbers mean\n\n" + _list(
            f"**{_plain(term)}**: {_plain(said)}" for term, said in meanings(scores, tree, cfg.data.size)
            if term not in UNUSED),
        f"## Data\n\n{_data(cfg, scores, facts)}",
        "## Limits\n\n" + _list([*(_plain(said) for _, said in known), *LIMITS]),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(tree: Hierarchy, scores: Mapping[str, Any], cfg: Settings, name: str,
              license: str | None) -> dict[str, Any]:  # fmt: skip
    """What the hub reads: the library, the task, and the scores with their definition."""
    words = ", ".join(f"{scores[key]}" for key in ("definition", "protocol", "decode") if scores[key])
    metrics = [
        {"type": "mean_iou", "name": f"miou{level} ({words})", "value": round(scores[f"miou{level}"], 4)}
        for level in range(tree.depth) if scores[f"miou{level}"] is not None
    ]  # fmt: skip
    data = ", ".join(_names(cfg, scores))
    result = {
        "task": {"type": TASK, "name": "Image segmentation"},
        "dataset": {"name": data, "type": re.sub(r"[^\w.-]+", "-", data), "split": Path(scores["split"]).name},
        "metrics": metrics,
    }
    top = {"license": license} if license else {}
    index = {"model-index": [{"name": name, "results": [result]}]} if metrics else {}
    return top | {"library_name": "fastseg", "pipeline_tag": TASK, "tags": list(TAGS)} | index


def _names(cfg: Settings, scores: Mapping[str, Any]) -> list[str]:
    if cfg.data.root is None and scores["data"]:
        return ["fastseg's drawn sample"]
    return list(dict.fromkeys(scores["data"])) or ["own data"]


def _table(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    rows = ["| level | class | IoU | 95 % interval | precision | recall |", "|---|---|---:|---|---:|---:|"]
    spans = scores.get("intervals") or {}
    for level in range(tree.depth):
        key = f"miou{level}"
        rows.append(f"| **{level}** | **mean ({key})** | **{_number(scores[key])}** | {_span(spans.get(key))} | | |")
        for node in tree.foreground(level):
            name = tree.names(level)[node]
            entry = scores["classes"][name]
            cells = [_number(entry["iou"]), _span(spans.get("classes", {}).get(name)),
                     _number(entry["precision"]), _number(entry["recall"])]  # fmt: skip
            rows.append(f"| {level} | {_plain(name)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _by_size(scores: Mapping[str, Any], tree: Hierarchy) -> str:
    parts = scores.get("by_size") or {}
    if not parts:
        return ""
    means = [f"miou{level}" for level in range(tree.depth)]
    rows = [f"| people's share of the photograph | photographs | {' | '.join(means)} |"]
    rows += ["|---|" + "---:|" * (1 + len(means))]
    rows += [f"| {_plain(name)} | {part['images']} | {' | '.join(_number(part.get(key)) for key in means)} |"
             for name, part in parts.items()]  # fmt: skip
    return "\n".join(rows)


def _data(cfg: Settings, scores: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    counts = facts.get("photographs") or {}
    trained = f"Trained on {counts['train']:,} photographs" if counts.get("train") else "Trained on photographs"
    return (f"{trained} of {_plain(' and '.join(_names(cfg, scores)))}; scored on {scores['images']:,} others of it "
            f"({_plain(Path(scores['split']).name)} split).")  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""


def _list(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)

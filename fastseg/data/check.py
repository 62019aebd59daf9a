"""What is wrong with a dataset, before it costs an epoch: all of it (`check`), or what headers tell (`quick_check`)."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastseg.config import load_config
from fastseg.data.checking.census import census, percent
from fastseg.data.checking.examine import Look, examine, foreground
from fastseg.data.checking.findings import ERROR, LEAKS, WARNING, Finding, sort_findings, tally
from fastseg.data.checking.lists import (
    Splits,
    classes_findings,
    files_not_read,
    list_findings,
    split_names,
)
from fastseg.data.checking.strange import strangest
from fastseg.data.checking.table import text_table
from fastseg.data.checking.twins import twin_findings
from fastseg.data.files import Files, JoinedFiles, dataset_files
from fastseg.data.framing import MaskFraming
from fastseg.data.machine import map_in_processes
from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.settings import Settings

# A class's share may differ this much between the splits before it is worth a word, if it has at least that share, and
# the splits are large enough to say so.
DRIFT, DRIFT_SHARE, DRIFT_PHOTOGRAPHS = 2.0, 0.005, 20


@dataclass
class Report:
    """What `check` found: findings, errors first, and statistics ready for JSON."""

    root: str
    size: tuple[int, int]
    tree: Hierarchy
    splits: dict[str, list[str]]
    findings: list[Finding]
    statistics: dict[str, Any]
    looks: dict[str, Look]

    @property
    def errors(self) -> list[Finding]:
        """What would stop or falsify a training."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """What is worth a look."""
        return [finding for finding in self.findings if finding.severity == WARNING]

    @property
    def tally(self) -> str:
        """'2 errors, 3 warnings'."""
        return tally(self.findings)

    def table(self) -> str:
        """Findings, then statistics, as plain text whose last line counts errors and warnings."""
        return text_table(self.root, self.findings, self.statistics)

    def as_json(self) -> dict[str, Any]:
        """Everything, in plain numbers and text."""
        return {
            "root": self.root, "size": list(self.size), "errors": len(self.errors), "warnings": len(self.warnings),
            "findings": [asdict(finding) for finding in self.findings], "statistics": self.statistics,
        }  # fmt: skip

    def write_report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with pictures; returns its path."""
        from fastseg.data.checking.page import write_page

        return write_page(self, Path(path).expanduser())


def check(
    cfg: Settings | str | Path, progress: Callable[[int, int], object] | None = None, workers: int | None = None
) -> Report:
    """Read every photograph and mask of a configuration's dataset, and say what is wrong and what it holds.

    A folder stands for the preset `sample` with that folder as its data.
    `progress(done, total)` is called after each id; `workers` is how many processes read (None: one a core).
    Raises `InputError` only where there is no dataset to read: no folder, or no id list.
    """
    if not isinstance(cfg, Settings):
        sample = load_config()
        cfg = sample.model_copy(update={"data": sample.data.model_copy(update={"root": str(cfg)})})
    tree, files = cfg.classes(), dataset_files(cfg)
    splits = {"train": files.ids(cfg.data.train_ids, cfg.data.limit),
              "valid": files.ids(cfg.data.valid_ids, cfg.data.limit_valid)}  # fmt: skip
    for part in files.parts.values():
        for folder, key in ((part.images, "images"), (part.masks, "masks")):
            if not (part.root / folder).is_dir():
                raise InputError(f"no folder {part.root / folder}; mend data.root or data.{key}")
    names = list(dict.fromkeys([*splits["train"], *splits["valid"]]))
    # As whole photographs are framed to be scored: where training sees crops, padded.
    framing = MaskFraming(cfg.data.size, pad=cfg.data.resize != "squish")
    job = partial(examine, files=files, leaves=len(tree), framing=framing)
    looks = {}
    for look in map_in_processes(job, names, workers):
        looks[look.name] = look
        if progress:
            progress(len(looks), len(names))
    where = split_names(splits)
    numbers = census(tree, looks, splits)
    findings = [
        *list_findings(files, splits, cfg),
        *_each(looks, where, tree, framing),
        *twin_findings(looks, splits, where),
        *files_not_read(files, cfg),
        *(_classes(numbers, tree, splits) if any(look.counts is not None for look in looks.values()) else ()),
    ]
    if cfg.data.allow_leak:
        findings = [_allowed(finding) for finding in findings]
    numbers["strangest"] = strangest(tree, looks)
    root = ", ".join(str(part.root) for part in files.parts.values())
    return Report(root, cfg.data.size, tree, splits, sort_findings(findings), numbers, looks)


def quick_check(cfg: Settings, files: Files | JoinedFiles, train: Sequence[str], valid: Sequence[str]) -> list[str]:
    """What headers, names and byte-identical photographs tell of the ids of two lists; about 0.2 ms an id.

    Raises `InputError` with the first error and the number of others; a leak is one too, unless `data.allow_leak`.
    Returns the ids of `valid` that leak from `train`, where that is allowed.
    """
    files.check([*train, *valid])
    named = list(classes_findings(files, cfg.classes()))
    errors = [finding.message for finding in named if finding.severity == ERROR]
    for finding in named:
        if finding.severity == WARNING:
            print(f"warning: {finding.message}", file=sys.stderr)
    same = set(train) & set(valid)
    copies = _equal_files(files, train, [name for name in valid if name not in same])
    leaks = [name for name in dict.fromkeys(valid) if name in same or name in copies]
    if leaks and not cfg.data.allow_leak:
        what = f"is a copy of {copies[leaks[0]]}, which is" if leaks[0] in copies else "is"
        errors.append(
            f"{leaks[0]}: validated on, and {what} trained on, too: take it out of one id list, or set "
            f"data.allow_leak: true{f' ({len(leaks) - 1} more ids leak)' if len(leaks) > 1 else ''}"
        )
    if errors:
        raise InputError(errors[0] + (f" ({len(errors) - 1} more faults)" if len(errors) > 1 else ""))
    return leaks


def _each(
    looks: Mapping[str, Look], where: Mapping[str, str], tree: Hierarchy, framing: MaskFraming
) -> Iterator[Finding]:
    """Faults of each file, masks without anybody, and people too small for the network."""
    size = f"{framing.size[0]}x{framing.size[1]}"
    for name, look in looks.items():
        here = {"split": where[name]}
        for kind, path, message in look.faults:
            yield Finding(kind, name, message, path=path, **here)
        if look.counts is None:
            continue
        people, path = foreground(look.counts, tree.background), str(look.mask)
        if not people:
            what = "no pixel has a class" if not look.counts.sum() else f"all of it is {tree.leaves[tree.background]}"
            yield Finding("empty mask", name, f"{name}: {what}", path=path, **here)
        elif not foreground(look.framed, tree.background):
            yield Finding("vanishes when resized", name, f"{name}: {people:,} pixel{'s' * (people > 1)} of people at "
                          f"{look.shape[0]}x{look.shape[1]}, none at {size}", path=path, **here)  # fmt: skip


def _classes(numbers: Mapping[str, Any], tree: Hierarchy, splits: Splits) -> Iterator[Finding]:
    """Leaves that nothing can be learned of, or that one split has far more of than the other."""
    if not any(row["photographs"]["train"] for row in numbers["levels"][-1] if row["name"] != _background(tree)):
        if splits["train"]:
            yield Finding("class never in training", "all", "none of the masks to train on has a pixel of any class "
                          "but background: nothing can be learned", severity=ERROR)  # fmt: skip
        return
    enough = all(len(names) >= DRIFT_PHOTOGRAPHS for names in splits.values())
    for row in numbers["levels"][-1]:
        if not row["photographs"]["train"]:
            yield Finding("class never in training", row["name"], f"{row['name']}: in none of the masks to train on, "
                          f"in {row['photographs']['valid']} to validate on")  # fmt: skip
            continue
        train, valid = (row["share_by_split"][split] or 0.0 for split in ("train", "valid"))
        more, less = max(train, valid), min(train, valid)
        if enough and more >= DRIFT_SHARE and more > DRIFT * less:
            yield Finding("class share drifts", row["name"], f"{row['name']}: {percent(train)} of the pixels to train "
                          f"on, {percent(valid)} of those to validate on")  # fmt: skip


def _background(tree: Hierarchy) -> str | None:
    return None if tree.background is None else tree.leaves[tree.background]


def _equal_files(files: Files | JoinedFiles, train: Iterable[str], valid: Iterable[str]) -> dict[str, str]:
    """Id of `valid` → id of `train` whose photograph is the same file byte by byte; only equal sizes are read."""
    by_size: dict[int, list[str]] = {}
    for name in dict.fromkeys(train):
        by_size.setdefault(files.image(name).stat().st_size, []).append(name)
    digests: dict[str, bytes] = {}

    def digest(name: str) -> bytes:
        if name not in digests:
            digests[name] = hashlib.blake2b(files.image(name).read_bytes()).digest()
        return digests[name]

    copies = {}
    for name in valid:
        for other in by_size.get(files.image(name).stat().st_size, ()):
            if digest(name) == digest(other):
                copies[name] = other
                break
    return copies


def _allowed(finding: Finding) -> Finding:
    if finding.kind not in LEAKS:
        return finding
    return Finding(**{**asdict(finding), "severity": WARNING})

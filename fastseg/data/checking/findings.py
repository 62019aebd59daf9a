"""What can be wrong with a dataset: the kinds of findings, how bad each is, and why it matters."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

# Kind → severity and meaning, in the order in which they are shown. Errors stop a training or falsify its scores.
KINDS: dict[str, tuple[str, str]] = {
    "empty id list": (ERROR, "nothing to read"),
    "classes.txt differs": (ERROR, "the masks were made for other classes than the hierarchy's"),
    "id without photograph": (ERROR, "training stops there"),
    "id without mask": (ERROR, "training stops there"),
    "unreadable photograph": (ERROR, "the file is empty, or no picture"),
    "truncated photograph": (ERROR, "the file begins well and breaks off"),
    "unreadable mask": (ERROR, "the file is empty, or no picture or array"),
    "truncated mask": (ERROR, "the file begins well and breaks off"),
    "shapes differ": (ERROR, "photograph and mask do not lie over each other"),
    "id outside the tree": (ERROR, "a class that the hierarchy does not have"),
    "float mask": (ERROR, "class ids are whole numbers"),
    "RGB mask": (ERROR, "colours instead of class ids"),
    "pickled mask": (ERROR, "unpickling can run any program, so it is not done"),
    "not a mask": (ERROR, "not a two-dimensional array of class ids"),
    "same id in both splits": (ERROR, "a leak: the score is partly that of learning by heart"),
    "same pixels in both splits": (ERROR, "a leak: the score is partly that of learning by heart"),
    "near-duplicate in both splits": (WARNING, "perhaps a leak: look at the pairs"),
    "duplicate id": (WARNING, "it counts that many times"),
    "same pixels within a split": (WARNING, "one photograph under two ids"),
    "shapes differ by EXIF rotation": (WARNING, "software that treats EXIF otherwise will see another shape"),
    "empty mask": (WARNING, "no pixel of any class but background"),
    "vanishes when resized": (WARNING, "at the configured size nobody is left; a larger data.size keeps them"),
    "class never in training": (WARNING, "it cannot be learned"),
    "class share drifts": (WARNING, "train and valid differ more than twofold"),
    "two files for one id": (WARNING, "only the first of them is read"),
    "photograph without id": (WARNING, "in the folder, but in no id list"),
    "mask without id": (WARNING, "in the folder, but in no id list"),
}
LEAKS = ("same id in both splits", "same pixels in both splits")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a kind of `KINDS`, where, and in words; `other` is the id it is like."""

    kind: str
    name: str
    message: str
    severity: str = ""
    split: str = ""
    path: str = ""
    other: str = ""

    def __post_init__(self) -> None:
        if not self.severity:
            object.__setattr__(self, "severity", KINDS[self.kind][0])


def sort_findings(findings: list[Finding]) -> list[Finding]:
    """Errors first, then in the order of the kinds; within a kind as they came."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: (finding.severity != ERROR, order[finding.kind]))


def by_kind(findings: list[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """(severity, kind) → its findings, in their order."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    return groups


def tally(findings: list[Finding]) -> str:
    """'2 errors, 1 warning'."""
    counts = [(what, sum(finding.severity == what for finding in findings)) for what in (ERROR, WARNING)]
    return ", ".join(f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts)

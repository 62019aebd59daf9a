"""What a conversion did, as numbers and as a table."""

from dataclasses import dataclass, field

from fastseg.hierarchy import IGNORE_INDEX


@dataclass
class Summary:
    """What a conversion did; `table()` is its text."""

    protocol: str
    pixels: dict[str, int]  # leaf → pixels, over written and kept masks
    ignored: int = 0  # pixels of 255 in them
    written: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)  # ids without a pixel of the protocol's leaves
    damaged: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    unlisted: int = 0  # files left alone because train and valid ids were given and theirs are in neither
    train: int = 0
    valid: int = 0
    train_missing: list[str] = field(default_factory=list)  # asked for by `train_ids`, and not converted
    valid_missing: list[str] = field(default_factory=list)  # asked for by `valid_ids`, and not converted

    def table(self) -> str:
        """Give the counts, the damaged files with their reasons, and the pixels of each leaf, as plain text."""
        names = ", ".join(self.skipped[:5]) + (" …" if len(self.skipped) > 5 else "")
        rows = [
            ("written", self.written, ""),
            ("kept", self.kept, ""),
            ("skipped", len(self.skipped), names and f"no part of the protocol: {names}"),
            ("damaged", len(self.damaged), "".join(f"\n  {file}: {reason}" for file, reason in self.damaged)),
            *([("unlisted", self.unlisted, "in neither id list, left alone")] if self.unlisted else []),
            ("train", self.train, _missing(self.train_missing)),
            ("valid", self.valid, _missing(self.valid_missing)),
        ]
        width, total = max(map(len, self.pixels)), max(sum(self.pixels.values()) + self.ignored, 1)
        counts = [(i, leaf, self.pixels[leaf]) for i, leaf in enumerate(self.pixels)]
        counts += [(IGNORE_INDEX, "-", self.ignored)] if self.ignored else []
        return "\n".join(
            [
                f"protocol {self.protocol}",
                *(f"{name:<9}{count:>8,}  {note}".rstrip() for name, count, note in rows),
                f" id {'leaf':<{width}} {'pixels':>14}   share",
                *(f"{i:>3} {leaf:<{width}} {count:>14,} {count / total:>7.2%}" for i, leaf, count in counts),
            ]
        )


def _missing(ids: list[str]) -> str:
    return f"and {len(ids)} ids asked for, but not converted" if ids else ""

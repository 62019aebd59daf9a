"""What the `loss:` list may hold: each loss's keys, their defaults, and what is impossible."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fastseg.errors import InputError
from fastseg.hierarchy import Hierarchy
from fastseg.values import Section


def _parse_levels(value: Any) -> Any:
    """[0, 2] → {0: 1.0, 2: 1.0}; a mapping of level to weight stays; none is none."""
    chosen = dict.fromkeys(value, 1.0) if isinstance(value, list) else value
    if chosen is None or chosen == {}:
        return None
    try:
        levels = {int(str(level)): float(weight) for level, weight in chosen.items()}
    except (AttributeError, TypeError, ValueError):
        levels = {}
    if not levels or min(levels.values()) < 0 or not 0 < sum(levels.values()) < math.inf:
        raise ValueError(f"{value!r} is neither a list of levels nor level: weight, not negative and not all 0, as "
                         "[0, 2] or {0: 0.5, 2: 1}")  # fmt: skip
    return levels


def _parse_class_weights(value: Any) -> Any:
    if value is None or value in ("inverse", "effective"):
        return value
    try:
        numbers = [float(v) for v in value] if isinstance(value, (list, tuple)) else []
    except (TypeError, ValueError):
        numbers = []
    if not numbers or min(numbers) < 0 or not 0 < sum(numbers) < math.inf:
        raise ValueError(f"{value!r} is neither a list of numbers from 0 up, one a leaf, nor inverse, nor effective")
    return numbers


Levels = Annotated[dict[int, float] | None, BeforeValidator(_parse_levels)]
ClassWeights = Annotated[list[float] | Literal["inverse", "effective"] | None, BeforeValidator(_parse_class_weights)]
BALANCE = "one number a leaf, by id; inverse, effective: from the training masks' counts, mean 1"
BETA = "of effective (Cui et al. 2019), near 1 for counts of pixels; none: 1 - 1 / (mean count of a class)"


class LossBase(Section):
    name: str
    weight: float = Field(1.0, ge=0, description="factor in the sum of losses")

    @property
    def counted(self) -> bool:
        """Whether the training masks' pixels must be counted for it."""
        return False


class CrossEntropySettings(LossBase):
    name: Literal["cross_entropy"] = "cross_entropy"
    class_weights: ClassWeights = Field(None, description=BALANCE)
    class_beta: float | None = Field(None, ge=0, lt=1, description=BETA)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all leaves")

    @property
    def counted(self) -> bool:
        """Whether the training masks' pixels must be counted for it."""
        return isinstance(self.class_weights, str)


class FocalSettings(LossBase):
    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, description="how far pixels already right are turned away from; 0: cross_entropy")
    alpha: ClassWeights = Field(None, description=BALANCE)
    class_beta: float | None = Field(None, ge=0, lt=1, description=BETA)

    @property
    def counted(self) -> bool:
        """Whether the training masks' pixels must be counted for it."""
        return isinstance(self.alpha, str)


class OverlapSettings(LossBase):
    levels: Levels = Field(None, description="level: weight; none: the leaves alone")
    per_image: bool = Field(False, description="over each photograph (true) or over the batch (false)")
    background: bool = Field(False, description="whether background counts as a class")
    classes: Literal["present", "all"] = Field("present", description="classes that count: those in the masks, or all")


class IoUSettings(OverlapSettings):
    name: Literal["iou"] = "iou"
    smooth: float = Field(1e-3, gt=0, description="pixels added to intersection and union")


class DiceSettings(OverlapSettings):
    name: Literal["dice"] = "dice"
    smooth: float = Field(1e-3, gt=0, description="pixels added to numerator and denominator")


class TverskySettings(OverlapSettings):
    name: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0, description="weight of false pixels")
    beta: float = Field(0.7, ge=0, description="weight of missed pixels")
    smooth: float = Field(1e-3, gt=0, description="pixels added to numerator and denominator")


class LovaszSettings(OverlapSettings):
    name: Literal["lovasz"] = "lovasz"


class LevelCESettings(LossBase):
    name: Literal["level_ce"] = "level_ce"
    levels: Levels = Field(None, description="level: weight; none: all alike")


class TreeMinSettings(LossBase):
    name: Literal["tree_min"] = "tree_min"
    levels: Levels = Field(None, description="level: factor; none: 1 each, added up")
    gamma: float = Field(2.0, ge=0, description="how far nodes already right are turned away from; 0: not at all")


LossSettings = Annotated[
    CrossEntropySettings | FocalSettings | IoUSettings | DiceSettings | TverskySettings | LovaszSettings
    | LevelCESettings | TreeMinSettings,
    Field(discriminator="name"),
]  # fmt: skip
LOSSES: dict[str, type[LossBase]] = {
    "cross_entropy": CrossEntropySettings, "focal": FocalSettings, "iou": IoUSettings, "dice": DiceSettings,
    "tversky": TverskySettings, "lovasz": LovaszSettings, "level_ce": LevelCESettings, "tree_min": TreeMinSettings,
}  # fmt: skip


def as_losses(value: Any) -> list[Any]:
    """'iou', ['iou', …] or [{name: iou, …}, …] → a list of mappings; what else there is stays, to be refused."""
    items = value if isinstance(value, list) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in items]


def check_loss(loss: LossBase, tree: Hierarchy, key: str) -> None:
    """Raise `InputError` where a loss does not fit the class tree, or its keys each other."""
    for level in getattr(loss, "levels", None) or ():
        if not 0 <= level < tree.depth:
            raise InputError(f"{key}.levels: {level}; the tree has levels 0 to {tree.depth - 1}")
    name = "alpha" if isinstance(loss, FocalSettings) else "class_weights"
    weights = getattr(loss, name, None)
    if isinstance(weights, list) and len(weights) != len(tree):
        raise InputError(f"{key}.{name}: {len(weights)} numbers for {len(tree)} leaves")
    if getattr(loss, "class_beta", None) is not None and weights != "effective":
        raise InputError(f"{key}.class_beta: only {name}: effective has a beta; set that, or leave it out")

"""The `search:` section: which settings are tried, in which stages, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fastseg.values import Section

# What marks a mapping as the description of one setting rather than as a part of the way to some.
RANGE, CONDITION, CENTRE = "low", "when", "times"
RANGE_KEYS = {RANGE, "high", "log", "step", CENTRE}
# Choices that every network takes at every size; a range for the rate is a factor on what lr_find says.
SPACE: dict[str, Any] = {
    "model.arch": ["FPN", "Unet", "DeepLabV3Plus"],
    "loss": [["cross_entropy"], ["cross_entropy", "iou"], ["focal", "dice"]],
    "train.optimizer": ["adam", "sgd"],
    "train.lr": {"low": 0.1, "high": 10.0, "log": True, "times": "lr_find"},
    "train.weight_decay": {"low": 1e-4, "high": 0.3, "log": True},
    "train.batch_size": [4, 8, 16],
    "augment.preset": ["none", "flip", "light"],
}


def _parse_space(value: Any) -> Any:
    """Nested or dotted keys → dotted ones, the later of two equal ones kept; null takes a key out."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, spec in _leaves(value, ""):
        if spec is None:
            flat.pop(key, None)
        else:
            flat[key] = spec
    return {key: _checked(key, key, spec) for key, spec in flat.items()}


def _leaves(values: Mapping[str, Any], way: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and not {RANGE, CONDITION} & set(value):
            yield from _leaves(value, f"{way}{key}.")
        else:
            yield f"{way}{key}", value


def _checked(key: str, place: str, spec: Any) -> Any:
    """The description of a setting, or of its part for one value of another, if it is one."""
    if isinstance(spec, list):
        if not spec or any(one in spec[:i] for i, one in enumerate(spec)):
            raise ValueError(f"{place}: {spec!r} is no list of choices that differ")
        return spec
    if isinstance(spec, Mapping) and RANGE in spec:
        return _checked_range(key, place, spec)
    if isinstance(spec, Mapping) and CONDITION in spec and place == key:
        if len(spec) < 2:
            raise ValueError(f"{place}: name values of {spec[CONDITION]!r}, each with its choices or range")
        return {value: own if value == CONDITION else _checked(key, f"{place} for {value}", own)
                for value, own in spec.items()}  # fmt: skip
    raise ValueError(f"{place}: {spec!r} is neither a list of choices, nor a range as {{low: 1, high: 8}}, nor "
                     "{when: KEY, VALUE: …}")  # fmt: skip


def _checked_range(key: str, place: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(spec) - RANGE_KEYS:
        raise ValueError(f"{place}: unknown key {min(unknown)!r}; a range has {', '.join(sorted(RANGE_KEYS))}")
    spec = {name: _number(value) if name in (RANGE, "high", "step") else value for name, value in spec.items()}
    low, high, step = spec[RANGE], spec.get("high"), spec.get("step")
    if not all(type(number) in (int, float) for number in (low, high, step or 1)) or low >= high or (step or 1) <= 0:
        raise ValueError(f"{place}: a range has two numbers, low under high; a step is above 0")
    if spec.get("log") and (low <= 0 or step is not None):
        raise ValueError(f"{place}: log needs a low above 0, and no step")
    if spec.get(CENTRE, "lr_find") != "lr_find" or (CENTRE in spec and key != "train.lr"):
        raise ValueError(f"{place}: times is for train.lr alone, and lr_find all it can be")
    return spec


def _number(value: Any) -> Any:
    """YAML 1.1 reads 3e-4 as text; the number it means."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class BudgetSettings(Section):
    """Where the search ends."""

    trials: int | None = Field(
        40, ge=1, description="trials of all stages together, a grid's too; null: as many as the hours allow"
    )
    hours: float | None = Field(
        None, gt=0, description="hours of training, of all workers together; no trial begins after them"
    )


class StageSettings(Section):
    """A part of the search: some keys of the space, tried on the best of the stage before."""

    name: str = Field(pattern=r"^[\w.-]+$", description="names the stage in leaderboard.csv, and its study")
    keys: list[str] = Field(
        ["*"], min_length=1, description="keys of the space, or their beginnings: model, loss; *: all not named before"
    )
    sampler: Literal["grid", "tpe"] = Field(
        "tpe", description="grid: each combination once; tpe: what did well before (tree-structured Parzen estimator)"
    )
    pruner: Literal["halving", "hyperband", "median", "none"] = Field(
        "median", description="ends hopeless trials after an epoch: successive halving, hyperband, under the median"
    )
    best: int = Field(2, ge=1, description="how many trials of the stage before are gone on with, as a choice of tpe")
    trials: int | None = Field(None, ge=1, description="of tpe; null: what is left of budget.trials")
    epochs: int | None = Field(None, ge=1, description="of each trial; null: search.epochs")
    limit: int | None = Field(None, ge=1, description="training photographs; null: search.limit")


def _stages(value: Any) -> Any:
    return [value] if isinstance(value, Mapping) else value


class SearchSettings(Section):
    """What `fastseg search` tries, and how long."""

    space: Annotated[dict[str, Any], BeforeValidator(_parse_space)] = Field(
        SPACE, description="any dotted key: a list of choices; {low, high, log, step}, for train.lr with times: "
        "lr_find as factors on what that says; {when: KEY, VALUE: choices or range, …}")  # fmt: skip
    budget: BudgetSettings = Field(BudgetSettings(), description="where it ends")
    limit: int | None = Field(400, ge=1, description="training photographs of a trial; null: data.limit")
    epochs: int = Field(3, ge=1, description="epochs of a trial, with all layers training")
    metric: str | None = Field(
        None, description="what is best: a mean IoU of history.csv, miou0 and so on (null: the deepest)"
    )
    stages: Annotated[list[StageSettings], BeforeValidator(_stages)] = Field(
        [StageSettings(name="networks", keys=["model", "loss"], sampler="grid", pruner="halving"),
         StageSettings(name="settings")],
        min_length=1, description="one after another: a grid of networks and losses, then settings for the best"
    )  # fmt: skip
    storage: str | None = Field(
        None, description="where studies are kept: any URL Optuna takes, or a .journal file (null: SQLite in the "
        "search's folder); workers on several machines share it")  # fmt: skip
    heartbeat: int = Field(10, ge=1, description="seconds between signs of life; after three, a trial is begun anew")
    memory: float | None = Field(
        None, gt=0, description="GiB a trial may take for itself before it is failed (Linux; null: what there is)"
    )

    @field_validator("stages")
    @classmethod
    def _names_that_differ(cls, stages: list[StageSettings]) -> list[StageSettings]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"{', '.join(names)}: give each stage a name of its own")
        return stages

    @model_validator(mode="after")
    def _fits_together(self) -> SearchSettings:
        for key, spec in self.space.items():
            if CONDITION in spec and (spec[CONDITION] == key or spec[CONDITION] not in self.space):
                raise ValueError(f"space: {key} is asked when {spec[CONDITION]!r} is set, which is no other key of it")
        named = {key for i in range(len(self.stages)) for key in self.stage_keys(i)}
        if left := [key for key in self.space if key not in named]:
            raise ValueError(f"stages: none of them tries {left[0]}; name it in the keys of one, or use \"*\"")
        for i, stage in enumerate(self.stages):
            keys = self.stage_keys(i)
            if not keys:
                raise ValueError(f"stages.{i}.keys: no key of the space is left for {stage.name}")
            if stage.sampler == "tpe" and stage.trials is None and self.budget == BudgetSettings(trials=None):
                raise ValueError("budget: neither trials nor hours, so tpe would never end; set one")
            if stage.sampler == "grid" and i > 0:
                raise ValueError(f"stages.{i}.sampler: only the first stage can be a grid; use tpe")
            if stage.sampler == "grid":
                self._check_grid(i, keys)
        return self

    def _check_grid(self, i: int, keys: list[str]) -> None:
        for key in keys:
            spec = self.space[key]
            parts = [own for value, own in spec.items() if value != CONDITION] if CONDITION in spec else [spec]
            if any(isinstance(part, Mapping) for part in parts):
                raise ValueError(f"stages.{i}: a grid needs lists of choices, and {key} has a range; use sampler: tpe")
            if CONDITION in spec and spec[CONDITION] not in keys:
                raise ValueError(f"stages.{i}: {key} depends on {spec[CONDITION]}, which is not in this stage")

    def stage_keys(self, i: int) -> list[str]:
        """The keys of the space that a stage tries, in the space's order."""
        taken = {key for before in range(i) for key in self.stage_keys(before)}
        own = self.stages[i].keys
        return [key for key in self.space if key not in taken
                and any(start == "*" or key == start or key.startswith(f"{start}.") for start in own)]  # fmt: skip

"""The space of a search: what Optuna is asked to choose, and the configuration that a choice makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastseg.config import load_config, one_line
from fastseg.errors import InputError
from fastseg.search_settings import CENTRE, CONDITION, SearchSettings
from fastseg.settings import Settings

DIGITS = 3  # of numbers from a range, so that best.yaml can be read
RATE = "train.lr"
Picks = dict[str, Any]  # dotted key → value, as a configuration takes it


@dataclass(frozen=True)
class Parameter:
    """One question to Optuna: its name there, the key it sets, its choices (label → value) or its range."""

    name: str
    key: str
    choices: Mapping[str | int | float | bool | None, Any] | None = None
    span: Mapping[str, Any] | None = None
    when: tuple[str, str] | None = None

    def asked(self, picks: Picks) -> bool:
        """Whether it arises after what was picked."""
        return self.when is None or (self.when[0] in picks and str(label(picks[self.when[0]])) == self.when[1])

    def suggest(self, trial: Any) -> Any:
        """The value that a trial of Optuna gives it."""
        if self.choices is not None:
            return self.choices[trial.suggest_categorical(self.name, list(self.choices))]
        low, high, step, log = (self.span.get(key) for key in ("low", "high", "step", "log"))
        if all(type(number) is int for number in (low, high)):
            return trial.suggest_int(self.name, low, high, step=step or 1, log=bool(log))
        value = trial.suggest_float(self.name, float(low), float(high), step=step, log=bool(log))
        return float(f"{value:.{DIGITS}g}")


def label(value: Any) -> str | int | float | bool | None:
    """A value in a word: numbers and text are themselves, a list of names is joined by +, the rest is YAML."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        return " + ".join(value)
    return one_line(value)


def parameters(space: Mapping[str, Any], keys: Sequence[str]) -> list[Parameter]:
    """The parameters of some keys; one that depends on another stands behind it."""
    made: list[Parameter] = []
    waiting = list(keys)
    while waiting:
        for key in waiting:
            spec = space[key]
            if not (isinstance(spec, Mapping) and spec.get(CONDITION) in waiting):
                break
        else:
            raise InputError(f"search.space: {', '.join(waiting)} depend on each other in a circle")
        waiting.remove(key)
        if isinstance(spec, Mapping) and CONDITION in spec:
            own = ((str(value), part) for value, part in spec.items() if value != CONDITION)
            made += [_parameter(f"{key} ({value})", key, part, (spec[CONDITION], value)) for value, part in own]
        else:
            made.append(_parameter(f"{key} / lr_find" if centred(spec) else key, key, spec, None))
    return made


def _parameter(name: str, key: str, spec: Any, when: tuple[str, str] | None) -> Parameter:
    if isinstance(spec, list):
        return Parameter(name, key, {label(value): value for value in spec}, None, when)
    return Parameter(name, key, None, spec, when)


def centred(spec: Any) -> bool:
    """Whether a range is one of factors on what `lr_find` says."""
    return isinstance(spec, Mapping) and CENTRE in spec


def suggest(trial: Any, wanted: Sequence[Parameter], picks: Picks | None = None) -> Picks:
    """What a trial of Optuna picks, on top of what was picked before."""
    picks = dict(picks or {})
    for parameter in wanted:
        if parameter.asked(picks):
            picks[parameter.key] = parameter.suggest(trial)
    return picks


def grid(wanted: Sequence[Parameter], picks: Picks | None = None) -> Iterator[tuple[dict[str, Any], Picks]]:
    """(Optuna's parameters, picks) of each combination of choices."""
    picks = picks or {}
    if not wanted:
        yield {}, picks
        return
    first, *rest = wanted
    if not first.asked(picks):
        yield from grid(rest, picks)
        return
    for name, value in first.choices.items():
        for params, whole in grid(rest, {**picks, first.key: value}):
            yield {first.name: name, **params}, whole


def describe(picks: Picks) -> str:
    """Picks in a line: `FPN, cross_entropy + iou, train.lr 0.003`; networks and losses need no key."""
    words = []
    for key, value in picks.items():
        plain = key in ("model.arch", "model.encoder", "loss", "train.optimizer")
        words.append(f"{label(value)}" if plain else f"{key.rpartition('.')[2]} {label(value)}")
    return ", ".join(words)


def apply(cfg: Settings, picks: Picks) -> Settings:
    """A configuration with the picks in it. Raises `InputError` where they do not go together."""
    return load_config(cfg.model_dump(mode="json"), *(f"{key}={one_line(value)}" for key, value in picks.items()))


def with_rate(cfg: Settings, rate: float) -> Settings:
    """A configuration with another peak learning rate; the encoder's keeps its share of it."""
    old = cfg.train.lr
    shares = [part / max(old) for part in old] if isinstance(old, tuple) else [1.0]
    rates = [float(f"{rate * share:.{DIGITS}g}") for share in shares]
    return apply(cfg, {RATE: rates if len(rates) > 1 else rates[0]})


def trial_settings(cfg: Settings, stage: int, metric: str) -> Settings:
    """The configuration that the trials of a stage begin with: few photographs and epochs, frames from the cache."""
    own, part = cfg.search, cfg.search.stages[stage]
    limits = [n for n in (part.limit or own.limit, cfg.data.limit) if n]
    data = cfg.data.model_copy(update={"limit": min(limits, default=None), "cache": cfg.data.cache or True})
    train = cfg.train.model_copy(update={
        "epochs": part.epochs or own.epochs, "frozen_epochs": 0, "patience": None, "monitor": metric})  # fmt: skip
    return cfg.model_copy(update={"data": data, "train": train, "live": [], "search": SearchSettings()})


def metric_of(cfg: Settings) -> str:
    """The score that the search is after. Raises `InputError` for one that the tree does not have."""
    known = [f"miou{level}" for level in range(cfg.classes().depth)]
    if cfg.search.metric not in (None, *known):
        raise InputError(f"search.metric: {cfg.search.metric!r} is not one of {', '.join(known)}")
    return cfg.search.metric or known[-1]


def check_space(cfg: Settings) -> None:
    """Raise `InputError` for a choice, an end of a range, or a combination of a grid that no run can take."""
    space, own = cfg.search.space, cfg.search
    for i, stage in enumerate(own.stages):
        wanted = parameters(space, own.stage_keys(i))
        tried: Iterator[Picks]
        if stage.sampler == "grid":
            tried = (picks for _, picks in grid(wanted))
        else:
            tried = (picks for parameter in wanted for picks in _ends(parameter, space))
        for picks in tried:
            try:
                apply(cfg, picks)
            except InputError as error:
                raise InputError(f"search.space: {describe(picks)}: {error}") from None


def _ends(parameter: Parameter, space: Mapping[str, Any]) -> Iterator[Picks]:
    before: Picks = {}
    if parameter.when:
        key, wanted = parameter.when
        values = [value for value in space[key] if str(label(value)) == wanted] if isinstance(space[key], list) else []
        if not values and isinstance(space[key], list):
            raise InputError(f"search.space.{parameter.key}: {wanted!r} is no choice of {key}")
        before = {key: values[0]} if values else {}
    if parameter.choices is not None:
        ends = list(parameter.choices.values())
    else:
        ends = [parameter.span["low"], parameter.span["high"]]
    yield from ({**before, parameter.key: value} for value in ends)

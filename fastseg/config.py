"""YAML files, presets and dotted overrides → `Settings`, and `Settings` → YAML."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fastseg.errors import InputError
from fastseg.loss_settings import LOSSES, LossBase, as_losses
from fastseg.settings import Settings

# These hold names that are the user's own, so a later one replaces an earlier one whole.
REPLACED = ("hierarchy", "mirror", "loss", "search.space")


class UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which would silently let the last of two equal keys win; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ."""
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(f.name[:-5] for f in resources.files("fastseg.configs").iterdir() if f.name.endswith(".yaml"))


def load_config(source: str | Path | Mapping[str, Any] | None = None, *overrides: str) -> Settings:
    """Settings from a preset's name, a YAML file or a mapping, and `"dotted.key=value"` overrides.

    Without a source: the preset `sample`. Overrides go over the file, the file over the preset that its key `preset`
    names, the preset over the defaults. Raises `InputError` naming the key, what is wrong and what would do.
    """
    if isinstance(source, str) and "=" in source and not Path(source).is_file():
        source, overrides = None, (source, *overrides)
    values = _read("sample" if source is None else source)
    base = copy.deepcopy(values)
    for override in overrides:
        key, sep, text = override.removeprefix("--").partition("=")
        if not sep:
            raise InputError(f"{override!r} is not KEY=VALUE; write for example data.root=Pascal-part")
        _set(values, key.strip(), _parse(key, text))
    values = _without_foreign_args(base, values)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error)) from None


def dump_config(cfg: Settings, comments: bool = False) -> str:
    """YAML text that `load_config` reads back to equal settings; with `comments`, each key's meaning beside it."""
    if not comments:
        return yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "".join(_commented(cfg, 0))


def _read(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        values, name = copy.deepcopy(dict(source)), "run"
    else:
        path = (
            resources.files("fastseg.configs") / f"{source}.yaml"
            if str(source) in presets()
            else Path(source).expanduser()
        )
        if not path.is_file():
            near = difflib.get_close_matches(str(source), presets(), 1)
            hint = f"did you mean {near[0]}?" if near else f"give a .yaml file or one of {', '.join(presets())}"
            raise InputError(f"config {str(source)!r}: no such file or preset; {hint}")
        name = Path(source).stem
        try:
            values = UniqueKeys(path.read_text(encoding="utf-8")).get_single_data()
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            said = " ".join(str(error).replace('in "<unicode string>", ', "").split()).partition(" ^")[0]
            raise InputError(f"config {source}: not YAML: {said}") from None
    if not isinstance(values, dict):
        raise InputError(f"config {source}: a mapping of keys is expected, as in `fastseg train --print-config`")
    # A section left empty in a file says nothing, as if it were not there.
    values = {key: value for key, value in values.items() if value is not None}
    base = _read(values.pop("preset")) if "preset" in values else {}
    return _without_foreign_args(base, _over({**base, "name": name.replace(" ", "_")}, values))


def _without_foreign_args(base: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments were chosen for an architecture; another one does not inherit them."""
    old, new = base.get("model"), values.get("model")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping) or old.get("arch") == new.get("arch"):
        return values
    inherited, args = old.get("args"), new.get("args")
    if not isinstance(inherited, Mapping) or not isinstance(args, Mapping):
        return values
    own = {key: value for key, value in args.items() if key not in inherited or inherited[key] != value}
    return {**values, "model": {**new, "args": own}}


def _over(base: dict[str, Any], top: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _over(merged[key], value, f"{path}{key}.") if both and path + key not in REPLACED else value
    return merged


def _parse(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        raise InputError(f"{key}={text}: the value is not YAML; put it in quotes") from None


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted place; whole numbers reach into lists, as in loss.0.weight."""
    *way, last = key.split(".")
    here: Any = values
    for i, part in enumerate(way):
        if isinstance(here, list):
            here = _item(here, part, key)
        else:
            # Reaching into what the file does not mention (the default list of losses, say) starts from the default.
            if here.get(part) is None:
                here[part] = _default(way[: i + 1])
            here = here[part]
        if way[: i + 1] == ["loss"]:
            # A loss may be given by its name alone, which has no parts to reach into.
            here = values["loss"] = as_losses(here)
        if not isinstance(here, (dict, list)):
            raise InputError(f"{key}: {'.'.join(way[: i + 1])} is {here!r}, which has no part {last!r}")
    if isinstance(here, list):
        here[here.index(_item(here, last, key))] = value
    else:
        here[last] = value


def _item(items: list[Any], part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise InputError(f"{key}: {part!r} is no place in a list of {len(items)}")
    return items[int(part)]


def _default(way: list[str]) -> Any:
    here: Any = Settings().model_dump(mode="json") if way[0] in ("loss", "search") else {}
    for part in way:
        here = here.get(part, {}) if isinstance(here, dict) else {}
    return here if isinstance(here, (dict, list)) else {}


def _explain(error: ValidationError) -> str:
    """One line for each of the first two faults: the key, what is wrong, the value that was given."""
    lines = []
    for fault in error.errors()[:2]:
        loc = [part for part in fault["loc"] if part not in LOSSES]
        key = ".".join(str(part) for part in loc)
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_nearest(fault['loc'])}")
        elif fault["type"] == "value_error":
            prefix = f"{key}: " if key not in ("", "hierarchy") else ""
            lines.append(f"{prefix}{fault['ctx']['error']}")
        elif fault["type"].startswith("union_tag"):
            given = fault["input"].get("name") if isinstance(fault["input"], dict) else fault["input"]
            near = difflib.get_close_matches(str(given).lower(), LOSSES, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(LOSSES)}"
            lines.append(f"{key}.name: unknown loss {given!r}; {hint}")
        elif fault["type"] == "literal_error" and isinstance(fault["input"], str):
            options = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            near = difflib.get_close_matches(fault["input"].lower(), [o.lower() for o in options], 1, 0.5)
            hint = next((o for o in options if len(options) > 1 and near and o.lower() == near[0]), None)
            lines.append(
                f"{key}: {fault['input']!r} is not one of {', '.join(options)}"
                + (f"; did you mean {hint}?" if hint else "")
            )
        elif fault["type"] in ("model_type", "dict_type"):
            lines.append(f"{key}: {fault['input']!r} stands where keys are expected, as in {key}.KEY=VALUE")
        else:
            lines.append(f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}")
    return "\n".join(dict.fromkeys(lines))


def _nearest(loc: tuple[int | str, ...]) -> str:
    """'; did you mean …?' with the known key nearest to an unknown one, under the same parent or anywhere."""
    parent: Any = Settings
    for part in loc[:-1]:
        if part in LOSSES:
            parent = LOSSES[part]
        elif isinstance(part, str) and part in getattr(parent, "model_fields", {}):
            parent = parent.model_fields[part].annotation
    fields = list(getattr(parent, "model_fields", {}))
    inside = [f"{name}.{loc[-1]}" for name, f in Settings.model_fields.items() if _has(f.annotation, str(loc[-1]))]
    if inside:
        return f"; did you mean {inside[0]}?"
    near = difflib.get_close_matches(str(loc[-1]), fields, 1, 0.5)
    if near:
        return f"; did you mean {'.'.join([*map(str, [p for p in loc[:-1] if p not in LOSSES]), near[0]])}?"
    return f"; known here: {', '.join(fields)}"


def _has(annotation: Any, key: str) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and key in annotation.model_fields


def _commented(node: BaseModel, indent: int) -> list[str]:
    lines, pad = [], " " * indent
    for key, field in type(node).model_fields.items():
        value = getattr(node, key)
        note = f"  # {field.description}" if field.description else ""
        if isinstance(value, BaseModel):
            lines += [f"{pad}{key}:{note}\n", *_commented(value, indent + 2)]
            continue
        if key == "loss":
            lines += [f"{pad}{key}:{note}\n", *_commented_losses(value, indent + 2)]
            continue
        plain = node.model_dump(mode="json")[key]
        if isinstance(plain, (dict, list)) and plain and any(isinstance(v, (dict, list)) for v in _values(plain)):
            block = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
            lines += [f"{pad}{key}:{note}\n", *(f"{pad}  {line}\n" for line in block.splitlines())]
        else:
            lines.append(f"{pad}{key}: {one_line(plain)}{note}\n")
    return lines


def one_line(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def _commented_losses(losses: list[LossBase], indent: int) -> list[str]:
    """The list's losses with their keys' meanings, and after them the keys of those it has not."""
    lines, pad = [], " " * indent
    for loss in losses:
        first, *keys = _commented(loss, indent + 2)
        lines += [f"{pad}- {first.strip()}\n", *keys]
    for kind in (kind for name, kind in LOSSES.items() if name not in [loss.name for loss in losses]):
        plain = kind().model_dump(mode="json")
        lines.append(f"{pad}# - {one_line(plain)}\n")
    return lines


def _values(plain: dict[str, Any] | list[Any]) -> list[Any]:
    return list(plain.values()) if isinstance(plain, dict) else plain

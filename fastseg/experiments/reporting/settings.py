"""What was run, as the settings that differ from their defaults, and all of them folded away."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from pydantic import BaseModel

from fastseg.config import dump_config, one_line
from fastseg.loss_settings import LOSSES
from fastseg.pages.charts import table
from fastseg.settings import Settings


def differences(cfg: BaseModel, path: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(dotted key, value, default, meaning) of every setting that is not the default; lists are settings as a whole."""
    default, plain = type(cfg)(), cfg.model_dump(mode="json")
    usual = default.model_dump(mode="json")
    for key, field in type(cfg).model_fields.items():
        value = getattr(cfg, key)
        if isinstance(value, BaseModel):
            yield from differences(value, f"{path}{key}.")
        elif plain[key] != usual[key]:
            yield f"{path}{key}", plain[key], usual[key], field.description or ""


def settings_section(cfg: Settings, repeats: str) -> str:
    """The section, with the words or the command that say how the run is repeated."""
    rows = [
        [f"<code>{escape(key)}</code>", _code(_short(key, value)), _code(_short(key, default)), escape(meaning)]
        for key, value, default, meaning in differences(cfg)
    ]
    listed = table(["setting", "this run", "default", "meaning"], rows, "settings", "settings that differ")
    return (
        "<section id='run'><h2>What was run</h2><p>Settings that differ from their defaults:</p>"
        f"{listed if rows else '<p>None.</p>'}"
        "<details><summary>all settings (config.yaml)</summary>"
        f"<pre tabindex='0'>{escape(dump_config(cfg, True))}</pre></details>"
        f"<h3>The command that repeats it</h3>{repeats}</section>"
    )


def _short(key: str, value: Any) -> Any:
    """A loss is told by its name and what of it is not as usual."""
    if key != "loss":
        return value
    usual = {entry["name"]: LOSSES[entry["name"]]().model_dump(mode="json") for entry in value}
    return [{k: v for k, v in entry.items() if k == "name" or v != usual[entry["name"]][k]} for entry in value]


def _code(value: Any) -> str:
    if value is None:
        return "<code>null</code>"
    return f"<code>{escape(one_line(value))}</code>"

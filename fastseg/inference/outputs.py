"""What is written of photographs, each file whole or not there, and the record of what need not be made again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from fastseg.hierarchy import Hierarchy
from fastseg.inference.found import Found
from fastseg.inference.predict import Prediction, Predictor, file_mark
from fastseg.overlays import cut_out, overlay_nodes, palette, with_legend
from fastseg.writing import whole, write_json, write_rows, write_text

KINDS = ("ids", "overlay", "cutout", "json")
RECORD, AREAS = "made.jsonl", "areas.csv"
KEYS = ("photograph", "name", "mark", "how", "shape", "pixels", "files")  # of a line of the record


@dataclass
class Outputs:
    """A folder of what was made of photographs.

    Its record, a line of JSON for each photograph that is done, says of what file and how it was made, and which files
    came of it; only a photograph whose line still holds, and whose files are all there, is left as it is.
    """

    folder: Path
    tree: Hierarchy
    level: int
    save: tuple[str, ...]
    how: dict[str, Any]
    record: dict[str, dict[str, Any]]
    names: dict[Path, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, folder: Path, predictor: Predictor, level: int, save: tuple[str, ...]) -> Outputs:
        """A folder, new or of an earlier call, without what a killed one left half-written."""
        predictor.hierarchy.level(level)
        level = range(predictor.hierarchy.depth)[level]
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            for part in (folder / kind).rglob("*.part*"):
                if re.search(r"\.(png|jpg|json)\.part\d+$", part.name):
                    part.unlink(missing_ok=True)
        record = _read_record(folder / RECORD)
        # Written anew, so that what is added does not stand behind half a line.
        write_text(folder / RECORD, "".join(map(_line, record.values())))
        how = {**predictor.mark, "level": level, "save": list(save)}
        return cls(folder, predictor.hierarchy, level, save, how, record)

    def missing(self, found: Sequence[Found]) -> list[Found]:
        """Photographs that are still to be made; all get their names."""
        owners = {entry["name"].lower(): Path(photograph) for photograph, entry in self.record.items()}
        for one in found:
            known = self.record.get(str(one.path))
            free = (name for name in one.names(owners) if owners.get(name.lower(), one.path) == one.path)
            self.names[one.path] = known["name"] if known else next(free)
            owners[self.names[one.path].lower()] = one.path
        return [one for one in found if not self._is_made(one)]

    def _is_made(self, one: Found) -> bool:
        entry = self.record.get(str(one.path))
        if entry is None or entry["how"] != self.how or entry["mark"] != file_mark(one.path):
            return False
        return all((self.folder / file).is_file() for file in entry["files"])

    def write(self, one: Found, photograph: np.ndarray, prediction: Prediction) -> None:
        """Write all that is wanted of a photograph, then its line of the record; may be called from threads."""
        name, nodes = self.names[one.path], prediction.level(self.level)
        pixels = np.bincount(nodes.ravel(), minlength=len(self.tree.names(self.level))).tolist()
        files = []
        for kind in self.save:
            files += getattr(self, f"_write_{kind}")(name, one, photograph, nodes, prediction)
        entry = {"photograph": str(one.path), "name": name, "mark": file_mark(one.path), "how": self.how,
                 "shape": list(prediction.shape), "pixels": pixels,
                 "files": [file.relative_to(self.folder).as_posix() for file in files]}  # fmt: skip
        before = self.record.get(entry["photograph"], {"files": []})
        for old in set(before["files"]) - set(entry["files"]):
            (self.folder / old).unlink(missing_ok=True)
        with self.lock, (self.folder / RECORD).open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            self.record[entry["photograph"]] = entry

    def write_areas(self) -> None:
        """`areas.csv`: a row for each photograph made in this way, with the pixels of each of the level's nodes."""
        names = self.tree.names(self.level)
        rows = []
        for entry in sorted(self.record.values(), key=lambda entry: entry["name"]):
            if entry["how"] != self.how:
                continue
            head = {"name": entry["name"], "photograph": entry["photograph"],
                    "height": entry["shape"][0], "width": entry["shape"][1]}  # fmt: skip
            rows.append(head | dict(zip(names, entry["pixels"], strict=True)))
        if rows:
            write_rows(self.folder / AREAS, rows)

    def _write_ids(self, name: str, one: Found, photograph: np.ndarray, nodes: np.ndarray,
                   prediction: Prediction) -> list[Path]:  # fmt: skip
        picture = Image.fromarray(nodes)
        picture.putpalette(palette(self.tree, self.level))
        return [_save(picture, self.folder / "ids" / f"{name}.png", format="PNG", compress_level=3)]

    def _write_overlay(self, name: str, one: Found, photograph: np.ndarray, nodes: np.ndarray,
                       prediction: Prediction) -> list[Path]:  # fmt: skip
        picture = with_legend(overlay_nodes(photograph, nodes, self.tree, self.level), self.tree, self.level)
        return [_save(picture, self.folder / "overlay" / f"{name}.jpg", format="JPEG", quality=90)]

    def _write_cutout(self, name: str, one: Found, photograph: np.ndarray, nodes: np.ndarray,
                      prediction: Prediction) -> list[Path]:  # fmt: skip
        files = []
        for node, word in self._there(nodes):
            path = self.folder / "cutout" / name / (re.sub(r"[^\w.-]+", "_", word) + ".png")
            files.append(_save(cut_out(photograph, nodes == node), path, format="PNG", compress_level=3))
        return files

    def _write_json(self, name: str, one: Found, photograph: np.ndarray, nodes: np.ndarray,
                    prediction: Prediction) -> list[Path]:  # fmt: skip
        classes, confidence = [], prediction.confidence
        for node, word in self._there(nodes):
            inside = nodes == node
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            classes.append({
                "id": node, "name": word, "pixels": int(inside.sum()), "share": float(inside.mean()),
                "box": [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1],
                "confidence": round(float(confidence[inside].mean()), 4),
            })  # fmt: skip
        path = self.folder / "json" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"photograph": str(one.path), "height": prediction.shape[0], "width": prediction.shape[1],
                          "level": self.level, "classes": classes})  # fmt: skip
        return [path]

    def _there(self, nodes: np.ndarray) -> list[tuple[int, str]]:
        """(id, name) of the foreground nodes that a mask holds."""
        held, names = set(np.unique(nodes).tolist()), self.tree.names(self.level)
        return [(node, names[node]) for node in self.tree.foreground(self.level) if node in held]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _save(picture: Image.Image, path: Path, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        picture.save(part, **how)
    return path


def _read_record(path: Path) -> dict[str, dict[str, Any]]:
    """Photograph → its last line; a line that was cut off, or is none of ours, counts as not there."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            found[str(entry["photograph"])] = {key: entry[key] for key in KEYS}
        except (ValueError, TypeError, KeyError):
            continue
    return found

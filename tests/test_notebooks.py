"""The notebooks run from top to bottom on a small sample, and what is stored in them can be read on a web page."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "nbs"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
SMALL = ["data.sample.train=16", "data.sample.valid=4", "data.sample.size=96x128", "data.size=64x64",
         "train.batch_size=8", "data.workers=0", "search.budget.trials=4", "search.space.model.arch=[FPN, Unet]",
         "search.space.loss=[[iou]]", "search.space.train.lr={low: 1.0e-3, high: 1.0e-2}"]  # fmt: skip


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_pictures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(FOLDER / name, 4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    parameters[0].source = f"preset = 'sample'\nsettings = {SMALL}\nepochs = 1\nout = {str(tmp_path / 'runs')!r}"
    stored = pictures(notebook)
    if (FOLDER / "results").is_dir():
        shutil.copytree(FOLDER / "results", tmp_path / "results")
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert pictures(notebook) == stored


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_with_its_outputs(name):
    notebook = nbformat.read(FOLDER / name, 4)
    title, *_, last = notebook.cells
    assert title.source.startswith("# ")
    assert "\n> " in title.source
    assert last.cell_type in ("markdown", "code")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not any(output.output_type == "error" for output in cell.outputs)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert pictures(notebook) >= 1

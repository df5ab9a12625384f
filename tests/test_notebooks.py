"""Every notebook runs from its first cell to its last, at a tiny size."""

import runpy
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(path.with_suffix(".py") for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_runs(script, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STEPS", "2")
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_and_its_script_say_the_same(script):
    paired = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    cells = [(cell.cell_type, cell.source) for cell in paired.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]


def test_the_page_without_lightning_and_hydra_learns_and_draws(tmp_path, monkeypatch):
    page = (NOTEBOOKS / "minimal.py").read_text()
    assert len(page.splitlines()) <= 40
    assert page.count("STEPS = 1200") == 1
    short = tmp_path / "minimal.py"
    short.write_text(page.replace("STEPS = 1200", "STEPS = 20"))
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path(str(short))
    assert left["loss"].item() < 0.7  # 1 before the first step: the network's output is 0
    assert np.asarray(Image.open("minimal.png")).std() > 10

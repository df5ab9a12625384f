"""Every notebook runs from its first cell to its last, at a tiny size; what is committed is whole.

A translation has the code cells of the English notebook, byte for byte, so only the latter is run.
"""

import re
import runpy
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
COURSE = NOTEBOOKS / "course"
PAIRS = sorted(path.with_suffix(".py") for path in NOTEBOOKS.rglob("*.ipynb"))
TRANSLATED = [path for path in PAIRS if path.suffixes[:-1]]  # 01_noise.pt.py
ENGLISH = [path for path in PAIRS if path not in TRANSLATED]
PAGES = sorted(COURSE.glob("*.md"))
MOST_BYTES = 600_000
MACHINE_PATH = re.compile(r"(?<![\w.…/])/(?:tmp|home|root|work|Users|usr|opt|var)/")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$", re.DOTALL)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def english(path):
    """01_noise.py of 01_noise.pt.py."""
    return path.with_name(path.name.split(".")[0] + path.suffix)


def committed(script):
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def words_of(path):
    """The Markdown of a page, or of the cells of a notebook, one after the other."""
    if path.suffix == ".md":
        return [path.read_text()]
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown"]


def facts(text):
    """What a translation leaves as it is: formulas, code, links, and numbers, all in any order."""
    links = sorted(
        re.sub(r"\.(?:pt|es)(?=\.(?:md|ipynb)$)", "", link) for link in LINK.findall(text)
    )
    text = LINK.sub("]", text)
    formulas = sorted(re.sub(r"\s+", "", formula) for formula in FORMULA.findall(text))
    text = FORMULA.sub("", text)
    quoted = sorted(re.findall(r"`[^`]+`", text))
    text = re.sub(r"`[^`]+`", "", text)
    numbers = sorted(re.sub(r"\D", "", number) for number in NUMBER.findall(text))
    return {"formulas": formulas, "quoted": quoted, "links": links, "numbers": numbers}


@pytest.mark.parametrize("script", ENGLISH, ids=lambda path: path.stem)
def test_notebook_runs(script, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STEPS", "2")
    notebook = jupytext.read(script)
    where = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=900, startup_timeout=300, resources=where).execute()
    drawn = [pictures(cell) for cell in code(notebook)]
    assert sum(drawn) >= 5
    assert drawn == [pictures(cell) for cell in code(committed(script))]  # cell by cell


@pytest.mark.parametrize("script", PAIRS, ids=lambda path: path.stem)
def test_the_notebook_and_its_script_say_the_same(script):
    cells = [(cell.cell_type, cell.source) for cell in committed(script).cells]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]


@pytest.mark.parametrize("script", PAIRS, ids=lambda path: path.stem)
def test_the_notebook_was_run_to_its_end_and_names_no_machine(script):
    cells = code(committed(script))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        words = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not MACHINE_PATH.search(words), words
    assert script.with_suffix(".ipynb").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("script", TRANSLATED, ids=lambda path: path.stem)
def test_a_translation_is_in_step(script):
    here, there = committed(script).cells, committed(english(script)).cells
    assert [cell.cell_type for cell in here] == [cell.cell_type for cell in there]
    for ours, theirs in zip(here, there, strict=True):
        if ours.cell_type == "code":
            assert (ours.source, ours.outputs) == (theirs.source, theirs.outputs)
        else:
            assert facts(ours.source) == facts(theirs.source)
            assert ours.source != theirs.source


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.suffixes[:-1]], ids=lambda path: path.stem
)
def test_a_translated_page_is_in_step(page):
    here, there = page.read_text(), english(page).read_text()
    assert here.count("\n#") == there.count("\n#")
    assert facts(here) == facts(there)


@pytest.mark.parametrize("path", [*PAIRS, *PAGES], ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path):
    links = [link for text in words_of(path) for link in LINK.findall(text)]
    within = [link.split("#")[0] for link in links if "://" not in link and link[0] != "#"]
    assert [link for link in within if not (path.parent / link).exists()] == []


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

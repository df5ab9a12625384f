"""Packages that only unused metrics need are hidden from Lightning, and from nothing else."""

import importlib.util
import subprocess
import sys

import pytest
from lightning_utilities.core import imports

from unnoise.config.quick_imports import ASKS, HIDDEN, quick_imports

THERE = [name for name in HIDDEN if importlib.util.find_spec(name)]


def test_the_installed_version_asks_in_the_way_that_is_answered():
    before = {name: getattr(imports, name) for name in ASKS}
    with quick_imports():
        assert not any(imports.package_available(name) for name in HIDDEN)
        assert not any(imports.RequirementCache(name) for name in THERE)
        assert imports.package_available("torch")
        assert imports.RequirementCache("torch>=2.0")
    assert {name: getattr(imports, name) for name in ASKS} == before
    assert THERE
    assert all(imports.package_available(name) for name in THERE)


@pytest.mark.parametrize("gone", [["_version"], ["package_available"], list(ASKS)])
def test_without_the_names_nothing_is_changed(gone, monkeypatch):
    for name in gone:
        monkeypatch.delattr(imports, name)
    before = dict(vars(imports))
    with quick_imports():
        assert vars(imports).keys() == before.keys()
    assert dict(vars(imports)) == before


def test_without_the_package_nothing_happens(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_utilities.core", None)
    with quick_imports():
        pass


def test_an_error_inside_leaves_nothing_hidden():
    before = dict(vars(imports))
    with pytest.raises(KeyError), quick_imports():
        raise KeyError
    assert dict(vars(imports)) == before


IMPORTING = """
import sys
from unnoise.config.nodes import resolve_target
resolve_target("unnoise.training.callbacks.samples.SampleGrid")
print([name for name in {hidden!r} if name in sys.modules])
"""


def test_importing_lightning_imports_none_of_them():
    command = [sys.executable, "-c", IMPORTING.format(hidden=HIDDEN)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

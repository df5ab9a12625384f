"""Checks the shapes that public signatures of the mathematics promise, while tests run."""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, a process a core
gc.disable()  # imports leave no garbage

import pytest
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float
install_import_hook(["unnoise.diffusion"], f"{__name__}.checked")
settings.register_profile(  # the same examples every time, on a machine however slow
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_make_parametrize_id(val):
    """Every worker collects a test by the same name: packed bytes may hold the time of day."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_collection_finish():
    """No search for garbage looks through what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def garbage():
    """A command that ends with an error leaves the garbage to the end of the process."""
    yield
    gc.enable()

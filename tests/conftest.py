"""Checks the shapes that public signatures of the mathematics promise, while tests run."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, a process a core

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook(["unnoise.diffusion"], "beartype.beartype")
settings.register_profile(  # the same examples every time, on a machine however slow
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

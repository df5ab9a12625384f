"""Checks the shapes that public signatures of the mathematics promise, while tests run."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, a process a core

from jaxtyping import install_import_hook

install_import_hook(["unnoise.diffusion"], "beartype.beartype")

"""Checks the shapes that public signatures of the mathematics promise, while tests run."""

from jaxtyping import install_import_hook

install_import_hook(["unnoise.diffusion"], "beartype.beartype")

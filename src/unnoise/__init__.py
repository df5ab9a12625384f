"""unnoise: diffusion models that read like the papers, on Lightning and Hydra."""

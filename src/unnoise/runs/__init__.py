"""The run directory: its layout, checkpoints, manifest and lock."""

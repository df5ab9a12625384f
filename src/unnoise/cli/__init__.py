"""The commands: the only code that knows Hydra."""

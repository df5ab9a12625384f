"""A command as a user types it, in this process; and a run that one module of tests looks at."""

import sys

import pytest

from unnoise.cli import train


def command(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise", *arguments])
    main()


def trained(folder, *arguments):
    """The folder, with a run of four steps."""
    with pytest.MonkeyPatch.context() as patch:
        command(patch, train.main, *arguments, "max_steps=4", f"hydra.run.dir={folder}")
    return folder

"""The help of every command."""

import sys
from importlib import import_module

import pytest

COMMANDS = (
    "import train sample figure classifier extractor evaluate report replay verify export".split()
)
COMMANDS += ["reproduce", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_the_command_and_fits_100_columns(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"unnoise-{command}", "--help"])
    module = "importer" if command == "import" else command  # a word of Python's own
    main = import_module(f"unnoise.cli.{module}").main
    with pytest.raises(SystemExit) as stop:
        main()
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert f"unnoise-{command}" in lines[0]
    assert [line for line in lines if len(line) > 100] == []


def test_help_of_training_lists_every_option_of_a_group(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unnoise-train", "--help"])
    with pytest.raises(SystemExit):
        import_module("unnoise.cli.train").main()
    words = capsys.readouterr().out.replace(",", " ").split()
    assert {"sprites_super_resolution", "sprites_text", "dpm_solver_sde", "unipc"} <= set(words)

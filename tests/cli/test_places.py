"""A place that cannot be written to is one line in every command, before anything is computed."""

import sys
from importlib import import_module

import pytest
from untrained import FEW, TINY, make_run

SMALL = ["data=sprites", "data.size=64", "data.validation_size=24", "steps=2", "device=cpu"]
TRAIN = [*TINY, *FEW, "trainer=cpu", "logger=none", "max_steps=1"]
COMMANDS = {
    "train": (*TRAIN, "hydra.run.dir=OUT"),
    "sample": ("run=RUN", "n=1", "device=cpu", "out=OUT"),
    "figure": ("figure=schedules", "data=sprites", "out=OUT/a.png"),
    "classifier": (*SMALL, "out=OUT"),
    "extractor": (*SMALL[:4], "out=OUT"),
    "report": ("RUN", "-o", "OUT/a.html"),
    "verify": ("--json", "OUT/a.json"),
}
IN_OUTPUTS = {
    "train": TRAIN,
    "train -m": ("-m", *TRAIN, "seed=1,2"),
    "figure": ("figure=schedules", "data=sprites"),
    "classifier": [*SMALL, "batch_size=8"],
    "extractor": SMALL[:4],
    "evaluate": ("images=RUN", "data=sprites"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def refused(command, line, monkeypatch, capsys):
    """What a command that ends with status 2 says."""
    monkeypatch.setattr(sys, "argv", [f"unnoise-{command}", *line])
    with pytest.raises(SystemExit) as stop:
        import_module(f"unnoise.cli.{command}").main()
    out = capsys.readouterr()
    assert stop.value.code == 2
    assert out.out == ""
    return out.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["/proc/nothing", "FILE/below", "long"])
def test_a_place_that_is_typed(command, place, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("whole")
    out = {"long": "x" * 300}.get(place, place.replace("FILE", str(tmp_path / "file")))
    line = [each.replace("OUT", out).replace("RUN", str(run)) for each in COMMANDS[command]]
    said = refused(command, line, monkeypatch, capsys)
    why = {"/": "/proc cannot be written to", "F": "is a file, not", "l": "is too long a name"}
    (reason,) = [each for each in said.splitlines() if why[place[0]] in each]
    assert any(key in reason for key in ("out", "json", "run directory"))
    assert (tmp_path / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", IN_OUTPUTS)
def test_outputs_that_is_a_file(command, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").write_text("whole")
    line = [each.replace("RUN", str(run)) for each in IN_OUTPUTS[command]]
    said = refused(command.split()[0], line, monkeypatch, capsys)
    assert f"{tmp_path / 'outputs'} is a file, not a folder" in said
    assert len(said.splitlines()) == 2
    assert (tmp_path / "outputs").read_text() == "whole"


def test_what_is_only_shown_needs_no_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").write_text("")
    monkeypatch.setattr(sys, "argv", ["unnoise-train", "-c", "job", "-p", "seed"])
    import_module("unnoise.cli.train").main()
    assert "0" in capsys.readouterr().out

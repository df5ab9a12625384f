"""The command of figures: where they go, and what is told of mistakes."""

import sys

import pytest
from PIL import Image
from untrained import make_run

from unnoise.cli import figure
from unnoise.cli.request import check_request
from unnoise.config.compose import CONF, check_command_line
from unnoise.data.sprites import Sprites


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a class-conditional run."""
    return make_run(tmp_path_factory.mktemp("run") / "run", "conditioning=class")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-figure", *arguments])
    figure.main()


def told(capsys, monkeypatch, *arguments):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_figure_of_data_goes_to_outputs(monkeypatch, tmp_path, capsys):
    command(monkeypatch, "figure=schedules", "figure.levels=3")
    with Image.open(tmp_path / "outputs" / "figures" / "schedules.png") as picture:
        assert f"{picture.width} × {picture.height} pixels in " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["figure=noise", "sampler.steps=2", "figure.pictures=2"],
        ["figure=guidance", "sampler.steps=2", "figure.pictures=1", "figure.scales=[1,2]"],
        ["figure=samplers", "figure.evaluations=[1,2]", "figure.pictures=1"],
    ],
)
def test_a_figure_of_a_run_goes_into_the_run(arguments, run, monkeypatch, capsys):
    command(monkeypatch, f"run={run}", *arguments)
    path = run / "figures" / f"{arguments[0].partition('=')[2]}.png"
    assert Image.open(path).mode == "RGB"
    assert str(path) in capsys.readouterr().out


def test_classes_are_asked_for_without_the_data(run, monkeypatch):
    monkeypatch.setattr(Sprites, "images", None)
    command(monkeypatch, f"run={run}", "figure=noise", "sampler.steps=1", "out=it.png")


def test_out_names_the_file(run, monkeypatch, tmp_path):
    command(monkeypatch, f"run={run}", "figure=noise", "sampler.steps=1", "out=here/it.png")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["it.png"]


def test_the_last_weights_draw_other_pictures(run, monkeypatch):
    for name, averaged in (("mean", "true"), ("last", "false"), ("again", "true")):
        command(monkeypatch, f"run={run}", "figure=noise", "sampler.steps=2", "figure.pictures=1",
                f"averaged={averaged}", f"out={name}.png")  # fmt: skip
    mean, last, again = (Image.open(f"{name}.png").tobytes() for name in ("mean", "last", "again"))
    assert mean == again != last


def test_data_of_ones_own_are_asked_by(tmp_path, monkeypatch):
    """Sketches of sprites of another seed."""
    run = make_run(tmp_path / "run", "conditioning=sketch")
    for name, data in (("own", []), ("same", ["data.seed=0"]), ("other", ["data.seed=1"])):
        source = [*(["data=sprites"] if data else []), *data]
        source += ["data.size=60", "data.validation_size=40"] if data else []
        command(monkeypatch, f"run={run}", "figure=guidance", "sampler.steps=1", "figure.rows=2",
                "figure.scales=[1]", *source, f"out={name}.png")  # fmt: skip
    own, same, other = (Image.open(f"{name}.png").tobytes() for name in ("own", "same", "other"))
    assert own == same != other


def test_an_untrained_null_condition_is_not_pictured(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", "conditioning=class", "condition_dropout=0")
    err = told(capsys, monkeypatch, f"run={run}", "figure=guidance")
    assert "guidance 0 needs a null condition, which this run did not learn" in err
    err = told(capsys, monkeypatch, f"run={run}", "figure=samplers",
               "figure.samplers.heun.guidance.scale=3")  # fmt: skip
    assert "guidance 3 needs a null condition, which this run did not learn" in err
    command(monkeypatch, f"run={run}", "figure=guidance", "figure.scales=[1]", "sampler.steps=1")


def test_where_nothing_can_be_written_is_told_before_drawing(run, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(figure.FigureDrawing, "answer", None)
    for out, message in (("file/it.png", "file is a file, not"), ("folder.png", "is a folder")):
        err = told(capsys, monkeypatch, f"run={run}", "figure=noise", f"out={out}")
        assert message in err
    (tmp_path / "outputs").write_text("")
    assert "outputs is a file, not a folder" in told(capsys, monkeypatch, "figure=schedules")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["figure=sampler"],
            "did you mean 'samplers'? (captions, guidance, latents, noise, samplers, sched",
        ),
        (["figure=noise"], "run  missing: this figure takes a model, give it as run=..."),
        (["figure=noise", "run=nowhere"], "run  there is no run or checkpoint nowhere"),
        (["figure=schedules", "figure.levls=3"], "did you mean 'figure.levels'?"),
        (["figure=schedules", "figure.levels=1"], "figure.levels"),
        (["figure=schedules", "figure.schedules.linear.beta_T=2"], "schedules.linear.beta_T"),
        (["figure=noise", "run=${nope}"], "refers to 'nope', which does not exist"),
        (["figure=schedules", "sampler=ddim"], "sampler  this figure takes no sampler: leave it"),
        (["figure=samplers", "run=.", "sampler=ddim"], "no sampler but those of figure.samplers"),
        (["figure=captions", "run=.", "figure.captions=[]"], "must have at least 1 item, not 0"),
        (["figure=noise", "run=.", "device=meta"], "device  meta cannot be used here"),
        (["figure=noise", "run=.", "device=gpo"], "device  gpo cannot be used here"),
        (["~averaged", "figure=schedules"], "averaged  missing"),
        (["figure=schedules", "out=a.jpg"], "out  a.jpg must end in .png"),
        (["figure=schedules", "run=."], "run  this figure takes data, not a run"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    arguments, message, monkeypatch, capsys, tmp_path
):
    assert message in told(capsys, monkeypatch, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_between_keys_is_listed_with_what_is_wrong_in_one(monkeypatch, capsys):
    err = told(capsys, monkeypatch, "figure=noise", "averaged=3", "sampler=ddim", "device=gpo")
    assert "averaged  must be < 0.288, not 3" in err
    assert "device    gpo cannot be used here" in err
    assert "run       missing: this figure takes a model" in err


def test_what_only_the_run_can_tell(run, monkeypatch, capsys):
    err = told(capsys, monkeypatch, f"run={run}", "figure=captions")
    assert "the model does not read captions" in err
    err = told(capsys, monkeypatch, f"run={run}", "figure=samplers", "figure.evaluations=[2,2000]")
    assert "2000 steps with a schedule of T=1000" in err


def test_help_names_every_figure(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert all(f"\n  {path.stem} " in text for path in (CONF / "figure").glob("*.yaml"))


def test_every_figure_can_be_composed_and_built():
    for path in (CONF / "figure").glob("*.yaml"):
        config, found = check_command_line("figure", [f"figure={path.stem}"])
        wrong = [*found, *check_request(figure.FigureDrawing, config)]
        assert {problem.key for problem in wrong} <= {"run"}, wrong

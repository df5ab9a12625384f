"""unnoise-reproduce as a user types it, on a reference of four steps."""

import sys
from contextlib import nullcontext

import pytest
import yaml

from unnoise.cli import reproduce, timing, wanted
from unnoise.cli.train import main as train
from unnoise.config.compose import CONF
from unnoise.evaluation.published import (
    Compared,
    Expected,
    reference,
    references,
)
from unnoise.evaluation.results import Estimate
from unnoise.runs.wanted import Spent

TINY = [
    *"experiment=sprites data.size=60 data.validation_size=40 max_steps=4 batch_size=2".split(),
    *"network.channels=8 network.multipliers=[1,1] network.head_size=null logger=none".split(),
    *"network.attention_resolutions=[] validation_images=2 callbacks.samples.count=2".split(),
    *"callbacks.samples.sampler.steps=2 sampler.steps=2 precision=fp32".split(),
]
MEASURE = ["n=12", "reference_count=30", "controls=false", "metrics=[fd]", "sampler=mine"]
EXPECTED = {"fd_sprites": {"value": 5.0, "error": 1.0, "source": "a guess"}}
REFERENCE = {
    "about": "a test",
    "run": {"train": TINY},
    "points": [
        {"share": 0.5, "measure": MEASURE, "expected": {}},
        {"share": 1.0, "measure": MEASURE, "expected": EXPECTED},
    ],
}


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """Trains in this process, and notes until which step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "conf" / "published").mkdir(parents=True)
    (tmp_path / "conf" / "published" / "tiny.yaml").write_text(yaml.safe_dump(REFERENCE))
    (tmp_path / "conf" / "sampler").mkdir()
    sampler = (CONF / "sampler" / "ddim.yaml").read_text()
    mine = sampler.replace("steps: 50", "steps: 2")
    (tmp_path / "conf" / "sampler" / "mine.yaml").write_text(mine)
    noted = []

    def in_this_process(overrides, folders):
        noted.append([each for each in overrides if each.startswith("until")])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["unnoise-train", *overrides])
            with nullcontext() if noted[-1] == [] else pytest.raises(SystemExit, match="0"):
                train()

    monkeypatch.setattr(wanted, "train", in_this_process)
    monkeypatch.setattr(timing, "timed", lambda *_: Spent(10, 36_000.0, "processor s"))
    return noted


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-reproduce", *arguments, "--config-dir=conf"])
    reproduce.main()


def test_one_command_trains_measures_and_compares(trainings, monkeypatch, capsys, tmp_path):
    command(monkeypatch, "tiny")
    told = capsys.readouterr().out
    assert (
        "4 of 4 steps are to be trained, 3.6e+03 processor s each: about 4.0 processor hours"
        in told
    )
    assert trainings == [["until=2"], []]
    assert "not as published" in told
    assert "fd_sprites: a guess" in told
    assert "12 pictures against train 30" in told
    results = sorted((tmp_path / "outputs").rglob("reproduced_*.json"))
    assert [path.name[:19] for path in results] == ["reproduced_00000002", "reproduced_00000004"]
    command(monkeypatch, "tiny")
    assert len(trainings) == 2, "all is there already"
    assert "0 of 4 steps" in capsys.readouterr().out


def test_killed_after_a_point_it_goes_on_from_there(trainings, monkeypatch, capsys):
    measure = reproduce.measure

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "measure", killed)
    with pytest.raises(SystemExit):
        command(monkeypatch, "tiny")
    assert trainings == [["until=2"]]
    measured = []
    monkeypatch.setattr(
        reproduce,
        "measure",
        lambda run, point, step, *more: measured.append(step) or measure(run, point, step, *more),
    )
    command(monkeypatch, "tiny")
    assert trainings == [["until=2"], []]
    assert measured == [2, 4]
    assert "2 of 4 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tiyn"], "there is no reference tiyn; did you mean 'tiny'?"),
        (["tiny", "batch_size=-1"], "batch_size"),
        (["tiny", "smapler=ddim"], "did you mean 'sampler'?"),
        (["cifar10_ddpm", "data.root=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(
    arguments, told, trainings, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, *arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert not trainings


@pytest.mark.parametrize("wrong", ["metrics=[fdd]", "sampler=mnie"])
def test_what_is_wrong_in_a_late_measure_is_told_before_anything_is_trained(
    wrong, trainings, monkeypatch, capsys, tmp_path
):
    first, last = REFERENCE["points"]
    points = [first, last | {"measure": [*MEASURE, wrong]}]
    text = yaml.safe_dump(REFERENCE | {"points": points})
    (tmp_path / "conf" / "published" / "tiny.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "tiny")
    assert end.value.code == 2
    assert wrong.split("=")[1].strip("[]") in capsys.readouterr().err
    assert not trainings


def test_the_difference_is_in_standard_errors_of_both():
    paper = Expected(value=3.0, error=0.3, source="")
    row = Compared(1.0, 10, "fid", Estimate(4.0, 0.4), paper)
    assert row.difference == pytest.approx(1 / 0.5)
    assert row.cells[-2:] == ("+2.0", "as published")
    far = Compared(1.0, 10, "fid", Estimate(5.0, 0.4), paper)
    assert far.cells[-2:] == ("+4.0", "not as published")
    assert Compared(1.0, 10, "fid", Estimate(4.0), None).difference is None


@pytest.mark.parametrize("name", sorted(references([])))
def test_every_reference_names_a_recipe_that_is_right(name):
    found = reference(name, [])
    wrong = wanted.checked(found.run, [], [], fixed=True)[1]
    files = ("data.root", "data: missing", "autoencoder.run")
    assert [str(each) for each in wrong if not str(each).startswith(files)] == []
    assert max(point.share for point in found.points) == 1
    assert (CONF / "published" / f"{name}.yaml").exists()

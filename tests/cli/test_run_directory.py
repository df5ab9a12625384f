"""Where the training command keeps its runs, and which of them it goes on with."""

import pytest
import torch
import yaml
from test_train import FEW, command, elsewhere  # noqa: F401 (a fixture)
from test_train import TINY as SMALL

import unnoise
from unnoise.files import write_with_digest
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.untrusted import UnsafeFile

TINY = [*SMALL, *FEW]


def test_a_sweep_trains_every_combination_in_its_own_directory(monkeypatch, tmp_path):
    command(monkeypatch, "-m", "schedule=linear,cosine", "seed=1,2", *TINY)
    runs = sorted((tmp_path / "outputs" / "sprites").iterdir())
    assert len(runs) == 4
    assert all((run / "checkpoints" / "step_00000002.ckpt").exists() for run in runs)
    configs = {(run / "config.yaml").read_text() for run in runs}
    assert len(configs) == 4


def test_a_sweep_over_the_sampler_keeps_every_result(monkeypatch, tmp_path, capsys):
    rest = [override for override in TINY if override != "sampler.steps=2"]
    command(monkeypatch, "-m", "sampler.steps=2,3", *rest)
    runs = sorted((tmp_path / "outputs" / "sprites").iterdir())
    steps = [yaml.safe_load((run / "config.yaml").read_text())["sampler"]["steps"] for run in runs]
    assert sorted(steps) == [2, 3]
    printed = capsys.readouterr().out
    assert all(f"job {k}: " in printed for k in (0, 1))
    assert "sampler.steps=3" in printed


def test_a_sweep_over_how_a_run_is_computed_keeps_every_run(monkeypatch, tmp_path):
    command(monkeypatch, "-m", "accumulate=1,2", *TINY)
    runs = sorted((tmp_path / "outputs" / "sprites").iterdir())
    told = [yaml.safe_load((run / "config.yaml").read_text())["accumulate"] for run in runs]
    assert sorted(told) == [1, 2]


def test_a_run_is_never_written_over(monkeypatch, tmp_path, capsys):
    command(monkeypatch, *TINY)
    (run,) = (tmp_path / "outputs" / "sprites").iterdir()
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *TINY)  # in the same second
    assert stop.value.code == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_text() == before


def test_resume_finds_the_run_whatever_does_not_change_it(monkeypatch, tmp_path, capsys):
    command(monkeypatch, *TINY)
    command(monkeypatch, *TINY, "resume=true", "trainer=cpu", "callbacks.metrics.every=7")
    assert "resuming outputs/sprites/" in capsys.readouterr().out
    assert len(list((tmp_path / "outputs" / "sprites").iterdir())) == 1
    command(monkeypatch, *TINY, "resume=true", "seed=5")
    assert "no checkpoint of an earlier run" in capsys.readouterr().out
    assert len(list((tmp_path / "outputs" / "sprites").iterdir())) == 2


def test_resume_takes_the_newest_run_that_has_a_checkpoint(monkeypatch, tmp_path, capsys):
    command(monkeypatch, *TINY)
    (run,) = (tmp_path / "outputs" / "sprites").iterdir()
    (run.parent / f"9999-01-01_00-00-00_{run.name[-8:]}").mkdir()  # killed before its first
    command(monkeypatch, *TINY, "resume=true")
    assert f"resuming outputs/sprites/{run.name} at step 2" in capsys.readouterr().out


def test_a_certain_run_goes_on_to_more_steps(monkeypatch, tmp_path):
    command(monkeypatch, *TINY)
    (run,) = (tmp_path / "outputs" / "sprites").iterdir()
    command(monkeypatch, *TINY, f"resume={run}", "max_steps=4")
    assert (run / "checkpoints" / "step_00000004.ckpt").exists()
    assert "max_steps: 4" in (run / "config.yaml").read_text()


def test_a_checkpoint_of_another_layout_is_refused_in_one_line(monkeypatch, tmp_path, capsys):
    command(monkeypatch, *TINY)
    (run,) = (tmp_path / "outputs" / "sprites").iterdir()
    newest = find_checkpoint(run)
    content = torch.load(newest, weights_only=True)
    del content["layout"]
    write_with_digest(newest, lambda path: torch.save(content, path))
    with pytest.raises(UnsafeFile, match=rf"{newest.name} was saved by another version of unnoise"):
        unnoise.load(run)
    with pytest.raises(SystemExit, match=r"saved by another version of unnoise: train .* again$"):
        command(monkeypatch, *TINY, f"resume={run}", "max_steps=4")

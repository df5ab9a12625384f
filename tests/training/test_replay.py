"""What a run directory holds comes to Weights & Biases whole: the file it wrote is read back."""

import json
import math
import shutil

import pytest
from tiny import experiment
from wandb_file import parts

from unnoise.cli import replay as command
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.training.callbacks.samples import ForwardProcess, SampleGrid
from unnoise.training.logging.replay import replay
from unnoise.training.logging.wandb import AXIS, WeightsAndBiases
from unnoise.training.loop import fit

QUICK = Sampler(DDIM(), steps=2)


@pytest.fixture(autouse=True, scope="module")
def secluded(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
            patch.delenv(name, raising=False)
        for name in ("NETRC", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home / name))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run without a dashboard, with a number that was not finite and a line cut by a kill."""
    run_dir = tmp_path_factory.mktemp("runs") / "trained"
    drawn = {"samples": SampleGrid(QUICK, QUICK, every=2, count=2), "forward": ForwardProcess(2, 3)}
    config = {
        "name": "tiny",
        "seed": 0,
        "logger": {"_target_": "unnoise.training.logging.choices.none"},
    }
    fit(experiment(drawn, max_steps=4), config, run_dir, None)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "time": 1.0, "odd": null}\n{"step": 4, "ti')
    return run_dir


def sent(monkeypatch, *arguments):
    """The exit status of the command."""
    monkeypatch.setattr("sys.argv", ["unnoise-replay", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


def test_everything_is_sent_at_its_step(trained, monkeypatch, capsys):
    assert sent(monkeypatch, f"run={trained}", "--offline") == 0
    printed = capsys.readouterr()
    assert "wandb sync" in printed.err
    (read,) = parts(trained)
    shown = {}
    for row in read.history:
        assert row["_step"] == row[AXIS]
        shown.setdefault(row[AXIS], {}).update(row)
    lines = (trained / "metrics.jsonl").read_text().splitlines()[:-1]
    assert printed.out.endswith(f"trained: {len(lines)} lines\n")
    for line in lines:
        row = json.loads(line)
        for name in row.keys() - {"step", "time"}:
            number = shown[row["step"]][name]
            same = math.isnan(float(number)) if row[name] is None else number == row[name]
            assert same, (row["step"], name)
    assert read.column("samples.caption") == {2: "step 2", 4: "step 4"}
    assert list(read.column("forward_process._type")) == [0]
    assert read.column("denoising._type") == {4: "video-file"}
    assert read.picture("samples", 2).read_bytes() == (
        (trained / "samples" / "step_00000002.png").read_bytes()
    )
    manifest = json.loads((trained / "manifest.json").read_text())
    assert (read.config["seed"], read.exit) == (0, [0])
    assert read.config["manifest"]["git_commit"] == manifest["git_commit"]
    assert read.summary["run/steps"] == 4
    assert read.run.run_id == (trained / "wandb_id").read_text()


def test_a_killed_run_is_sent_as_one_to_a_new_page(trained, tmp_path, monkeypatch):
    run_dir = tmp_path / "runs" / "killed"
    shutil.copytree(trained, run_dir, ignore=shutil.ignore_patterns("wandb"))
    manifest = json.loads((run_dir / "manifest.json").read_text())
    for key in ("finished", "seconds", "steps", "peak_memory_mb"):
        del manifest[key]
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    (run_dir / "wandb_id").write_text(first := "abcd1234")
    shutil.copytree(run_dir, tmp_path / "runs" / "other")
    (tmp_path / "runs" / "other" / "manifest.json").unlink()
    assert sent(monkeypatch, tmp_path / "runs", "--offline", "--new") == 1, "other has no manifest"
    (read,) = parts(run_dir)
    assert read.exit == [255]
    assert read.run.run_id == (run_dir / "wandb_id").read_text() != first


def test_what_the_page_has_is_not_sent_again(trained, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir, ignore=shutil.ignore_patterns("wandb"))
    board = WeightsAndBiases(run_dir, "x", mode="offline")
    opened = board.begin

    def begin(*arguments):
        opened(*arguments)
        board._run._starting_step = 3

    monkeypatch.setattr(board, "begin", begin)
    replay(run_dir, board)
    (read,) = parts(run_dir)
    assert {row[AXIS] for row in read.history} == {4}


def test_without_credentials_or_a_run_nothing_is_sent(trained, tmp_path, monkeypatch, capsys):
    assert sent(monkeypatch, trained) == 1
    assert "was not sent: Weights & Biases has no credentials here" in capsys.readouterr().err
    assert sent(monkeypatch, tmp_path / "nowhere") == 2
    assert "is not there" in capsys.readouterr().err

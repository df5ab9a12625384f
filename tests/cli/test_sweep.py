"""Sweeps: which jobs are run, what is told of them, and what a second run of the sweep does.

Most tests put a stand-in for the training, which leaves the files that a run leaves.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from test_train import FEW, TINY, elsewhere  # noqa: F401 (a fixture)

from unnoise.cli import train
from unnoise.config.search import search_of
from unnoise.report.reader import find_runs, read_run

STEPS = 2  # as in TINY


class Training:
    """Stands in for ``train.train``: notes the jobs, and ends each as ``acts`` says by its seed."""

    def __init__(self):
        self.jobs, self.acts = [], {}

    def __call__(self, config):
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        self.jobs.append((config["seed"], run_dir))
        manifest = {"pid": os.getpid(), "started": "2026-01-31T12:00:00+0000", "resumed": []}
        act = self.acts.get(config["seed"])
        if isinstance(act, BaseException):
            (run_dir / "manifest.json").write_text(json.dumps(manifest))
            raise act
        loss = 1 / (1 + config["seed"]) if act is None else act
        row = {"step": STEPS, "time": 1.0, "validation/loss": loss}
        (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        manifest |= {"seconds": 75.4, "steps": STEPS, "finished": "2026-01-31T12:01:00+0000"}
        (run_dir / "manifest.json").write_text(json.dumps(manifest))

    @property
    def seeds(self):
        """Of the jobs since this was last asked."""
        jobs, self.jobs = self.jobs, []
        return [seed for seed, _ in jobs]


@pytest.fixture
def training(monkeypatch):
    stand_in = Training()
    monkeypatch.setattr(train, "train", stand_in)
    return stand_in


@pytest.fixture
def sweep(monkeypatch, capsys):
    """The command with -m: its exit status, what it printed and the lines of the last summary."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unnoise-train", "-m", *TINY, *arguments])
        try:
            train.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        told = capsys.readouterr()
        lines = told.out.splitlines()
        heads = [k for k, line in enumerate(lines) if line.startswith("state ")]
        return status, told.out + told.err, lines[heads[-1] + 1 :] if heads else []

    return run


def states(summary):
    """The state of each job by what it differs in."""
    return {line.split()[-1]: line.split()[0] for line in summary if "seed=" in line}


def test_a_sweep_that_is_run_again_skips_what_is_finished(sweep, tmp_path):
    status, told, summary = sweep("schedule=linear,cosine", *FEW)
    assert status == 0, told
    runs = find_runs(tmp_path / "outputs")
    assert len(runs) == 2
    best = min(runs, key=lambda run: read_run(run).last("validation/loss"))
    assert [line.split()[0] for line in summary[:2]] == ["finished", "finished"]
    marked = [line for line in summary[:2] if "*" in line]
    assert len(marked) == 1
    assert best.name in marked[0]
    assert "2/2" in marked[0]
    before = {run: (run / "metrics.jsonl").read_bytes() for run in runs}
    status, told, again = sweep("schedule=linear,cosine", *FEW, "logger=tensorboard", "trainer=cpu")
    assert (status, again) == (0, summary)
    assert told.count("finished before") == 2
    assert {run: (run / "metrics.jsonl").read_bytes() for run in find_runs(Path("outputs"))} == {
        run.relative_to(tmp_path): content for run, content in before.items()
    }
    status, told, now = sweep("schedule=linear,cosine", *FEW, "sweep=status")
    assert (status, now) == (0, summary)
    assert "job 0" not in told
    groups = {read_run(run).manifest["sweep"] for run in runs}
    assert len(groups) == 1
    assert "UNNOISE_SWEEP" not in os.environ
    assert sorted(os.listdir("outputs")) == [".sweeps", "sprites"]


def test_a_sweep_that_never_ran_has_a_status(sweep, training):
    status, _, summary = sweep("seed=1,2", "sweep=status")
    assert (status, training.seeds) == (0, [])
    assert states(summary) == {"seed=1": "to", "seed=2": "to"}
    assert summary[-1] == "2 jobs: 2 to do"
    assert not Path("outputs").exists()


def test_all_problems_of_all_jobs_are_told_before_any_is_run(sweep, training):
    status, told, _ = sweep("batch_size=4,30000", "seed=1,-1", "data.size=100")
    assert (status, training.seeds) == (2, [])
    assert "batch_size  30000 is more than the data" in told
    assert "(job 2: batch_size=30000 seed=1 and 1 more)" in told or "seed=-1" in told
    assert "seed" in told
    assert "(job 1: batch_size=4 seed=-1 and 1 more)" in told
    assert not Path("outputs").exists()


def test_jobs_that_are_the_same_run_are_told(sweep, training):
    status, told, _ = sweep("workers=0,1", "seed=3")
    assert (status, training.seeds) == (2, [])
    assert "jobs 0 and 1  are the same run: they differ only in workers" in told
    status, told, _ = sweep("seed=3,3")
    assert "jobs 0 and 1  are the same run: they do not differ" in told


def test_a_failed_job_does_not_end_the_sweep_and_is_tried_again(sweep, training):
    training.acts = {2: RuntimeError("out of luck\nat length"), 3: SystemExit(1)}
    status, told, summary = sweep("seed=1,2,3,4")
    assert (status, training.seeds) == (1, [1, 2, 3, 4])
    assert states(summary) == {
        "seed=1": "finished", "seed=2": "failed", "seed=3": "failed", "seed=4": "finished",
    }  # fmt: skip
    assert "failed: RuntimeError: out of luck\n" in told
    (full,) = [p for p in Path("outputs").glob("*/*/error.txt") if "luck" in p.read_text()]
    assert "at length" in full.read_text()
    assert "Traceback" in full.read_text()
    training.acts = {}
    jobs = set(training.jobs)
    status, _, summary = sweep("seed=1,2,3,4")
    assert (status, training.seeds) == (0, [2, 3])
    assert set(states(summary).values()) == {"finished"}
    assert jobs == set()
    assert not [*Path("outputs").glob("*/*/error.txt")]


def test_a_failure_that_cannot_be_noted_does_not_end_the_sweep(sweep, training, monkeypatch):
    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unnoise.cli.sweep.attempt.write_text", full)
    training.acts = {1: RuntimeError("out of luck")}
    _, told, _ = sweep("seed=1,2")
    assert training.seeds == [1, 2]
    assert "could not be noted: [Errno 28] No space left on device" in told


def test_a_loss_that_is_no_number_is_not_the_best(sweep, training):
    training.acts = {1: None, 2: float("nan")}
    _, _, summary = sweep("seed=1,2")
    assert [("*" in line, "nan" in line) for line in summary[:2]] == [(True, False), (False, True)]


@pytest.mark.parametrize(("stop", "status"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_ends_the_sweep_which_goes_on_in_the_same_directories(
    stop, status, sweep, training
):
    training.acts = {2: stop}
    ended, _, summary = sweep("seed=1,2,3")
    assert ended == status
    assert states(summary) == {"seed=1": "finished", "seed=2": "interrupted", "seed=3": "to"}
    interrupted = dict(training.jobs)[2]
    assert training.seeds == [1, 2]
    training.acts = {}
    ended, _, summary = sweep("seed=1,2,3")
    assert dict(training.jobs)[2] == interrupted
    assert (ended, training.seeds) == (0, [2, 3])


def test_a_pruned_run_is_left_at_that(sweep, training):
    sweep("seed=1,2")
    training.jobs.clear()
    (run,) = [r for r in find_runs(Path("outputs")) if read_run(r).last("validation/loss") == 0.5]
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["finished"]
    (run / "manifest.json").write_text(json.dumps(manifest | {"pruned": "worse"}))
    status, _, summary = sweep("seed=1,2")
    assert (status, training.seeds) == (0, [])
    assert states(summary)["seed=1"] == "pruned"


def test_a_run_that_another_process_trains_is_left_alone(sweep, training):
    training.acts = {1: RuntimeError()}
    sweep("seed=1")
    (run,) = find_runs(Path("outputs"))
    training.jobs.clear()
    program = (
        "import pathlib, sys; from unnoise.runs.lock import held\n"
        "with held(pathlib.Path(sys.argv[1])): print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline()
        status, told, summary = sweep("seed=1")
    finally:
        other.communicate(b"\n")
    assert (status, training.seeds) == (0, [])
    assert "is being trained by another process" in told
    assert summary[0].startswith("running ")


def test_what_does_not_go_with_a_sweep_is_told(sweep, training, monkeypatch, capsys):
    status, told, _ = sweep("seed=1,2", "resume=outputs/sprites/x")
    assert (status, training.seeds) == (2, [])
    assert "resume  names one run, but a sweep finds the runs of its jobs by itself" in told
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *TINY, "sweep=status"])
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys, "argv", ["unnoise-train", "-m", *TINY, "seed=1,2"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    assert "for a sweep use trainer=ddp" in capsys.readouterr().err


def test_status_without_a_sweep_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *TINY, "sweep=status"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    assert "add -m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "option", "override", "extra"),
    [
        ("sweeper", "optuna", "hparams_search=learning_rate", "sweeps"),
        ("launcher", "ray", "hydra/launcher=gpus", "ray"),
        ("launcher", "joblib", "hydra/launcher=joblib", "sweeps"),
    ],
)
def test_a_package_that_is_missing_is_named(group, option, override, extra, sweep, monkeypatch):
    Plugins.instance()  # they add their options
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{option}.yaml")
    status, told, _ = sweep(override)
    assert status == 2
    assert f"pip install 'unnoise[{extra}]'" in told


STUDY = (
    *("hydra/sweeper=optuna", "hydra.sweeper.study_name=s", "hydra.sweeper.n_jobs=1"),
    *("hydra.sweeper.storage=sqlite:///outputs/studies.db", "hydra.sweeper.sampler.seed=3"),
    "seed=choice(0,1,2,3,4,5,6,7,8,9,10,11,12)",
)


def trials():
    return optuna.load_study("s", "sqlite:///outputs/studies.db").trials


def test_a_search_keeps_its_study_and_goes_on_with_it(sweep, training):
    status, told, _ = sweep(*STUDY, "hydra.sweeper.n_trials=3", "sweep=status")
    assert status == 0, told
    assert not Path("outputs").exists()
    status, told, summary = sweep(*STUDY, "hydra.sweeper.n_trials=3")
    assert status == 0, told
    first = training.seeds
    assert {trial.value for trial in trials()} == {1 / (1 + seed) for seed in first}
    assert len(summary) == len(set(first)) + 2
    assert "study s in sqlite:///outputs/studies.db" in summary[-1]
    assert sweep(*STUDY, "hydra.sweeper.n_trials=3", "sweep=status")[2] == summary
    again = sweep(*STUDY, f"hydra.sweeper.n_trials={len(set(first))}")
    assert (again[0], again[2][:-1], training.seeds) == (0, summary[:-1], [])
    sweep(*STUDY, f"hydra.sweeper.n_trials={len(set(first)) + 2}")
    assert len(trials()) == len(first) + 2


def test_a_search_tries_again_what_failed_or_was_interrupted(sweep, training):
    class ByNumber(dict):
        def get(self, seed):
            return [None, RuntimeError(), KeyboardInterrupt()][len(training.jobs) - 1]

    training.acts = ByNumber()
    status, _, summary = sweep(*STUDY, "hydra.sweeper.n_trials=4")
    _, failed, interrupted = training.seeds
    assert status == 130
    assert [t.state.name for t in trials()] == ["COMPLETE", "FAIL", "RUNNING"]
    assert sorted(states(summary).values()) == ["failed", "finished", "interrupted"]
    training.acts = {}
    status, _, summary = sweep(*STUDY, "hydra.sweeper.n_trials=3")
    assert (status, training.seeds) == (0, [failed, interrupted])
    names = [t.state.name for t in trials()]
    assert names == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert set(states(summary).values()) == {"finished"}


def test_a_sweeper_of_ones_own_decides_itself_how_much_is_left():
    sweeper = OmegaConf.create({"_target_": "mine.Sweeper", "budget": 5})
    assert search_of(sweeper).go_on(lambda texts: False) is None


def test_a_pruner_without_a_study_is_told(sweep, training):
    status, told, _ = sweep("hparams_search=learning_rate", "hydra.sweeper.storage=null")
    assert (status, training.seeds) == (2, [])
    assert "callbacks.pruning  needs a search with hydra.sweeper.storage" in told


@pytest.mark.parametrize(
    "typed",
    [
        ["seed=1", "-m", "logger=none"],
        ["-m", "seed=1", "--config-dir", ".", "logger=none"],
        ["seed=1", "logger=none", "-m"],
    ],
    ids=" ".join,
)
def test_options_may_stand_among_overrides(typed, training, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *TINY, *typed])
    train.main()
    assert training.seeds == [1]
    assert "1 job: 1 finished" in capsys.readouterr().out


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["one run", "sweep"])
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["hydra.mode=MULTIRUN", "seed=1,2"], "hydra.mode  the command line says which it is"),
        (["--config-path", "."], "--config-path would hide the shipped configs"),
        (["--experimental-rerun", "x.pickle"], "--experimental-rerun reads a pickle"),
    ],
    ids=["mode", "path", "pickle"],
)
def test_what_hydra_would_do_unchecked_is_refused(mode, typed, told, training, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *mode, *TINY, *typed])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert told in f"{stop.value.code} {capsys.readouterr().err}"
    assert training.seeds == []
    assert not Path("outputs").exists()

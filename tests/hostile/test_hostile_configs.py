"""Configs from anyone, in a run, in a folder, in YAML: nothing of them is executed."""

import os
import subprocess
import sys
from logging.config import dictConfig

import pytest
import torch
import yaml
from hydra.types import RunMode
from payloads import TINY, Calls, content

from unnoise.cli import replay, sample, train
from unnoise.config import nodes as config
from unnoise.config.compose import check_command_line, hydra_of
from unnoise.report.reader import read_run
from unnoise.training.check import resume_problems
from unnoise.untrusted import UnsafeFile, load_yaml


def nested(line, times=40):
    """YAML of a few lines that stands for 10^times parts."""
    lines = ["a0: &a0 [x]"] + [line.format(n=n, m=n - 1) for n in range(1, times)]
    return "\n".join(lines)


TEN = "a{n}: &a{n} [" + ",".join(["*a{m}"] * 10) + "]"
YAML = {
    "apply": "seed: !!python/object/apply:os.system ['touch {mark}']",
    "new": "seed: !!python/object/new:os.system ['touch {mark}']",
    "object": "seed: !!python/object:subprocess.Popen {{args: [touch, '{mark}']}}",
    "name": "seed: !!python/name:os.system",
    "module": "seed: !!python/module:os",
    "exec": "seed: !!python/object/apply:builtins.exec [\"open('{mark}', 'w')\"]",
    "key": "? !!python/object/apply:os.system ['touch {mark}']\n: 1",
    "tag": "%TAG ! tag:yaml.org,2002:python/\n---\nseed: !object/apply:os.system ['touch {mark}']",
    "laughs": nested(TEN),
    "merges": "a0: &a0 {{x: 1}}\n" + nested(
        "a{{n}}: &a{{n}} {{{{<<: [{}]}}}}".format(",".join(["*a{m}"] * 10))
    ).split("\n", 1)[1].replace("{", "{{").replace("}", "}}"),
    "itself": "seed: &a [*a]",
    "deep": "seed: " + "[" * 5_000,
    "digits": "seed: " + "9" * 100_000,
    "bytes": "seed: \x00\x01",
}  # fmt: skip


@pytest.fixture
def mark(tmp_path):
    """The file that would be there if anything had been executed."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", YAML)
def test_hostile_yaml_is_refused(name, mark, tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "config.yaml"
    path.write_text(YAML[name].format(mark=mark))
    with pytest.raises(UnsafeFile, match=r"config\.yaml"):
        load_yaml(path)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "time": 1.0}\n')
    (told,) = [p for p in read_run(tmp_path / "run").problems if p.startswith("config.yaml")]
    assert "unreadable" in told


def test_yaml_without_measure_is_refused_and_anchors_are_not(tmp_path):
    (tmp_path / "long.yaml").write_text("a: " + "x" * 2**23)
    with pytest.raises(UnsafeFile, match="more than 4,194,304 bytes"):
        load_yaml(tmp_path / "long.yaml")
    (tmp_path / "good.yaml").write_text("a: &a {b: [1, 2.5, null]}\nc: *a\nd: {<<: *a, e: x}")
    assert load_yaml(tmp_path / "good.yaml")["d"] == {"b": [1, 2.5, None], "e": "x"}


def command(monkeypatch, capsys, main, *arguments):
    """What a command says that ends before anything is run."""
    monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    return " ".join(capsys.readouterr().err.split())


def test_a_run_whose_config_brings_code_is_not_gone_on_with(mark, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save({}, run / "checkpoints" / "step_00000001.ckpt")
    now = {**content()["config"], "resume": str(run)}
    for name, text in {**YAML, "list": "- no config", "text": "no config"}.items():
        (run / "config.yaml").write_text(text.format(mark=mark))
        (problem,) = resume_problems(now)
        assert problem.key == "resume", name
        assert "config.yaml" in problem.message, name


@pytest.mark.parametrize("name", ["apply", "laughs"])
def test_a_run_whose_config_is_hostile_is_not_sent(name, mark, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(YAML[name].format(mark=mark))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "time": 1.0}\n')
    told = command(monkeypatch, capsys, replay.main, tmp_path / "run", "--offline")
    assert "was not sent" in told
    assert "config.yaml" in told


@pytest.mark.slow
def test_a_run_whose_checkpoint_brings_code_is_not_gone_on_with(
    mark, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    run, whole = tmp_path / "run", content()
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(whole["config"]))
    evil = Calls(os.system, f"touch {mark}")
    torch.save({**whole, "callbacks": evil}, run / "checkpoints" / "step_00000001.ckpt")
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *TINY, f"resume={run}"])
    with pytest.raises((SystemExit, UnsafeFile)) as ended:
        train.main()
    told = f"{ended.value} {capsys.readouterr().err}"
    assert "step_00000001.ckpt" in told
    assert "posix system" in told


@pytest.mark.parametrize(
    "key",
    ["run", *(pytest.param(key, marks=pytest.mark.slow) for key in ("weak", "classifier"))],
)
def test_the_command_that_draws_says_what_it_refuses(key, mark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(content(), "good.ckpt")
    torch.save({"config": Calls(os.system, f"touch {mark}")}, "evil.ckpt")
    given = {"run": "good.ckpt", key: "evil.ckpt"}
    more = {"run": [], "weak": ["guidance=2"], "classifier": ["guidance=2", "labels=[0]"]}[key]
    told = command(
        monkeypatch, capsys, sample.main, *(f"{k}={v}" for k, v in given.items()), "n=1", *more
    )
    assert "evil.ckpt names 'posix system'" in told


# What Hydra itself would call

SHELL = {"_target_": "os.system", "command": "touch {mark}"}
HYDRA = {
    "callback": {"callbacks": {"evil": SHELL}},
    "callback by alias": {"callbacks": {"evil": {**SHELL, "_target_": "hydra.utils.os.system"}}},
    "what Hydra's own list of forbidden targets has forgotten": {"callbacks": {"evil": {
        "_target_": "lightning.fabric.utilities.cloud_io._load", "path_or_url": "evil.pkl",
        "weights_only": False}}},
    "nested": {"callbacks": {"evil": {
        "_target_": "hydra.experimental.callbacks.LogJobReturnCallback", "inner": SHELL}}},
    "launcher": {"launcher": {"_target_": "os.system"}},
    "inside the launcher": {"launcher": {"inner": [SHELL]}},
    "sweeper": {"sweeper": {"_target_": "builtins.exec"}},
    "plugin's alias": {"sweeper": {"_target_": "hydra._internal.utils.os.system"}},
    "optuna's alias": {"sweeper": {"sampler": {"_target_": "optuna.samplers._tpe.sampler.os"}}},
    "search space": {"sweeper": {"custom_search_space": "os.system"}},
    "swept": {"sweeper": {"params": {"+hydra.callbacks.evil._target_": "os.system"}}},
    "logging factory": {"job_logging": {"handlers": {"evil": {"()": "os.system",
                                                              "command": "touch {mark}"}}}},
    "logging class": {"hydra_logging": {"handlers": {"evil": {"class": "logging.os.system"}}}},
    "logging value": {"job_logging": {"handlers": {"evil": {
        "class": "logging.StreamHandler", "stream": "ext://subprocess.Popen"}}}},
    "preload": {"job": {"env_set": {"LD_PRELOAD": "/tmp/evil.so"}}},
    "python path": {"job": {"env_set": {"PYTHONPATH": "/tmp"}}},
    "allow": {"job": {"env_set": {"UNNOISE_ALLOW": "os"}}},
    "torch": {"job": {"env_set": {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}}},
    "elsewhere": {"callbacks": "${evil_node}"},
    "made": {"callbacks": "${oc.decode:'{a: {_target_: os.system}}'}"},
    "target elsewhere": {"callbacks": {"evil": {"_target_": "${evil_name}"}}},
    "later": {"callbacks": "${hydra:job.config.evil}"},
    "cloud": {"launcher": {
        "_target_": "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher"}},
    "slurm": {"launcher": {"setup": ["touch {mark}"]}},
    "sbatch": {"launcher": {"additional_parameters": {"prolog": "evil.sh"}}},
    "ray": {"launcher": {"ray": {"init": {"runtime_env": {"py_executable": "evil.sh"}}}}},
}  # fmt: skip


def folder_of(tmp_path, node, mark):
    """A shared folder of configurations with an experiment."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = yaml.safe_dump(
        {"hydra": node, "evil_node": {"a": SHELL}, "evil_name": "os.system"}, sort_keys=False
    )
    path = tmp_path / "conf" / "experiment" / "evil.yaml"
    path.write_text("# @package _global_\n" + text.replace("{mark}", str(mark)))
    return tmp_path / "conf"


@pytest.mark.parametrize("name", HYDRA)
def test_a_shared_folder_cannot_have_hydra_call_anything(name, mark, tmp_path):
    conf = folder_of(tmp_path, HYDRA[name], mark)
    composed, found = check_command_line("train", ["experiment=mnist,evil"], [conf])  # in one job
    assert [problem.key for problem in found] == ["experiment/evil"], found
    assert composed["data"]["_target_"].endswith("MNIST")


FILES = {
    "its own group of Hydra": ("hydra/callbacks/evil.yaml", "evil: {_target_: os.system}"),
    "a package": (
        "experiment/evil.yaml",
        "# @package hydra.callbacks\nevil: {_target_: os.system}",
    ),
    "a whole package": ("experiment/evil.yaml", "# @package _global_.hydra\nmode: MULTIRUN"),
    "a package in its defaults": (
        "experiment/evil.yaml",
        "# @package _global_\ndefaults: [{/logger@hydra.callbacks.evil: wandb}]",
    ),
    "a choice": (
        "experiment/evil.yaml",
        "# @package _global_\ndefaults: [{override /hydra/launcher: ray_aws}]",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_shared_folder_has_no_files_for_hydra(name, tmp_path):
    path, text = FILES[name]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    chosen = f"{path.rpartition('/')[0]}=evil"
    for more, folders in ([], [tmp_path]), ([f"hydra.searchpath=[{tmp_path}]"], []):
        _, found = check_command_line("train", [chosen, *more], folders)
        assert [problem.key for problem in found] == [path.removesuffix(".yaml")], found


def test_a_primary_config_of_ones_own_searches_nowhere_else(mark, tmp_path):
    package = "pkg://antigravity"  # to look there would import it
    (tmp_path / "mine.yaml").write_text(f"defaults: [train]\nhydra: {{searchpath: ['{package}']}}")
    _, found = check_command_line("mine", [], [tmp_path])
    assert [problem.key for problem in found] == ["mine"]
    assert "antigravity" not in sys.modules


def test_a_job_is_composed_without_what_a_shared_folder_has_for_hydra(mark, tmp_path):
    conf = folder_of(tmp_path, HYDRA["callback"] | {"launcher": {"_target_": "os.system"}}, mark)
    with hydra_of([conf]) as hydra:
        node = hydra.compose_config("train", ["experiment=evil"], RunMode.RUN).hydra
    assert "evil" not in (node.callbacks or {})
    assert node.launcher._target_.startswith("hydra._internal")


def test_the_logging_that_is_refused_would_have_been_called(tmp_path):
    mark = tmp_path / "executed"
    factory = {"()": "os.system", "command": f"touch {mark}"}
    with pytest.raises(ValueError, match="evil"):  # what os.system returns is no handler
        dictConfig({"version": 1, "handlers": {"evil": factory}})
    assert mark.exists()


@pytest.mark.parametrize("asked", [["-m"], ["--cfg", "job"], ["--info", "all"], ["--hydra-help"]])
def test_the_command_stops_before_hydra_starts(asked, mark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    conf = folder_of(tmp_path, HYDRA["callback"] | HYDRA["logging factory"], mark)
    arguments = ["experiment=evil", "--config-dir", conf, *asked]
    told = command(monkeypatch, capsys, train.main, *arguments)
    assert "experiment/evil" in told
    assert "the key hydra" in told


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["hydra/launcher=joblib"],
        ["hydra/launcher=submitit_slurm"],
        ["hydra/launcher=slurm"],
        ["hydra/launcher=slurm", "hydra.launcher.setup=['module load cuda']"],
        ["hydra/launcher=slurm", "+hydra.launcher.additional_parameters.mail-type=BEGIN"],
        ["hydra/sweeper=optuna"],
        ["hydra/job_logging=default", "hydra/hydra_logging=default"],
        ["+hydra.callbacks.told._target_=hydra.experimental.callbacks.LogJobReturnCallback"],
        ["+hydra.job.env_set.OMP_NUM_THREADS=1"],
    ],
)
def test_hydra_s_own_plugins_are_allowed(overrides):
    _, found = check_command_line("train", overrides)
    assert found == []


def test_yaml_in_a_shared_folder_makes_no_objects(mark, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name in ("apply", "key"):
        (tmp_path / "conf" / "experiment" / "evil.yaml").write_text(YAML[name].format(mark=mark))
        _, found = check_command_line("train", ["experiment=evil"], [tmp_path / "conf"])
        assert found, name


def test_the_users_list_is_for_packages_of_his_own():
    code = (
        "from unnoise.config.nodes import USERS_PACKAGES, ConfigError, resolve_target\n"
        "assert USERS_PACKAGES == ('mine',), USERS_PACKAGES\n"
        "for target in ('os.popen', 'subprocess.Popen', 'torch.load', 'torch.hub.load'):\n"
        "    try: resolve_target(target)\n"
        "    except ConfigError as error: assert 'packages of your own' in str(error), error\n"
        "    else: raise SystemExit(target)\n"
    )
    allowed = "os,torch,builtins,subprocess,torch.hub,unnoise,mine"
    environment = {**os.environ, "UNNOISE_ALLOW": allowed}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_every_package_unnoise_needs_is_nobody_s_own():
    for name in ("torch", "lightning", "hydra", "omegaconf", "numpy", "os", "builtins", "pickle"):
        assert name in config.NOBODYS

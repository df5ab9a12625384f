import functools
import importlib
import os
import subprocess
import sys
import textwrap
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from unnoise.config import nodes as config
from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import ConfigError, Problem, report


@pytest.fixture
def wing(monkeypatch, tmp_path):
    """A module of unnoise.networks with a class, a function, and things it merely imports."""
    (tmp_path / "wing_under_test.py").write_text(
        textwrap.dedent(
            """
            import functools, os, subprocess, sys
            import torch
            from pathlib import Path
            from os import system
            from torch import load

            class Net:
                def __init__(self, width=1, inner=None):
                    self.width, self.inner = width, inner
                @classmethod
                def make(cls):
                    return cls()
                class Inner: pass

            def double(x): return 2 * x

            ready = functools.partial(os.system, "true")
            instance = Net()
            nameless = lambda: os.system("true")
            @functools.wraps(double)
            def impostor(*a): return os.system(*a)
            """
        )
    )
    package = importlib.import_module("unnoise.networks")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield "unnoise.networks.wing_under_test"
    sys.modules.pop("unnoise.networks.wing_under_test", None)
    package.__dict__.pop("wing_under_test", None)


@pytest.fixture
def sentinel(monkeypatch, tmp_path):
    """A shell command that leaves a file; the test fails if anything ran it or loaded code."""
    mark = tmp_path / "executed"
    for module, name in [
        (os, "system"),
        (subprocess, "Popen"),
        (torch, "load"),
        (torch.hub, "load"),
    ]:
        real = getattr(module, name)
        spy = functools.wraps(real)(lambda *a, **k: mark.write_text("called"))
        monkeypatch.setattr(module, name, spy)
    yield f"touch {mark}"
    assert not mark.exists()


HOSTILE = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "subprocess.Popen",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "torch.optim.adam.torch.load",
    "torch.optim.Adam.__init__",
    "torch.nn.Module",
    "functools.partial",
    "importlib.import_module",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "lightning.pytorch.trainer.trainer.os.system",
    "unnoise.os.system",
    "unnoise.__builtins__",
    "unnoise.__builtins__.eval",
    "unnoise.networks.__builtins__.eval",
    "unnoise.networks.__loader__.load_module",
    "unnoise.config.nodes.resolve_target",
    "unnoise.config.nodes.instantiate",
    "unnoise.config.nodes.importlib.import_module",
    "unnoise.config.schema.built",
    "unnoise.data.stream.torch.load",
    "unnoise.data.stream.torch.hub.load",
    "unnoise.data.stream.DataLoader",
    "unnoise.data.stream.training_loader",
    "unnoise.data.stream.np.load",
    "unnoise.data.downloads.fetch",
    "unnoise.training.callbacks.checkpoints.step_of",
    "lightning.pytorch.loggers.WandbLogger",
    "unnoise.networks/../../evil.X",
    "unnoise.networks..unet.UNet",
    ".unnoise.networks.unet.UNet",
    "unnoise.networks.unet.UNet\n",
    "unnoise.networksevil.X",
    "unnoise",
    "eval",
    "",
    "???",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused_and_nothing_is_called(target, sentinel):
    for node in (
        {"_target_": target, "command": sentinel},
        {"_target_": target, "_partial_": True, "command": sentinel},
        {"deep": [{"_target_": target}]},
    ):
        with pytest.raises(ConfigError):
            instantiate(node)


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "os", "system", "subprocess.Popen", "torch.load", "load", "torch", "Path"),
        *("sys.modules", "ready", "instance", "nameless", "impostor", "Net.make", "Net.Inner"),
        *("Net.__init__", "Net.__class__", "double.__globals__", "functools.partial"),
    ],
)
def test_what_an_allowed_module_imports_or_holds_is_refused(wing, name, sentinel):
    with pytest.raises(ConfigError):
        instantiate({"_target_": f"{wing}.{name}"})


def test_partial_of_a_forbidden_target_is_refused_before_its_arguments_are_built(wing):
    built = []
    module = importlib.import_module(wing)
    module.Net.__init__ = lambda self, **_: built.append(self)
    with pytest.raises(ConfigError):
        instantiate(
            {"_target_": "functools.partial", "func": {"_target_": f"{wing}.Net"}, "x": "true"}
        )
    assert built == []


def test_modules_outside_the_allow_list_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "strange_package.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="strange_package"):
        resolve_target("strange_package.Thing")
    assert "strange_package" not in sys.modules


@given(st.lists(st.text("abcXYZ_019./- \n", max_size=8), min_size=1, max_size=4).map(".".join))
def test_no_made_up_path_resolves(path):
    with pytest.raises(ConfigError):
        resolve_target(path)


@pytest.mark.parametrize("path", [None, 3, ["os.system"], {"_target_": "os.system"}])
def test_a_target_that_is_no_string_is_refused(path):
    with pytest.raises(ConfigError, match="dotted path"):
        resolve_target(path)


@pytest.mark.parametrize("path", config.EXTERNAL)
def test_every_external_target_exists(path):
    module, _, name = path.rpartition(".")
    assert resolve_target(path) is getattr(importlib.import_module(module), name)


def test_an_external_name_that_became_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", subprocess.Popen)
    with pytest.raises(ConfigError, match="allow-list"):
        resolve_target("torch.optim.Adam")


def test_own_classes_and_functions_resolve(wing):
    module = importlib.import_module(wing)
    assert resolve_target(f"{wing}.Net") is module.Net
    assert resolve_target(f"{wing}.double") is module.double


def test_users_packages_are_allowed_by_name_and_only_their_own_objects(monkeypatch):
    mine = types.ModuleType("my_models")
    exec("class Net: pass\nimport os\nfrom subprocess import Popen", mine.__dict__)
    monkeypatch.setitem(sys.modules, "my_models", mine)
    with pytest.raises(ConfigError, match="UNNOISE_ALLOW"):
        resolve_target("my_models.Net")
    monkeypatch.setattr(config, "USERS_PACKAGES", ("my_models",))
    assert resolve_target("my_models.Net") is mine.Net
    for path in ("my_models.Popen", "my_models.os.system", "my_modelsx.Net"):
        with pytest.raises(ConfigError):
            resolve_target(path)


def test_the_environment_variable_is_read_once_and_cannot_open_the_cli():
    code = (
        "import os; from unnoise.config import nodes as config; os.environ['UNNOISE_ALLOW'] = 'os';"
        "print(config.USERS_PACKAGES)"
    )
    environment = {**os.environ, "UNNOISE_ALLOW": "mine, yours.models,,unnoise,unnoise.cli"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "('mine', 'yours.models')"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torch.optim.Adamw", "did you mean 'torch.optim.AdamW'?"),
        ("unnoise.networks.wing_under_tst.Net", "no module .*; did you mean 'wing_under_test'?"),
        ("unnoise.networks.wing_under_test.Nett", "has no 'Nett'; did you mean 'Net'?"),
        ("unnoise.networks.wing_under_test.syste", "has no 'syste'$"),  # never what is refused
        ("unnoise.network.unet.UNet", "did you mean 'unnoise.networks'?"),
        ("my_own.Net", "'my_own.Net' is not on the allow-list; .*set UNNOISE_ALLOW to its name"),
        ("os.system", "'os.system' is not on the allow-list; .*UNNOISE_ALLOW .* does not open"),
    ],
)
def test_a_refusal_says_what_would_be_right(wing, path, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        resolve_target(path)


def test_a_missing_dependency_is_named(monkeypatch, tmp_path):
    package = importlib.import_module("unnoise.networks")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    (tmp_path / "needy.py").write_text("import no_such_dependency")
    with pytest.raises(ConfigError, match="needs the package 'no_such_dependency'"):
        resolve_target("unnoise.networks.needy.Net")


def test_instantiate_builds_inner_nodes_lists_and_partials(wing):
    net = instantiate(
        {
            "_target_": f"{wing}.Net",
            "width": 3,
            "inner": [{"_target_": f"{wing}.Net"}, {"plain": {"_target_": f"{wing}.Net"}}, None],
        }
    )
    assert (net.width, net.inner[0].width, net.inner[1]["plain"].width) == (3, 1, 1)
    half = instantiate({"_target_": f"{wing}.Net", "_partial_": True, "width": 5})
    assert isinstance(half, functools.partial)
    assert half().width == 5
    assert instantiate({"_target_": f"{wing}.Net", "_partial_": False}).width == 1


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_", "__class__"])
def test_other_reserved_keys_are_refused(wing, key):
    with pytest.raises(ConfigError, match=key):
        instantiate({"_target_": f"{wing}.Net", key: []})


@pytest.mark.parametrize("made", [{"a": 1}, [1]])
def test_only_plain_containers_are_taken(made):
    with pytest.raises(TypeError, match="plain"):
        instantiate({"inner": OmegaConf.create(made)})


def test_values_pass_unchanged():
    tree = {"a": [1, 2.5, None, True, "x"], "b": {}, "c": torch.float16}
    assert instantiate(tree) == tree


def test_a_report_lists_errors_then_warnings():
    text = report(
        [
            Problem("ema.decay", "longer than\n   training", severity="warning"),
            Problem("network.chanels", "unknown key; did you mean 'channels'?"),
            Problem("data=mnistt", "no such option"),
        ]
    )
    assert text.splitlines() == [
        "2 problems in the configuration; nothing was run:",
        "  network.chanels  unknown key; did you mean 'channels'?",
        "  data=mnistt      no such option",
        "1 warning in the configuration:",
        "  ema.decay        longer than training",
    ]
    assert report([]) == ""
    assert str(Problem("a.b", "is wrong")) == "a.b: is wrong"


def test_importing_the_checks_loads_no_heavy_package():
    code = (
        "import sys, unnoise.config.schema;"
        "print([m for m in ('torch', 'lightning', 'pydantic', 'hydra') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("unnoise.training.callbacks.samples.SampleGird", "did you mean 'SampleGrid'[?]"),
        ("unnoise.training.callbacks.sample.SampleGrid", "there is no module"),
        ("unnoise.training.callbacks.samples.Path", "is not on the allow-list"),
        ("unnoise.training.callbacks.progress.torch", "has no 'torch'"),
        ("lightning.pytorch.callbacks.Callback", "is not on the allow-list"),
        ("lightning.Fabric", "is not on the allow-list"),
    ],
)
def test_what_is_for_lightning_stands_behind_the_same_allow_list(path, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve_target(path)

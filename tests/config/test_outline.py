"""What is read from source files is what importing them would have said."""

import inspect
import subprocess
import sys

import pytest
import yaml

from unnoise.config import outline
from unnoise.config.compose import CONF
from unnoise.config.nodes import resolve_target
from unnoise.config.outline import SLOW, Unread
from unnoise.config.problems import ConfigError
from unnoise.config.schema import parameters
from unnoise.config.values import describe


def targets(tree):
    if isinstance(tree, dict):
        yield from [tree["_target_"]] if "_target_" in tree else []
        for value in tree.values():
            yield from targets(value)


SHIPPED = sorted(
    {
        target
        for path in CONF.rglob("*.yaml")
        for target in targets(yaml.safe_load(path.read_text()))
        if target.startswith(SLOW)
    }
)


def read(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(outline, "sys", type("sys", (), {"modules": {}}))
        return outline.declared(path)


@pytest.mark.parametrize("path", SHIPPED)
def test_a_signature_that_is_read_is_the_real_one(path, monkeypatch):
    real, found = resolve_target(path), read(path, monkeypatch)
    assert found is not real
    assert (found.__module__, found.__name__) == (real.__module__, real.__name__)
    assert inspect.isclass(found) == inspect.isclass(real)
    one, other = parameters(found), parameters(real)
    assert list(one) == list(other)
    for name, parameter in one.items():
        assert parameter.default == other[name].default, name
        if isinstance(other[name].annotation, type):
            hint = parameter.annotation.read()
            assert describe(hint) == describe(other[name].annotation), name


def test_ranges_and_kinds_are_read_too(monkeypatch):
    found = read("unnoise.training.callbacks.samples.SampleGrid", monkeypatch)
    hints = {name: each.annotation for name, each in parameters(found).items()}
    assert all(isinstance(hint, Unread) for hint in hints.values())
    assert hints["sampler"].read().__name__ == "Sampler"
    assert "ge=1" in repr(hints["every"].read())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("unnoise.training.callbacks.samples.SampleGird", "did you mean 'SampleGrid'?"),
        ("unnoise.training.callbacks.sample.SampleGrid", "there is no module"),
        ("unnoise.training.callbacks.samples.Path", "is not on the allow-list"),
        ("unnoise.training.callbacks.samples.torch", "has no 'torch'"),
        ("lightning.pytorch.callbacks.Callback", "is not on the allow-list"),
        ("lightning.Fabric", "is not on the allow-list"),
    ],
)
def test_what_is_read_stands_behind_the_same_allow_list(path, told, monkeypatch):
    with pytest.raises(ConfigError, match=told.replace("?", "[?]")):
        read(path, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "not_imported"),
    [
        (["--help"], ["torch", "lightning"]),
        (["callbacks.samples.every=0", "trainer.devices=x", "seed=y"], ["lightning", "scipy"]),
        (["smapler=ddim"], ["lightning", "transformers"]),
    ],
)
def test_an_answer_does_not_wait_for_imports(arguments, not_imported, tmp_path):
    code = (
        "import sys\nfrom unnoise.cli.train import main\n"
        f"sys.argv = {['unnoise-train', *arguments]!r}\n"
        "try: main()\nexcept SystemExit as end: print(end.code, file=sys.stderr)\n"
        f"print([name for name in {not_imported!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    status, imported = done.stderr.splitlines()[-2:]
    assert (status, imported) == ("0" if arguments == ["--help"] else "2", "[]"), done.stderr
    assert done.stderr.count("in the configuration") == (arguments != ["--help"])

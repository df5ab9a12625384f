"""The wheel has all that the commands need, and nothing else; the sdist what tests need, too."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT = {".pyc", ".pyo"}


def test_each_command_has_an_entry_point_and_a_help_that_is_tried():
    from cli.test_help import COMMANDS

    assert {f"unnoise-{each}" for each in COMMANDS} == set(PROJECT["scripts"])


def test_extras_for_developers_are_all_but_the_peers():
    (all_of,) = (each for each in PROJECT["optional-dependencies"]["dev"] if "unnoise[" in each)
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "peers"}
    assert set(all_of.removeprefix("unnoise[").rstrip("]").split(",")) == extras


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True)
    return folder


def files_of(folder, below=""):
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {below + str(p.relative_to(ROOT / folder)) for p in found if p.suffix not in LEFT}


@pytest.mark.slow
def test_the_wheel_has_package_and_configs(built, tmp_path):
    (path,) = built.glob("*.whl")
    assert path.name == f"unnoise-{PROJECT['version']}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(tmp_path)
    wanted = files_of("src/unnoise", "unnoise/") | files_of("conf", "unnoise/conf/")
    assert names == wanted
    away = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name, target in PROJECT["scripts"].items():
        module = target.partition(":")[0]
        start = f"import sys, {module} as it; sys.argv[1:] = ['--help']; it.main()"
        done = subprocess.run(
            [sys.executable, "-c", start], env=away, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (name, done.stderr)
        assert name in done.stdout.partition("\n")[0]


@pytest.mark.slow
def test_the_sdist_has_what_its_tests_read(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    kept = {name for name in git.stdout.splitlines() if not name.startswith((".", "outputs/"))}
    assert kept <= names | {"outputs/.gitkeep"}

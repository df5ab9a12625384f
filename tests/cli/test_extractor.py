"""unnoise-extractor as a user types it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.cli import extractor
from unnoise.data.folders import ImageFolder
from unnoise.evaluation.extractors.domain import DomainExtractor
from unnoise.evaluation.extractors.find import find_extractor

TINY = ["data=sprites", "data.size=90", "data.validation_size=30", "steps=3"]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-extractor", *arguments])
    extractor.main()


def test_it_trains_writes_and_tells_what_and_where(monkeypatch, capsys):
    command(monkeypatch, *TINY)
    (path,) = Path("outputs/extractors").iterdir()
    found = DomainExtractor.load(path)
    assert found.name == "sprites"
    printed = capsys.readouterr().out
    assert f"{len(found.learned.classes)} classes, 3 steps" in printed
    assert f"accuracy   {found.learned.accuracy:.1%}" in printed
    assert f"size       {path.stat().st_size / 1000:.0f} kB" in printed
    assert f"digest     {found.digest}" in printed
    assert f"extractor  {path}" in printed


def test_the_same_command_gives_the_same_file(monkeypatch):
    for folder in ("a", "b"):
        torch.rand(3)
        command(monkeypatch, *TINY, f"out={folder}")
    command(monkeypatch, *TINY, "seed=1", "out=c")
    (a,), (b,), (c,) = (list(Path(folder).iterdir()) for folder in "abc")
    assert a.name == b.name != c.name
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()


@pytest.mark.parametrize(
    ("size", "read", "places"),
    [(40, 32, 8 * 8), ([48, 72], (21, 32), 6 * 8), ([8, 16], (8, 16), 2 * 4)],
)
def test_ones_own_pictures_get_an_extractor_that_can_be_named(monkeypatch, size, read, places):
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = Path("pets") / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(256, size=(40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    command(monkeypatch, "data=image_folder", "data.root=pets", f"data.image_size={size}",
            "name=pets", "steps=2", "out=out")  # fmt: skip
    (path,) = Path("out").iterdir()
    source = ImageFolder("pets", size)
    found = find_extractor(str(path), source, torch.device("cpu"))
    assert (found.name, found.learned.classes) == ("pets", ("cat", "dog"))
    assert found.learned.size == read
    pictures = source.images("validation").read(torch.arange(2))
    assert found(pictures).spatial.shape == (2, 8 * places)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=image_folder"], "data.root  missing: give it as data.root=..."),
        (["data=mnist", "data.root=nowhere"], "data.root nowhere is not a folder"),
        (["data=image_folder", "data.root=pictures"], "its pictures have no classes"),
        (["data=image_folder", "data.root=pictures"], "as in name=pets"),
        (["data=sprites", "name=inception"], "inception has a meaning of its own"),
        (["data=sprites", "name=My-pets"], "'My-pets' is to become a part of fd_My-pets"),
        (["data=sprites", "steps=0"], "steps  must be >= 2"),
        (["data=sprites", f"out={__file__}"], "is a file, not a folder"),
        (["data=sprites", "data.size=${nope}"], "refers to 'nope', which does not exist"),
        (["data=sprites", "nme=pets"], "did you mean 'name'?"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(overrides, told, monkeypatch, capsys):
    Path("pictures").mkdir()
    Image.new("RGB", (8, 8)).save("pictures/one.png")
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *overrides)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["pictures"]


def test_help_names_every_key(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, "--help")
    printed = capsys.readouterr().out
    for key in ("data", "name", "seed", "steps", "out"):
        assert f"\n  {key} " in printed

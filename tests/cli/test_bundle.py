"""Bundles: a run in one folder, which loads without its data and checks itself."""

import json
import os
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from commands import command
from PIL import Image
from untrained import make_run

import unnoise
from unnoise.cli import evaluate, export, importer, sample
from unnoise.files import write_with_digest
from unnoise.runs.first_stage import first_stage
from unnoise.untrusted import UnsafeFile

LABELS = ["conditioning=class"]


def bundled(monkeypatch, run, folder, *arguments):
    command(monkeypatch, export.main, f"run={run}", "to=bundle", f"folder={folder}", *arguments)
    return folder


def test_a_bundle_is_the_run_without_its_data(tmp_path, monkeypatch, capsys):
    pictures = tmp_path / "pictures"
    for kind in ("a", "b"):
        (pictures / kind).mkdir(parents=True)
        for k in range(12):
            pixels = np.random.default_rng(k).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(pictures / kind / f"{k}.png")
    run = make_run(tmp_path / "run", "data=image_folder", f"data.root={pictures}",
                   "data.image_size=16", "data.classes=2", "conditioning=class")  # fmt: skip
    folder = bundled(monkeypatch, run, tmp_path / "bundle", "sampler=ddpm", "steps=30")
    assert "it draws the same picture 0" in capsys.readouterr().out
    there = shutil.move(folder, tmp_path / "elsewhere")
    expected = unnoise.load(run, device="cpu").sample(3, labels=[1], steps=5)
    shutil.rmtree(pictures)
    shutil.rmtree(run)
    model = unnoise.load(there, device="cpu")
    assert capsys.readouterr().err == ""
    assert model.sampler.steps == 30
    assert type(model.sampler.stepper).__name__ == "Ancestral"
    found = model.sample(3, labels=[1], steps=5, sampler=unnoise_ddim(model))
    assert torch.equal(found.pixels, expected.pixels)
    kinds = (".json", ".yaml", ".md")
    said = "".join(path.read_text() for path in there.rglob("*") if path.suffix in kinds)
    assert str(tmp_path) not in said
    names = {path.name for path in there.iterdir()}
    assert {"README.md", "samples.png", "picture_0.png", "model.safetensors", "bundle.json",
            "SHA256SUMS"} <= names  # fmt: skip
    command(monkeypatch, sample.main, f"run={there}", "n=2", "labels=[0]", "steps=3")
    assert "grid" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="not in this bundle"):
        _ = model.validation


def unnoise_ddim(model):
    from unnoise.diffusion.denoiser import Clip
    from unnoise.diffusion.samplers import DDIM, Sampler

    return Sampler(DDIM(), steps=4, threshold=Clip())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        return bundled(patch, make_run(folder / "run"), folder / "bundle")


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_commands_take_it_for_a_run(copy, monkeypatch, capsys):
    command(monkeypatch, evaluate.main, f"run={copy}", "n=10", "batch_size=10", "metrics=[fd]",
            "reference_count=30", "device=cpu", "controls=false", "steps=[2]")  # fmt: skip
    assert (copy / "evaluation").is_dir()
    with pytest.raises(ValueError, match="is not the run of an autoencoder"):
        first_stage(copy)
    with pytest.raises(UnsafeFile, match="only their average"):
        unnoise.load(copy, averaged=False)


def test_a_picture_that_differs_is_told_with_the_likely_reason(copy, capsys):
    from safetensors.torch import load_file, save_file

    for by, says in ((1, "rounding; it was drawn on"), (40, "the weights, the config or the code")):
        kept = load_file(copy / "pictures.safetensors")
        changed = kept["picture"].short() + by
        changed = torch.where(changed > 255, kept["picture"].short() - by, changed)
        write_with_digest(
            copy / "pictures.safetensors",
            lambda path, kept=kept, changed=changed: save_file(
                kept | {"picture": changed.to(torch.uint8)}, path
            ),
        )
        unnoise.load(copy, device="cpu")
        error = capsys.readouterr().err
        assert "picture 0 differs from the bundle's in 100.0% of its numbers" in error
        assert says in error


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: os.truncate(f / "model.safetensors", 500), "no whole safetensors file"),
        (lambda f: (f / "model.safetensors").unlink(), "is not whole: there is no model.safetens"),
        (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS is gone"),
        (lambda f: edit(f, lambda about: about["config"].update(seed=7)), "it was changed"),
        (lambda f: edit(f, lambda about: about.update(layout=1), True), "another version"),
        (lambda f: edit(f, lambda about: about.pop("config"), True), "is not a whole checkpoint"),
    ],
)
def test_a_bundle_that_was_changed_is_refused(harm, says, copy, monkeypatch, capsys):
    harm(copy)
    with pytest.raises((UnsafeFile, FileNotFoundError), match=says):
        unnoise.load(copy)
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, sample.main, f"run={copy}", "n=1")
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def edit(folder, change, noted=False):
    path = folder / "bundle.json"
    about = json.loads(path.read_text())
    change(about)
    if noted:
        write_with_digest(path, lambda path: path.write_text(json.dumps(about)))
    else:
        path.write_text(json.dumps(about))


class Hub:
    """A hub in a folder."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def create_repo(self, name, **options):
        self.asked.append((name, options))

    def upload_folder(self, folder_path, repo_id):
        shutil.copytree(folder_path, self.root / repo_id)

    def download(self, name, allow_patterns):
        assert not any(pattern.endswith(("bin", "py", "pt", "ckpt")) for pattern in allow_patterns)
        if not (self.root / name).is_dir():
            raise OSError(f"404: {name}\nmore")
        return str(self.root / name)


def test_to_the_hub_and_from_it(tmp_path, monkeypatch, capsys):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    run = make_run(tmp_path / "run")
    bundled(monkeypatch, run, tmp_path / "bundle", "push=somebody/tiny")
    assert hub.asked == [("somebody/tiny", {"private": True, "exist_ok": True})]
    assert "hf://somebody/tiny" in capsys.readouterr().out
    one, two = unnoise.load("hf://somebody/tiny", device="cpu"), unnoise.load(run, device="cpu")
    assert torch.equal(one.sample(2).pixels, two.sample(2).pixels)
    with pytest.raises(ValueError, match="hf://somebody/else cannot be fetched: OSError: 404"):
        unnoise.load("hf://somebody/else")
    with pytest.raises(SystemExit):
        command(monkeypatch, importer.main, "folder=hf://somebody/else", f"out={tmp_path}/out")
    assert "cannot be fetched" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bundled(monkeypatch, run, tmp_path / "other", "push=nowhere")
    assert "'nowhere' is no repository: give user/name" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["conditioning=sketch", "conditioning=text"])
def test_prompts_of_picture_0_are_in_it(way, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", way)
    folder = bundled(monkeypatch, run, tmp_path / "bundle")
    unnoise.load(folder, device="cpu")
    assert capsys.readouterr().err == ""

"""Bundles: a run in one folder, which loads without its data and checks itself."""

import json
import os
import shutil
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from commands import command
from PIL import Image
from untrained import FEW, TINY, make_run

import unnoise
from unnoise.cli import evaluate, export, importer, sample, train
from unnoise.files import SUMS, file_digest, write_with_digest
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


@pytest.mark.parametrize("typed", ["run=hf://user/tiny", "run=hf://user/tiny weak=hf://user/tiny"])
def test_a_command_takes_a_run_of_the_hub(typed, bundle, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda name, **_: asked.append(name) or str(bundle))  # fmt: skip
    more = f"n=1 steps=2 guidance=2 out={tmp_path}/o".split()
    command(monkeypatch, sample.main, *typed.split(), *(more if "weak" in typed else more[:2]))
    assert set(asked) == {"user/tiny"}
    assert "grid" in capsys.readouterr().out


def test_lists_of_them_too_but_nothing_else_is_fetched(monkeypatch):
    from unnoise.cli.typed import typed

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: f"/hub ({name})")
    words = ["run=[hf://a/b,hf://c/d,e]", "from=hf://f/g", "folder=hf://h/i", "out=hf://j/k"]
    monkeypatch.setattr(sys, "argv", ["unnoise", *words])
    run, start, of, *others = typed().overrides
    assert run == r"run=[/hub\ \(a/b\),/hub\ \(c/d\),e]"
    assert (start, of) == ("initial=run", r"initial.run=/hub\ \(f/g\)")
    assert others == words[2:]
    monkeypatch.setattr(sys, "argv", ["unnoise", "--cfg", "job", words[0]])
    assert typed().overrides == words[:1]


def test_what_cannot_be_fetched_is_a_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(tmp_path).download)
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, sample.main, "run=hf://user/none", "n=1")
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "run: hf://user/none cannot be fetched: OSError: 404: user/none\n"
    )


def test_a_bundle_is_not_resumed_but_started_from(copy, tmp_path, monkeypatch, capsys):
    few = ["data=sprites", *FEW, "trainer=cpu", "logger=none", *TINY, "max_steps=2"]
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, train.main, *few, f"resume={copy}")
    assert stop.value.code == 2
    lacks = f"{copy} is a bundle, and has no state of an optimizer to go on with"
    assert f"{lacks}: start from its weights by from={copy}" in capsys.readouterr().err
    assert not (copy / "checkpoints").exists()
    few += ["validation_images=8", "callbacks.samples.count=4", "precision=fp32"]
    command(monkeypatch, train.main, *few, f"from={copy}", f"hydra.run.dir={tmp_path}/on")
    assert (tmp_path / "on" / "checkpoints" / "step_00000002.ckpt").is_file()


def test_each_file_of_a_bundle_has_its_digest(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    command(monkeypatch, evaluate.main, f"run={run}", "n=10", "batch_size=10", "metrics=[fd]",
            "reference_count=30", "device=cpu", "controls=false", "steps=[2]")  # fmt: skip
    folder = bundled(monkeypatch, run, tmp_path / "bundle")
    shown = {"README.md", "samples.png", SUMS}
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in shown]
    assert {path.parent.name for path in kept} == {"bundle", "evaluation"}
    for path in kept:
        noted = (path.parent / SUMS).read_text().splitlines()
        assert f"{file_digest(path)}  {path.name}" in noted

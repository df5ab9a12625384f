"""An autoencoder is trained, resumed, drawn from, evaluated and reported by the same commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command, trained
from PIL import Image

import unnoise
from unnoise.cli import evaluate, figure, report, sample, train
from unnoise.networks.autoencoders import Reconstruction
from unnoise.report.page.table import number

TINY = (
    "trainer=cpu logger=none data.size=80 data.validation_size=20 batch_size=8 network.channels=4 "
    "network.blocks=1 callbacks.samples.count=4 callbacks.samples.every=2 "
    "callbacks.checkpoints.every=2 validate_every=2 validation_images=8 seed=3 precision=fp32"
).split()
PATCHES = "{_target_: unnoise.networks.adversarial.PatchDiscriminator, channels: 4, layers: 1}"
QUALITY = (
    "{_target_: unnoise.training.callbacks.quality.Quality, count: 40, reference_count: 40, "
    "metrics: [fd], sampler: {_target_: unnoise.networks.autoencoders.Reconstruction}}"
)
KL = ["experiment=sprites_kl", *TINY]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("kl") / "run", *KL)


def test_grids_and_metrics_are_written_while_it_trains(run):
    names = {path.name for path in (run / "samples").iterdir()}
    assert names == {"step_00000002.png", "step_00000004.png", "training.gif"}
    with Image.open(run / "samples" / "training.gif") as animation:
        assert animation.n_frames == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    found = [row for row in rows if "validation/loss" in row]
    assert [row["step"] for row in found] == [2, 4]
    assert all(row["validation/kl_bits"] > 0 for row in found)


def test_sample_n_is_the_reconstruction_of_validation_picture_n(run, monkeypatch, tmp_path):
    command(monkeypatch, sample.main, f"run={run}", "n=5", "first=15", f"out={tmp_path}/drawn")
    array = np.load(tmp_path / "drawn" / "images.npz")["arr_0"]
    model = unnoise.load(run, device="cpu")
    pictures = model.validation.read(torch.arange(15, 20))
    x = pictures.float() / 127.5 - 1
    with torch.no_grad():
        y = model.model.autoencoder.decode(model.model.autoencoder.posterior(x).mean)
    expected = ((y.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(array - expected).max() <= 1
    drawn = model.sample(5, first=15)
    assert torch.equal(drawn.prompts, pictures)
    far = (drawn.pixels.int() - pictures.int()).abs()
    assert torch.equal(drawn.difference, (4 * far).clamp(max=255).byte())
    assert drawn.grid(columns=1).height > 3 * 16
    assert drawn[1:3].difference.shape == (2, 3, 16, 16)
    one, other = (model.sample(3, seed=s, sampler=Reconstruction(drawn=True)) for s in (0, 1))
    assert not torch.equal(one.pixels, other.pixels)
    again = model.sample(2, first=1, seed=0, sampler=Reconstruction(drawn=True), batch_size=1)
    assert (one.pixels[1:].int() - again.pixels.int()).abs().max() <= 1


def test_pictures_of_one_s_own_are_reconstructed(run, monkeypatch, tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "mine.png")
    command(monkeypatch, sample.main, f"run={run}", "n=1", f"images=[{tmp_path}/mine.png]",
            "sampler=reconstruction", f"out={tmp_path}/drawn")  # fmt: skip
    array = np.load(tmp_path / "drawn" / "images.npz")["arr_0"]
    given = torch.from_numpy(picture).permute(2, 0, 1)[None]
    expected = unnoise.load(run, device="cpu").sample(1, images=given).nhwc()
    assert np.abs(array.astype(int) - expected).max() <= 1


def test_it_is_resumed(run, monkeypatch, tmp_path):
    folder = tmp_path / "part"
    command(monkeypatch, train.main, *KL, "max_steps=4", "lr_decay=constant",
            f"hydra.run.dir={tmp_path / 'whole'}")  # fmt: skip
    for steps, resume in ((2, "false"), (4, folder)):
        command(monkeypatch, train.main, *KL, f"max_steps={steps}", "lr_decay=constant",
                f"hydra.run.dir={folder}", f"resume={resume}")  # fmt: skip
    file = "checkpoints/step_00000004.ckpt"
    one, two = (torch.load(tmp_path / n / file, weights_only=True) for n in ("part", "whole"))
    states = one["state_dict"], two["state_dict"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    family = "unnoise.models.autoencoder.AutoencoderModel"
    assert one["model"] == {"family": family, "shape": [3, 16, 16]}


def test_it_is_evaluated_and_reported(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    command(monkeypatch, evaluate.main, f"run={run}", "n=20", "metrics=[fd]",
            "reference=validation", "device=cpu")  # fmt: skip
    assert "reconstruction" in capsys.readouterr().out
    (results,) = (run / "evaluation").glob("*.json")
    scores = {s["name"]: s for s in json.loads(results.read_text())["scores"]}
    assert scores["reconstruction"]["metrics"]["fd_sprites"]["value"] > 0
    assert scores["reconstruction"]["samples"]["evaluations"] == 1
    command(monkeypatch, report.main, str(run), f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert number(scores["reconstruction"]["metrics"]["fd_sprites"]["value"]) in page


def test_its_sheet_is_measured_and_shown(run, monkeypatch, tmp_path, capsys):
    command(monkeypatch, evaluate.main, "measure=autoencoder", f"run={run}", "device=cpu")
    told = capsys.readouterr().out
    (path,) = (run / "evaluation").glob("autoencoder*.json")
    content = json.loads(path.read_text())
    rows = {row["number"]: row for row in content["rows"]}
    assert content["n"] == 20
    assert content["extractor"]["extractor"] == "sprites"
    assert rows["rfd_sprites"]["value"] > 0
    assert 5 < rows["PSNR"]["value"] < 30
    assert rows["PSNR"]["error"] > 0
    assert {"std, channel 3", "KL, bits a picture", "slope of the spectrum, latents"} <= {*rows}
    assert all(name in told for name in ("rfd_sprites", "posterior std", path.stem))
    with Image.open(path.with_suffix(".png")) as sheet:
        assert sheet.width > 1000
    command(monkeypatch, report.main, str(run), f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert number(rows["PSNR"]["value"]) in page
    assert f"evaluation/{path.stem}.png" in page
    command(monkeypatch, evaluate.main, "measure=autoencoder", f"run={run}", "device=cpu",
            "batch_size=7")  # fmt: skip
    again = {row["number"]: row for row in json.loads(path.read_text())["rows"]}
    for name, row in rows.items():
        assert again[name]["value"] == pytest.approx(row["value"], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_the_sheet_of_two_processes_is_that_of_one(run, tmp_path):
    bin, found = Path(sys.executable).parent, []
    for ranks in (1, 2):  # of the one block the second has none
        folder = shutil.copytree(run, tmp_path / str(ranks))
        shutil.rmtree(folder / "evaluation", ignore_errors=True)
        subprocess.run(
            [bin / "torchrun", "--standalone", f"--nproc-per-node={ranks}", "--no-python",
             bin / "unnoise-evaluate", "measure=autoencoder", f"run={folder}", "device=cpu"],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        )  # fmt: skip
        (rows,) = (folder / "evaluation").glob("*.csv")
        found.append(rows.read_text())
    assert found[0] == found[1]


@pytest.mark.parametrize("network", ["vq_f4", "fsq_f4"])
def test_autoencoders_of_codes_are_trained_and_drawn_from(network, monkeypatch, tmp_path):
    folder = tmp_path / "run"
    command(monkeypatch, train.main, *KL, f"network={network}", "network.multipliers=[1,2]",
            "max_steps=4", "discriminator_start=2", f"discriminator={PATCHES}",
            f"hydra.run.dir={folder}")  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [row["step"] for row in rows if "validation/perplexity" in row] == [2, 4]
    assert any("train/discriminator_loss" in row for row in rows)
    model = unnoise.load(folder, device="cpu")
    state = torch.load(model.checkpoint, weights_only=True)["state_dict"]
    if network == "vq_f4":
        vectors = model.model.autoencoder.quantizer.vectors
        assert torch.equal(vectors, state["model.autoencoder.quantizer.vectors"])
    assert model.sample(2).pixels.shape == (2, 3, 16, 16)
    assert "latents" not in model.model.caption(Reconstruction())
    with pytest.raises(ValueError, match="drawn=true is for latents with a distribution"):
        model.sample(2, sampler=Reconstruction(drawn=True))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["sampler=ddim"], "makes a Sampler, not a Reconstruction"),
        (["equivariance=0.5", f"discriminator={PATCHES}"], "makes pictures as small as 4 pixels"),
        (["equivariance=1.5"], "must be <= 1"),
        (["conditioning=class"], "makes a ClassConditioner, not null"),
        (["callbacks=likelihood"], "needs noise levels"),
        (["network.multipliers=[1,1,1,1,1,1]"], "16×16 pixels cannot be halved 5 times"),
        (["network=unet_1m"], "network"),
        (["+network.colours=3"], "network.colours  is no key"),
        ([f"+callbacks.quality={QUALITY}"], "count 40: there are only 20 validation pictures"),
        (["extractor=sprits"], "there is no extractor sprits; did you mean 'sprites'?"),
        (["extractor=inception"], "inception is not for training"),
        (["data=cifar10", "perceptual=1"], "needs an extractor, and this data has none"),
        (["accumulate=2", f"discriminator={PATCHES}"], "must be 1 with a discriminator"),
        (["compile=true", f"discriminator={PATCHES}"], "cannot be with a discriminator"),
        (["network=vq_f4", "sampler.drawn=true"], "is for latents with a distribution"),
        (["network=vq_f4", "network.quantizer.decay=1"], "network.quantizer.decay"),
        (["network=fsq_f4", "network.quantizer.levels=[8,2]"], "network.quantizer.levels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_family_is_refused(override, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *KL, "max_steps=1", *override)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("steps=3", "an AutoencoderModel draws without steps"),
        ("guidance=2", "an AutoencoderModel draws without steps"),
        ("sampler=ddim", "an autoencoder draws with sampler"),
        ("labels=[1]", "the model reads images"),
    ],
)
def test_what_an_autoencoder_cannot_draw_is_refused(wish, message, run, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, sample.main, f"run={run}", "n=2", wish)
    assert message in capsys.readouterr().err + str(ended.value)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (evaluate.main, ["measure=likelihood", "n=2"], "a likelihood, not an AutoencoderModel"),
        (evaluate.main, ["measure=autoencoder", "n=40"], "only 20 validation pictures"),
        (
            evaluate.main,
            ["measure=autoencoder", "averaged=false", "diffusion=."],
            "averaged   must be true with diffusion",
        ),
        (evaluate.main, ["measure=autoencoder", "n=2"], "must be >= 3"),
        (evaluate.main, ["measure=autoencoder", "extractor=nothing"], "no extractor nothing"),
        (evaluate.main, ["guidance=[1,2]"], "reconstruction has no guidance"),
        (evaluate.main, ["n=40"], "only 20 validation pictures to reconstruct, not 40"),
        (sample.main, ["n=4", "first=17"], "only 20 validation pictures to reconstruct, not 21"),
        (evaluate.main, ["steps=[5]"], "reconstruction has no steps"),
        (evaluate.main, ["measure=adherence", "steps=3"], "draws without steps and guidance"),
        (figure.main, ["figure=samplers"], "takes a diffusion model, not an AutoencoderModel"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_needs_noise_levels_is_refused(main, words, message, run, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, main, f"run={run}", "device=cpu", *words)
    assert message in capsys.readouterr().err + str(ended.value)

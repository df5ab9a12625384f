"""unnoise-export to=diffusers: proven, or refused before anything is written."""

import json
import re

import diffusers
import pytest
import torch
from commands import command, trained
from untrained import make_run

import unnoise
from unnoise.cli import export
from unnoise.models.hub import pipeline

FITS = ["network.channels=8", "network.norm_groups=2", "network.multipliers=[1,2]",
        "network.attention_resolutions=[8]", "network.head_size=4"]  # fmt: skip


def tiny(tmp_path, *overrides):
    return make_run(tmp_path / "run", *FITS, *overrides)


def exported(monkeypatch, of, folder, *arguments):
    command(monkeypatch, export.main, f"run={of}", "to=diffusers", f"folder={folder}", *arguments)
    return folder


DDPM, DDIM = "DDPMPipeline", "DDIMPipeline"
TRAILING = ["sampler=ddim", "sampler.spacing=trailing"]


@pytest.mark.parametrize(
    ("run", "drawn", "name", "scheduler"),
    [
        ("schedule.T=20", "sampler=ddpm", DDPM, {"variance_type": "fixed_large"}),
        ("prediction=x0", "sampler=ddpm steps=9", DDPM,
         {"prediction_type": "sample", "timestep_spacing": "linspace"}),
        ("learned_variance=true objective=hybrid schedule=cosine",
         "sampler=ddpm sampler.stepper.variance=learned steps=6", DDPM,
         {"variance_type": "learned_range", "beta_schedule": "squaredcos_cap_v2"}),
        ("schedule=quadratic", "sampler=ddim sampler.spacing=trailing steps=10", DDIM,
         {"timestep_spacing": "trailing", "set_alpha_to_one": True,
          "beta_schedule": "scaled_linear"}),
        ("prediction=v", "sampler=ddim sampler.spacing=leading steps=7 sampler.stepper.eta=0.7",
         DDIM, {"prediction_type": "v_prediction", "timestep_spacing": "leading"}),
        ("schedule=sigmoid", "sampler=euler sampler.spacing=trailing steps=5 "
         "sampler.threshold=null", DDIM, {"clip_sample": False}),
        ("prediction=v schedule=linear_zero_snr", "sampler=ddim sampler.spacing=trailing steps=5 "
         "sampler.threshold._target_=unnoise.diffusion.denoiser.DynamicThreshold", DDIM,
         {"thresholding": True, "clip_sample": False}),
    ],
)  # fmt: skip
def test_diffusers_goes_through_the_same_x(
    run, drawn, name, scheduler, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "out"
    exported(monkeypatch, tiny(tmp_path, *run.split()), folder, *drawn.split())
    assert name in capsys.readouterr().out
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == name
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert {key: config[key] for key in scheduler} == scheduler
    assert {"clip_sample", "clip_sample_range", "thresholding"} <= config.keys()
    files = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors", ".png", ".md"}
    text = (folder / "README.md").read_text()
    call = re.search(r"model\(batch_size=4, (.*)\)", text)[1]
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    images = eval(f"theirs(batch_size=2, output_type='np', {call})").images
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (
            ["network.norm_groups=32", "network.channels=16"],
            ["4, 8, 12, 16 groups", "network.norm_groups=4 would fit"],
        ),
        (["schedule=edm", "prediction=edm", "objective=edm"], ["EDMPrediction", "EDMSchedule"]),
        (["schedule=flow", "prediction=flow", "objective=velocity"], ["RectifiedFlow"]),
        (["conditioning=class"], ["ClassConditioner"]),
        (["conditioning=sketch"], ["PictureConditioner"]),
        (["conditioning=text"], ["TextConditioner", "takes the tokens of CLIP's text encoder"]),
        (["+network.transformer_depth=1"], ["UNet2DModel has no transformers"]),
        (["autoencoder=identity"], ["Identity"]),
    ],
)
def test_what_diffusers_cannot_express_is_refused_with_all_reasons(
    way, says, tmp_path, monkeypatch, capsys
):
    of, folder = tiny(tmp_path, *way), tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        exported(monkeypatch, of, folder, *TRAILING)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert "nothing was written" in error
    assert all(word in error for word in says), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (["sampler=dpm_solver"], "DPMSolver is neither DDPM's nor DDIM's step: give sampler=ddpm"),
        (["sampler=heun"], "Heun is neither"),
        (["sampler=ddim"], "use spacing leading, or trailing"),
        (["sampler=ddim", "sampler.spacing=trailing", "steps=7"], "⌊T/steps⌋ = 142"),
        (["sampler=ddpm", "sampler.spacing=trailing", "steps=10"], "after the last step of trail"),
        (["sampler=ddpm", "sampler.stepper.variance=none"], "always adds noise"),
        (["sampler=ddim", "sampler.spacing=karras"], "karras is not among"),
    ],
)
def test_so_are_samplers(way, says, tmp_path, monkeypatch, capsys):
    of = tiny(tmp_path)
    with pytest.raises(SystemExit):
        exported(monkeypatch, of, tmp_path / "out", *way)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_proven_is_not_left_behind(tmp_path, monkeypatch, capsys):
    of, made = tiny(tmp_path), pipeline.unet_to_diffusers

    def wrong(unet):
        state = made(unet)
        state["conv_out.bias"] = state["conv_out.bias"] + 1e-3
        return state

    monkeypatch.setattr(pipeline, "unet_to_diffusers", wrong)
    with pytest.raises(SystemExit):
        exported(monkeypatch, of, tmp_path / "out", *TRAILING)
    assert "diffusers does not draw the same" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_folder_with_files_is_not_written_to(tmp_path, monkeypatch, capsys):
    of = tiny(tmp_path)
    with pytest.raises(SystemExit):
        exported(monkeypatch, of, of, "sampler=ddpm")
    assert "is not empty" in capsys.readouterr().err


TINY = (
    "trainer=cpu logger=none data.size=80 data.validation_size=20 batch_size=8 network.channels=8 "
    "network.blocks=1 network.norm_groups=2 callbacks.samples.count=4 callbacks.samples.every=4 "
    "callbacks.checkpoints.every=4 validate_every=4 validation_images=8 precision=fp32"
).split()


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """The runs of an autoencoder, and of a model in its latent."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("latent")
        patch.setenv("UNNOISE_DATA", str(folder / "data"))
        kl = trained(folder / "kl", "experiment=sprites_kl", *TINY)
        keys = "sampler.steps=3", "network.head_size=8", "prediction=v", "objective=v"
        yield kl, trained(folder / "ldm", "experiment=sprites", *TINY, *keys, f"autoencoder={kl}")


def test_a_latent_run_becomes_an_ldm_pipeline_with_its_scale(latent, tmp_path, monkeypatch):
    folder = exported(monkeypatch, latent[1], tmp_path / "out", "sampler=ddim", "steps=10",
                      "sampler.spacing=trailing")  # fmt: skip
    config = json.loads((folder / "vqvae" / "config.json").read_text())
    assert (config["_class_name"], config["scaling_factor"]) == ("AutoencoderKL", 1.0)
    ours = unnoise.load(latent[1], device="cpu").model.codec
    theirs = diffusers.LDMPipeline.from_pretrained(folder).vqvae
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    found = theirs.encode(x).latent_dist
    mean, logvar = ours.autoencoder.moments(x).chunk(2, 1)
    torch.testing.assert_close(found.mean, (mean - ours.shift) * ours.scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logvar, logvar + 2 * ours.scale.log(), rtol=1e-4, atol=1e-4)


def test_an_autoencoder_becomes_one_of_diffusers(latent, tmp_path, monkeypatch):
    folder = exported(monkeypatch, latent[0], tmp_path / "out")
    assert diffusers.AutoencoderKL.from_pretrained(folder).config.scaling_factor == 1.0


def test_a_latent_of_codes_is_decoded_as_it_is(tmp_path, monkeypatch, capsys):
    """VQModel would round it first; so its decoder goes into an AutoencoderKL."""
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "data"))
    codes = "network=vq_f4", "network.multipliers=[1,2]", "network.quantizer.size=32"
    vq = trained(tmp_path / "vq", "experiment=sprites_kl", *codes, *TINY)
    keys = "sampler.steps=3", "network.head_size=8", "prediction=v", "objective=v"
    run = trained(tmp_path / "ldm", "experiment=sprites", *TINY, *keys, f"autoencoder={vq}")
    folder = exported(monkeypatch, run, tmp_path / "out", "steps=10", *TRAILING)
    assert "LDMPipeline: 10 steps differ by" in capsys.readouterr().out
    codec = unnoise.load(run, device="cpu").model.codec
    theirs = diffusers.LDMPipeline.from_pretrained(folder).vqvae
    x, z = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, *codec.shape)
    with torch.no_grad():
        found, latent = theirs.encode(x).latent_dist, codec.autoencoder.network.latent(x)
        torch.testing.assert_close(found.mean, latent.encoded, rtol=0, atol=1e-5)
        assert float(found.std.max()) < 1e-6
        decoded = codec.autoencoder.decode(z)
        torch.testing.assert_close(theirs.decode(z).sample, decoded, rtol=0, atol=1e-4)
    folder = exported(monkeypatch, vq, tmp_path / "alone")
    assert "VQModel: pictures" in capsys.readouterr().out
    assert diffusers.VQModel.from_pretrained(folder).config.num_vq_embeddings == 32


@pytest.mark.parametrize("channels", [[16, 32], [24, 40], [12, 20, 28], [32, 64, 96]])
def test_the_number_of_groups_that_is_advised_fits(channels):
    from torch import nn

    from unnoise.models.hub.unet import group_faults
    from unnoise.networks.blocks import group_norm

    def norms(most):
        return nn.ModuleList(group_norm(width, most) for width in channels)

    (fault,) = group_faults(norms(32), "theirs", "key")
    assert list(group_faults(norms(int(re.search(r"key=(\d+)", fault)[1])), "", "")) == []

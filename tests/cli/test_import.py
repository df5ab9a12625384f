"""unnoise-import: models of diffusers as runs, or one clear line before anything is written."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import torch
from commands import command
from PIL import Image
from safetensors.torch import load_file, save_file
from untrained import make_run

import unnoise
from unnoise.cli import evaluate, export, importer, report, sample, train
from unnoise.diffusion.noise import Noise
from unnoise.models.hub import pipeline
from unnoise.models.hub.importing import import_folder
from unnoise.models.hub.pipeline import proof

CIFAR = {
    "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [8, 16, 16, 16],
    "center_input_sample": False, "downsample_padding": 0, "flip_sin_to_cos": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-6, "norm_num_groups": 2, "out_channels": 3, "sample_size": 16,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
"""The keys of google/ddpm-cifar10-32's config, of a smaller network."""
LEVELS = {
    "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": True,
    "num_train_timesteps": 1000, "trained_betas": None, "variance_type": "fixed_large",
}  # fmt: skip
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
DATA = ["data=sprites", "data.size=60", "data.validation_size=40"]


def random_unet(**changes):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**CIFAR | changes)
    for weight in unet.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    return unet


def cifar_folder(folder, **scheduler):
    """Laid out flat, with the old names of attention, as google/ddpm-cifar10-32 is."""
    folder.mkdir()
    unet = random_unet()
    state = {}
    for name, value in unet.state_dict().items():
        for new, old in OLD.items():
            name = name.replace(f".{new}.", f".{old}.")
        state[name] = value
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    about = {"_diffusers_version": "0.0.4"}
    parts = {
        "model_index": {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"],
                        "scheduler": ["diffusers", "DDPMScheduler"]},
        "config": {"_class_name": "UNet2DModel", **CIFAR},
        "scheduler_config": {"_class_name": "DDPMScheduler", **LEVELS, **scheduler},
    }  # fmt: skip
    for name, config in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(about | config))
    return folder


def imported(monkeypatch, folder, out, *arguments):
    command(monkeypatch, importer.main, f"folder={folder}", f"out={out}", *arguments)
    return out


def test_the_layout_of_ddpm_cifar10_is_drawn_measured_and_reported(tmp_path, monkeypatch, capsys):
    folder = cifar_folder(tmp_path / "cifar")
    run = imported(monkeypatch, folder, tmp_path / "run", *DATA)
    assert "unnoise-sample run=" in capsys.readouterr().out
    trained = unnoise.load(run, device="cpu")
    assert trained.model.shape == (3, 16, 16)
    command(monkeypatch, sample.main, f"run={run}", "n=2", "sampler=ddim", "steps=3")
    command(monkeypatch, evaluate.main, f"run={run}", "n=10", "batch_size=10", "metrics=[fd]",
            "reference_count=30", "device=cpu", "controls=false", "sampler=ddim",
            "steps=[3]")  # fmt: skip
    command(monkeypatch, report.main, str(run))
    assert (run / "report.html").exists()
    # the whole walk of diffusers' own pipeline
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "DDPMPipeline"
    sampler = trained.model.changed(trained.sampler, 20, None)
    again = tmp_path / "again"
    diffusers.DDPMPipeline(
        random_unet(), diffusers.DDPMScheduler(**LEVELS, timestep_spacing="linspace")
    ).save_pretrained(again)
    assert proof(trained.model, sampler, again).trajectory < 1e-4


def test_the_experiment_beside_it_is_a_run_with_the_same_network(tmp_path, monkeypatch):
    from unnoise.config.compose import check_command_line
    from unnoise.training.check import problems_of

    run = imported(monkeypatch, cifar_folder(tmp_path / "cifar"), tmp_path / "run", *DATA)
    config, found = check_command_line("train", ["experiment=imported", "batch_size=8"], [run])
    assert found == []
    assert problems_of(config) == []
    kept = unnoise.load(run, device="cpu").config
    for key in ("schedule", "prediction", "sampler", "data", "learned_variance"):
        assert config[key] == kept[key]
    assert config["network"].items() <= kept["network"].items()


FEW = (
    "max_steps=2 batch_size=8 trainer=cpu logger=none callbacks.samples.count=2 validate_every=2 "
    "validation_images=4 precision=fp32 sampler.steps=2 callbacks.samples.every=2"
).split()


@pytest.mark.parametrize("latent", [False, True])
def test_it_is_fine_tuned(latent, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "data"))
    folder = ldm_folder(tmp_path / "in") if latent else cifar_folder(tmp_path / "in")
    data = DATA
    if latent:
        (tmp_path / "photos").mkdir()
        for k in range(24):
            pixels = np.random.default_rng(k).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
        data = ["data=image_folder", f"data.root={tmp_path}/photos", "data.image_size=32"]
    run = imported(monkeypatch, folder, tmp_path / "run", *data)
    command(monkeypatch, train.main, "--config-dir", str(run), "experiment=imported", *FEW,
            f"from={run}", f"hydra.run.dir={tmp_path}/tuned", "optimizer.lr=1e-5")  # fmt: skip
    before, after = (
        unnoise.load(each, device="cpu", averaged=False).model.state_dict()
        for each in (run, tmp_path / "tuned")
    )
    moved = max(float((after[key] - before[key]).abs().max()) for key in before if "network" in key)
    assert 0 < moved < 1e-3


@pytest.mark.parametrize(
    ("of", "drawn"),
    [
        ("schedule.T=20", "sampler=ddpm"),
        ("learned_variance=true objective=hybrid schedule=cosine schedule.T=20",
         "sampler=ddpm sampler.stepper.variance=learned"),
        ("schedule=sigmoid prediction=v", "sampler=ddim sampler.spacing=trailing steps=50"),
        ("schedule=quadratic prediction=x0", "sampler=ddim sampler.spacing=leading steps=50"),
    ],
)  # fmt: skip
def test_out_and_in_again_gives_the_same_samples_bit_for_bit(of, drawn, tmp_path, monkeypatch):
    tiny = ["network.channels=8", "network.norm_groups=2", "network.multipliers=[1,2]"]
    run = make_run(tmp_path / "one", *tiny, *of.split())
    command(monkeypatch, export.main, f"run={run}", f"folder={tmp_path}/out", *drawn.split())
    again = imported(monkeypatch, tmp_path / "out", tmp_path / "two")
    one, two = (unnoise.load(each, device="cpu") for each in (run, again))
    steps = two.sampler.steps
    recipe = two.sampler
    first, second = one.sample(3, sampler=recipe, seed=7), two.sample(3, seed=7)
    assert torch.equal(first.pixels, second.pixels)
    assert steps in (None, 50)


def ldm_folder(folder, **changes):
    torch.manual_seed(1)
    kl = diffusers.AutoencoderKL(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
                                 down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4,
                                 up_block_types=["UpDecoderBlock2D"] * 2, sample_size=32,
                                 scaling_factor=0.5)  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        timestep_spacing="trailing", **changes)  # fmt: skip
    unet = random_unet(in_channels=4, out_channels=4)
    diffusers.LDMPipeline(vqvae=kl, unet=unet, scheduler=scheduler).save_pretrained(folder)
    return folder


def test_a_latent_model_keeps_its_scale_and_goes_out_again(tmp_path, monkeypatch, capsys):
    folder = ldm_folder(tmp_path / "ldm")
    run = imported(monkeypatch, folder, tmp_path / "run")
    trained = unnoise.load(run, device="cpu")
    assert trained.model.shape == (3, 32, 32)
    assert proof(trained.model, trained.sampler, folder).pictures < 1e-4
    again = tmp_path / "again"
    command(monkeypatch, export.main, f"run={run}", f"folder={again}")
    config = json.loads((again / "vqvae" / "config.json").read_text())
    assert config["scaling_factor"] == 0.5
    for part in ("unet", "vqvae"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        one, two = load_file(folder / file), load_file(again / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_what_draws_otherwise_than_in_diffusers_is_said(tmp_path, monkeypatch, capsys):
    folder = ldm_folder(tmp_path / "ldm", steps_offset=1, set_alpha_to_one=False)
    imported(monkeypatch, folder, tmp_path / "run")
    assert "otherwise than in diffusers: DDIM starts at the last" in capsys.readouterr().out


def test_an_imported_run_is_not_resumed_but_started_from(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    imported(monkeypatch, ldm_folder(tmp_path / "ldm"), run)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, train.main, "--config-dir", str(run), "experiment=imported",
                f"resume={run}")  # fmt: skip
    assert stop.value.code == 2
    assert f"start from its weights by from={run}" in capsys.readouterr().err


def test_ddim_that_clips_is_said_to_keep_another_eps(tmp_path, monkeypatch, capsys):
    """diffusers keeps ε as predicted, unless it is called otherwise."""
    imported(monkeypatch, ldm_folder(tmp_path / "latent"), tmp_path / "free")
    assert "use_clipped_model_output" not in capsys.readouterr().out
    folder = tmp_path / "pixels"
    scheduler = diffusers.DDIMScheduler(**{k: LEVELS[k] for k in LEVELS if k != "variance_type"},
                                        timestep_spacing="trailing")  # fmt: skip
    diffusers.DDIMPipeline(random_unet(), scheduler).save_pretrained(folder)
    run = imported(monkeypatch, folder, tmp_path / "run")
    assert "use_clipped_model_output=True" in capsys.readouterr().out
    trained = unnoise.load(run, device="cpu")
    sampler = trained.model.changed(trained.sampler, 5, None)
    assert proof(trained.model, sampler, folder).trajectory < 1e-4
    monkeypatch.setattr(pipeline, "call_of", lambda *_: {"num_inference_steps": 5})
    with pytest.raises(pipeline.NotProven):
        proof(trained.model, sampler, folder)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_an_autoencoder_alone_reconstructs(kind, tmp_path, monkeypatch):
    more = {"vq_embed_dim": 4, "num_vq_embeddings": 32} if kind == "VQModel" else {}
    torch.manual_seed(2)
    theirs = getattr(diffusers, kind)(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        sample_size=16, **more)  # fmt: skip
    theirs.save_pretrained(tmp_path / "ae")
    run = imported(monkeypatch, tmp_path / "ae", tmp_path / "run", *DATA)
    model = unnoise.load(run, device="cpu").model
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        if kind == "VQModel":
            expected = theirs(x).sample
        else:
            expected = theirs.decode(theirs.encode(x).latent_dist.mean).sample
        torch.testing.assert_close(model.autoencoder(x)[0], expected, rtol=0, atol=1e-5)
    command(monkeypatch, export.main, f"run={run}", f"folder={tmp_path}/again")
    name = "diffusion_pytorch_model.safetensors"
    one, two = (load_file(tmp_path / folder / name) for folder in ("ae", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["_class_name"] == kind
    command(monkeypatch, sample.main, f"run={run}", "n=2")


def edited(name, **changes):
    def edit(folder):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def only_pickles(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def cut(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def reshaped(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    save_file(state | {"conv_in.weight": state["conv_in.weight"][:, :2].contiguous()}, path)


def renamed(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    save_file(state | {"extra.weight": torch.zeros(2)}, path)


def with_nan(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.bias"][0] = torch.nan
    save_file(state, path)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "scheduler_config.json").unlink(), "is not whole: there is no"),
        (lambda folder: (folder / "model_index.json").unlink(), "config.json is of UNet2DModel"),
        (only_pickles, "a pickle, which can run anything"),
        (cut, "no whole safetensors file"),
        (reshaped, "conv_in.weight (8, 2, 3, 3), but its own config wants (8, 3, 3, 3)"),
        (renamed, "no place for extra.weight"),
        (with_nan, "not finite: conv_in.bias"),
        (edited("config", layers_per_block=3), "there are no weights down_blocks.0.resnets.2"),
        (edited("config", act_fn="gelu"), 'act_fn is "gelu", but here only "silu"'),
        (edited("config", norm_eps=1e-3), "neither DDPM's convention nor ADM's"),
        (edited("config", add_attentoin=True), "add_attentoin true is not known here; did you"),
        (edited("config", down_block_types=["SkipDownBlock2D"] * 4), "has SkipDownBlock2D"),
        (edited("config", norm_num_groups=4), "groups of fewer than 4 channels"),
        (edited("config", sample_size=None), "sample_size is None"),
        (edited("scheduler_config", _class_name="CMStochasticIterativeScheduler"),
         "the scheduler CMStochasticIterativeScheduler is not known"),
        (edited("scheduler_config", beta_schedule="laplace"), "beta_schedule is 'laplace'"),
        (edited("scheduler_config", trained_betas=[0.1, 2]), "trained_betas are not"),
        (edited("scheduler_config", variance_type="learned"), "variance_type is 'learned'"),
        (edited("scheduler_config", variance_type="learned_range"), "has 3 outputs"),
        (edited("scheduler_config", prediction_type="flow"), "prediction_type is 'flow'"),
        (edited("scheduler_config", thresholding=True, sample_max_value="a"),
         "sample_max_value is 'a', not in (0, inf]"),
        (edited("scheduler_config", thresholding=True, dynamic_thresholding_ratio="${x}"),
         "dynamic_thresholding_ratio is '${x}', not in (0, 1]"),
        (edited("scheduler_config", num_train_timesteps=10**12), "not in 1 … 100000"),
        (edited("config", another_key=0), "another_key 0 is not known here"),
        (edited("config", _class_name="UNet2DConditionModel"),
         "says that unet is UNet2DModel, its config UNet2DConditionModel"),
        (edited("model_index", _class_name="FluxPipeline"), "is of FluxPipeline, but here only"),
        (edited("model_index", unet=["evil", "Evil"]), "unet is of Evil"),
        (lambda folder: (folder / "config.json").write_text("{"), "no whole JSON file"),
    ],
)  # fmt: skip
def test_half_a_folder_or_a_strange_one_is_one_line_and_nothing_written(
    harm, says, tmp_path, monkeypatch, capsys
):
    folder = cifar_folder(tmp_path / "cifar")
    harm(folder)
    with pytest.raises(SystemExit) as end:
        imported(monkeypatch, folder, tmp_path / "run")
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert says in error, error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_data_of_another_shape_are_refused(tmp_path, monkeypatch, capsys):
    folder = cifar_folder(tmp_path / "cifar")
    with pytest.raises(SystemExit):
        imported(monkeypatch, folder, tmp_path / "run", "data=fashion_mnist")
    assert "the folder draws (3, 16, 16), but the data are (1, 32, 32)" in capsys.readouterr().err


def test_without_data_only_what_needs_none_is_done(tmp_path, monkeypatch, capsys):
    run = imported(monkeypatch, cifar_folder(tmp_path / "cifar"), tmp_path / "run")
    with pytest.raises(SystemExit):
        command(monkeypatch, evaluate.main, f"run={run}", "n=10")
    assert "no data were given to unnoise-import" in capsys.readouterr().err


def test_two_imports_are_the_same_file(tmp_path):
    folder = cifar_folder(tmp_path / "cifar")
    shutil.copytree(folder, tmp_path / "copy")
    one, two = (import_folder(each, tmp_path / "run") for each in (folder, tmp_path / "copy"))
    assert one.nodes == two.nodes


def sd_folder(folder):
    """Stable Diffusion in tiny, with a tokenizer of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = folder / "words"
    words.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [
        *letters,
        *(f"{each}</w>" for each in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (words / "vocab.json").write_text(json.dumps({each: k for k, each in enumerate(vocabulary)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"))
    tokenizer.model_max_length = 12
    torch.manual_seed(3)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12, bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1))  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=16,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2)  # fmt: skip
    kl = diffusers.AutoencoderKL(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
                                 down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4,
                                 up_block_types=["UpDecoderBlock2D"] * 2,
                                 sample_size=32)  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        timestep_spacing="trailing")  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=kl, unet=unet, scheduler=scheduler, text_encoder=text, tokenizer=tokenizer,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)  # fmt: skip
    pipeline.save_pretrained(folder / "sd")
    return folder / "sd", pipeline


def test_stable_diffusion_draws_captions_with_guidance_as_there(tmp_path, monkeypatch):
    folder, pipeline = sd_folder(tmp_path)
    run = imported(monkeypatch, folder, tmp_path / "run")
    shutil.rmtree(folder)
    trained = unnoise.load(run, device="cpu")
    assert trained.sampler.guidance.scale == 7.5
    sampler = trained.model.changed(trained.sampler, 5, 3.0)
    noise = Noise(0, torch.arange(2))
    batch = {"caption": ["a cat", "two dogs"], "negative": ["", "a house"]}
    found = trained.model.sample(sampler, noise, batch)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(prompt=batch["caption"], negative_prompt=batch["negative"],
                      num_inference_steps=5, guidance_scale=3.0, output_type="np",
                      latents=noise.normal("x_T", (4, 16, 16))).images  # fmt: skip
    expected = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert float((expected - found / 255).abs().max()) <= 0.5 / 255 + 1e-4
    command(monkeypatch, sample.main, f"run={run}", "n=2", 'captions=["a cat"]', "steps=2")


def test_stable_diffusion_goes_out_again(tmp_path, monkeypatch, capsys):
    folder, theirs = sd_folder(tmp_path)
    run = imported(monkeypatch, folder, tmp_path / "run")
    again = tmp_path / "again"
    command(monkeypatch, export.main, f"run={run}", f"folder={again}", "steps=4")
    assert "StableDiffusionPipeline: 4 steps differ by" in capsys.readouterr().out
    for part in ("unet", "vae"):
        one, two = (load_file(each / part / "diffusion_pytorch_model.safetensors")
                    for each in (folder, again))  # fmt: skip
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    ours = diffusers.StableDiffusionPipeline.from_pretrained(again)
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
    for each in (ours, theirs):
        each.set_progress_bar_config(disable=True)
    one, two = (each("a dog", generator=torch.Generator().manual_seed(1), **options).images
                for each in (ours, theirs))  # fmt: skip
    np.testing.assert_allclose(one, two, atol=1e-5)
    text = (again / "README.md").read_text()
    assert "text-to-image" in text
    assert "guidance_scale=7.5" in text
    imported(monkeypatch, again, tmp_path / "back")
    assert "otherwise than in diffusers" not in capsys.readouterr().out
    for way, says in ((["sampler.spacing=leading"], "starts leading a level later"),
                      (["sampler.guidance.interval=[0.1,2]"], "at all levels")):  # fmt: skip
        with pytest.raises(SystemExit):
            command(monkeypatch, export.main, f"run={run}", f"folder={tmp_path}/no", "sampler=ddim",
                    "sampler.spacing=trailing", *way)  # fmt: skip
        assert says in capsys.readouterr().err


def test_half_a_stable_diffusion_is_refused(tmp_path, monkeypatch, capsys):
    folder, _ = sd_folder(tmp_path)
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 8}))
    with pytest.raises(SystemExit):
        imported(monkeypatch, folder, tmp_path / "run")
    assert "hidden_size is 8, but the unet reads 16" in capsys.readouterr().err
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(SystemExit):
        imported(monkeypatch, folder, tmp_path / "run")
    assert "there is no model.safetensors" in capsys.readouterr().err

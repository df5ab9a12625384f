"""A GAN is trained, resumed, drawn from, evaluated and reported by the same commands."""

import json

import numpy as np
import pytest
import torch
from commands import command, trained

import unnoise
from unnoise.cli import evaluate, figure, report, sample, train
from unnoise.config.nodes import instantiate
from unnoise.models.classifier import NoisyClassifier

GAN = (
    "experiment=sprites_gan trainer=cpu logger=none data.size=80 data.validation_size=20 "
    "batch_size=8 network.channels=4 network.latent=4 discriminator.channels=4 "
    "callbacks.samples.count=4 callbacks.samples.every=2 callbacks.checkpoints.every=2 "
    "validate_every=2 validation_images=8 seed=3"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("gan") / "run", *GAN)


def test_grids_are_drawn_while_it_trains(run):
    names = {path.name for path in (run / "samples").iterdir()}
    assert names == {"step_00000002.png", "step_00000004.png", "training.gif"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["steps"] == 4
    content = torch.load(run / "checkpoints/step_00000004.ckpt", weights_only=True)["state_dict"]
    for key, prefix in (("", "model.generator."), ("discriminator_", "discriminator.")):
        count = sum(each.numel() for k, each in content.items() if k.startswith(prefix))
        assert manifest[f"{key}parameters"] == count > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [row["step"] for row in rows if "validation/loss" in row] == [2, 4]


def test_pictures_drawn_are_those_of_the_model(run, monkeypatch, tmp_path, capsys):
    command(monkeypatch, sample.main, f"run={run}", "n=5", "first=2", f"out={tmp_path}/drawn")
    assert "5 pictures" in capsys.readouterr().out
    array = np.load(tmp_path / "drawn" / "images.npz")["arr_0"]
    model = unnoise.load(run)
    expected = model.sample(7, batch_size=3).nhwc()[2:]
    assert np.abs(array.astype(int) - expected).max() <= 1
    small = model.sample(7, sampler=type(model.sampler)(scale=0.1)).pixels.float()
    assert small.var(0).mean() < model.sample(7).pixels.float().var(0).mean()


def test_it_is_resumed(run, monkeypatch, tmp_path, capsys):
    for name, steps in (("part", 2), ("part", 4), ("whole", 4)):
        resume = f"resume={tmp_path / 'part'}" if (name, steps) == ("part", 4) else "resume=false"
        folder = f"hydra.run.dir={tmp_path / name}"
        command(monkeypatch, train.main, *GAN, f"max_steps={steps}", folder, resume)
    file = "checkpoints/step_00000004.ckpt"
    found = [torch.load(tmp_path / n / file, weights_only=True) for n in ("part", "whole")]
    one, two = (content["state_dict"] for content in found)
    assert all(torch.equal(one[key], two[key]) for key in two)
    assert found[0]["model"] == {"family": "unnoise.models.gan.GAN", "shape": [3, 16, 16]}


def test_classes_are_drawn_as_they_are_named(tmp_path, monkeypatch):
    under = trained(tmp_path / "run", *GAN, "conditioning=class", "pairing=plain", "gamma=0")
    words = f"run={under}", "n=4", "labels=[hero,food]", f"out={tmp_path / 'drawn'}"
    command(monkeypatch, sample.main, *words, "sampler=latent", "sampler.scale=0.5")
    model = unnoise.load(under)
    named = model.sample(4, labels=["hero", "food"], sampler=type(model.sampler)(scale=0.5))
    array = np.load(tmp_path / "drawn" / "images.npz")["arr_0"]
    assert np.abs(array.astype(int) - named.nhwc()).max() <= 1
    assert named.captions == ["hero", "food", "hero", "food"]
    node = {"_target_": "unnoise.networks.encoder.UNetEncoder", "shape": [3, 16, 16],
            "classes": 5, "channels": 8, "multipliers": [1]}  # fmt: skip
    about = {"network": node, "data": model.config["data"]}
    judge = NoisyClassifier(instantiate(node), model.class_names, "label", about)
    judge.save(tmp_path / "judge.pt")
    command(monkeypatch, evaluate.main, "measure=adherence", f"run={under}", "n=6", "guidance=[1]",
            f"judge={tmp_path}/judge.pt", "device=cpu")  # fmt: skip
    (file,) = (under / "evaluation").glob("adherence*.json")
    (_, row) = json.loads(file.read_text())["rows"]
    hits = judge.predict(model.sample(6, labels=range(5)).pixels) == torch.arange(6) % 5
    assert (row["pictures"], row["n"], row["agreed"]) == ("drawn", 6, int(hits.sum()))


def test_it_is_evaluated_and_reported(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    command(monkeypatch, evaluate.main, f"run={run}", "n=40", "metrics=[fd]",
            "reference_count=60", "device=cpu")  # fmt: skip
    said = capsys.readouterr().out
    assert "latent" in said
    (results,) = (run / "evaluation").glob("*.json")
    (score,) = [s for s in json.loads(results.read_text())["scores"] if s["name"] == "latent"]
    assert score["metrics"]["fd_sprites"]["value"] > 0
    command(monkeypatch, report.main, str(run), f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert "sprites_gan" in page


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule=cosine", "schedule"),
        ("sampler=ddim", "makes a Sampler, not a LatentSampler"),
        ("conditioning=sketch", "takes no captions or pictures as its condition"),
        ("pairing=hinge", "pairing"),
        ("callbacks=likelihood", "callbacks.bits_per_dim     needs noise levels"),
        ("+conditioning.x=1", "conditioning"),
        ("callbacks=default", "callbacks.samples.sampler  is a Sampler, but the run's"),
        ("discriminator.scales=5", "discriminator  16×16 pixels cannot be"),
        ("+network.shape=[3,8,8]", "network.shape  is no key"),
    ],
)
def test_what_does_not_fit_the_family_is_refused(override, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *GAN, override)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wish", ["steps=3", "guidance=2", "sampler=ddim", "labels=[1]"])
def test_what_a_gan_cannot_draw_is_refused(wish, run, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, sample.main, f"run={run}", "n=2", wish)
    text = capsys.readouterr().err + str(ended.value)
    assert any(word in text for word in ("a GAN draws", "unconditional"))


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (evaluate.main, ["measure=likelihood", "n=2"], "a model with a likelihood, not a GAN"),
        (evaluate.main, ["guidance=[1,2]"], "latent has no guidance"),
        (evaluate.main, ["steps=[5]"], "latent has no steps"),
        (evaluate.main, ["evaluations=[5]"], "latent draws in one evaluation"),
        (figure.main, ["figure=samplers"], "takes a diffusion model, not a GAN"),
        (figure.main, ["figure=captions"], "takes a diffusion model, not a GAN"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_needs_noise_levels_is_refused(main, words, message, run, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, main, f"run={run}", "device=cpu", *words)
    assert message in capsys.readouterr().err + str(ended.value)

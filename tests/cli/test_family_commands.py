"""A VAE and flows are trained, drawn from, evaluated and reported by the same commands."""

import csv
import json

import numpy as np
import pytest
import torch
from commands import command, trained
from PIL import Image

import unnoise
from unnoise.cli import evaluate, figure, report, sample, train
from unnoise.diffusion.noise import Noise
from unnoise.report.figures import sampling

SHARED = (
    "trainer=cpu logger=none data.size=80 data.validation_size=20 batch_size=8 "
    "callbacks.samples.count=4 callbacks.samples.every=4 callbacks.checkpoints.every=2 "
    "validate_every=2 validation_images=8 lr_decay=constant seed=3"
).split()
VAE = "experiment=sprites_vae network.channels=4 network.latent=4 conditioning=class".split()
TARFLOW = (
    "experiment=sprites_tarflow conditioning=class network.patch=4 network.width=8 "
    "network.blocks=2 network.layers=1 network.heads=2"
).split()
REALNVP = "experiment=sprites_realnvp network.width=4 network.couplings=2".split()
FLOW_TERMS = ["prior", "volume"]
TERMS = {"vae": ["reconstruction", "kl"], "tarflow": FLOW_TERMS, "realnvp": FLOW_TERMS}
SIZES = {"vae": VAE, "tarflow": TARFLOW, "realnvp": REALNVP}


@pytest.fixture(scope="module", params=SIZES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    return trained(tmp_path_factory.mktemp(kind) / "run", *SIZES[kind], *SHARED)


def test_bits_are_logged_by_term_and_grids_are_drawn(run, kind):
    assert {path.name for path in (run / "samples").iterdir()} == {"step_00000004.png"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    found = [row for row in rows if "validation/loss" in row]
    assert [row["step"] for row in found] == [2, 4]
    for row in found:
        parts = [row[f"validation/{term}"] for term in TERMS[kind]]
        assert sum(parts) == pytest.approx(row["validation/loss"], rel=1e-5)
        assert row["validation/bits_per_dim"] == row["validation/loss"]
    assert f"train/{TERMS[kind][0]}" in rows[0] | rows[-1]


def test_pictures_drawn_are_those_of_the_model(run, monkeypatch, tmp_path, capsys):
    command(monkeypatch, sample.main, f"run={run}", "n=3", "first=2", f"out={tmp_path}/drawn")
    assert "3 pictures" in capsys.readouterr().out
    array = np.load(tmp_path / "drawn" / "images.npz")["arr_0"]
    model = unnoise.load(run)
    expected = model.sample(5, batch_size=3).nhwc()[2:]
    assert np.abs(array.astype(int) - expected).max() <= 1
    assert not np.array_equal(expected, model.sample(5, seed=1).nhwc()[2:])


def test_it_is_evaluated_and_reported(run, kind, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    command(monkeypatch, evaluate.main, f"run={run}", "n=40", "metrics=[fd]",
            "reference_count=60", "controls=false", "device=cpu")  # fmt: skip
    assert "latent" in capsys.readouterr().out
    command(monkeypatch, evaluate.main, "measure=likelihood", f"run={run}", "n=20", "device=cpu")
    (file,) = run.glob("evaluation/likelihood*.csv")
    rows = {row["term"]: row for row in csv.DictReader(file.open())}
    assert [*rows] == [*TERMS[kind], "in all"]
    means = [float(row["bits/dim"]) for row in rows.values()]
    assert sum(means[:-1]) == pytest.approx(means[-1], rel=1e-5)
    command(monkeypatch, report.main, str(run), f"out={tmp_path / 'page.html'}")
    assert "Bits per dimension" in (tmp_path / "page.html").read_text()


def test_walks_between_latents_begin_and_end_with_samples(run, monkeypatch, tmp_path):
    out = tmp_path / "latents.png"
    words = "figure=latents", f"run={run}", "figure.rows=2", "figure.pictures=3", f"out={out}"
    command(monkeypatch, figure.main, *words, "device=cpu")
    assert Image.open(out).width > 600
    shown = []
    empty = Image.new("RGB", (9, 9))
    monkeypatch.setattr(sampling, "grid", lambda x, *_, **__: shown.append(x) or empty)
    trained = unnoise.load(run, device="cpu")
    sampling.Latents(rows=2, pictures=3).draw(trained)
    samples = trained.model.sample(trained.sampler, Noise(0, torch.arange(4)),
                                   {"label": torch.tensor([0, 0, 1, 1])})  # fmt: skip
    for row, ends in zip(shown, samples.split(2), strict=True):
        assert (row[[0, 2]].int() - ends.int()).abs().max() <= 1
        assert not torch.equal(row[1], row[0])


def test_it_is_resumed(run, kind, monkeypatch, tmp_path):
    part = tmp_path / "part"
    for steps in (2, 4):
        resume = f"resume={part}" if steps == 4 else "resume=false"
        words = *SIZES[kind], *SHARED, f"max_steps={steps}", f"hydra.run.dir={part}", resume
        command(monkeypatch, train.main, *words, "callbacks.samples.every=2")
    file = "checkpoints/step_00000004.ckpt"
    one, two = (torch.load(f / file, weights_only=True)["state_dict"] for f in (part, run))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in two)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (sample.main, ["n=2", "steps=3"], "draws without steps and guidance"),
        (sample.main, ["n=2", "guidance=2"], "draws without steps and guidance"),
        (evaluate.main, ["measure=likelihood", "n=2", "steps=5"], "has no noise levels"),
        (evaluate.main, ["guidance=[1,2]"], "latent has no guidance"),
        (figure.main, ["figure=samplers"], "takes a diffusion model, not a"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_it_lacks_is_refused(main, words, message, run, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, main, f"run={run}", "device=cpu", *words)
    assert message in capsys.readouterr().err + str(ended.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule=cosine", "schedule"),
        ("sampler=ddim", "makes a Sampler, not a LatentSampler"),
        ("conditioning=text", "takes no captions or pictures as its condition"),
        ("condition_dropout=0.1", "condition_dropout"),
        ("callbacks=likelihood", "callbacks.bits_per_dim     needs noise levels"),
        ("+network.shape=[3,8,8]", "network.shape  is no key"),
    ],
)
def test_what_does_not_fit_the_family_is_refused(kind, override, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *SIZES[kind], *SHARED, override)
    assert message in capsys.readouterr().err

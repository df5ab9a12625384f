"""autoencoder=RUN: a run in the latent of another run's autoencoder, by the same commands."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from commands import command, trained
from PIL import Image

import unnoise
from unnoise.cli import evaluate, sample, train, wanted
from unnoise.evaluation.autoencoder import AutoencoderSheet
from unnoise.models.trained import TrainedModel
from unnoise.runs.averaged import weights_digest
from unnoise.runs.first_stage import first_stage
from unnoise.untrusted import UnsafeFile

TINY = (
    "trainer=cpu logger=none data.size=80 data.validation_size=20 batch_size=8 network.channels=8 "
    "network.blocks=1 callbacks.samples.count=4 callbacks.samples.every=2 lr_decay=constant "
    "callbacks.checkpoints.every=2 validate_every=2 validation_images=8 seed=3 precision=fp32"
).split()
LATENT = ["experiment=sprites", *TINY, "sampler.steps=3", "network.head_size=8"]
LATENT += ["prediction=v", "objective=v"]


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("kl") / "run", "experiment=sprites_kl", *TINY)


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def run(autoencoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent") / "run"
    return trained(folder, *LATENT, f"autoencoder={autoencoder}")


def test_the_run_holds_the_autoencoder_s_averaged_weights_and_needs_it_no_more(
    autoencoder, run, monkeypatch, tmp_path
):
    config = yaml.safe_load((run / "config.yaml").read_text())["autoencoder"]
    first = first_stage(autoencoder)
    assert config["digest"] == first.digest
    assert first.digest.partition("-")[0] == weights_digest(first.weights)
    assert config["network"] == first.node
    aside = autoencoder.rename(tmp_path / "aside")
    try:
        model = unnoise.load(run, device="cpu").model
        command(monkeypatch, sample.main, f"run={run}", "n=2", f"out={tmp_path}/drawn")
    finally:
        aside.rename(autoencoder)
    state = model.codec.autoencoder.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in first.weights.items())
    assert np.load(tmp_path / "drawn" / "images.npz")["arr_0"].shape == (2, 16, 16, 3)
    assert first_stage(run).digest == first.digest


def test_it_is_resumed_with_the_same_autoencoder_only(
    autoencoder, run, monkeypatch, tmp_path, capsys
):
    folder = tmp_path / "part"
    for steps, resume, of in ((2, "false", autoencoder), (4, folder, run)):
        command(monkeypatch, train.main, *LATENT, f"max_steps={steps}", f"resume={resume}",
                f"hydra.run.dir={folder}", f"autoencoder={of}")  # fmt: skip
    file = "checkpoints/step_00000004.ckpt"
    one, two = (torch.load(each / file, weights_only=True)["state_dict"] for each in (folder, run))
    assert all(torch.equal(one[key], two[key]) for key in two)
    other = autoencoder / "checkpoints" / "step_00000002.ckpt"
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *LATENT, "max_steps=6", f"resume={folder}",
                f"hydra.run.dir={folder}", f"autoencoder={other}")  # fmt: skip
    assert "autoencoder.digest" in capsys.readouterr().err


def test_edits_and_evaluation_work_in_the_latent(run, monkeypatch, tmp_path):
    model = unnoise.load(run, device="cpu")
    given, mask = tmp_path / "a.png", tmp_path / "mask.png"
    picture = model.validation.read(torch.tensor([0]))[0].permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(given)
    white = np.zeros((16, 16), np.uint8)
    white[4:9, 3:8] = 255
    Image.fromarray(white).save(mask)
    ways = (
        ("edit=inpaint", f"mask={mask}", f"image={given}", "n=2"),
        ("edit=image_to_image", f"image={given}", "n=2"),
        ("edit=interpolate", f"image=[{given},{given}]", "n=3", "sampler=ddim",
         "sampler.steps=4"),
    )  # fmt: skip
    for way in ways:
        command(monkeypatch, sample.main, f"run={run}", *way, f"out={tmp_path / way[0][5:]}")
        drawn = np.load(tmp_path / way[0][5:] / "images.npz")["arr_0"]
        assert drawn.shape[1:] == (16, 16, 3)
        if "inpaint" in way[0]:
            assert (drawn[:, white == 0] == picture[white == 0]).all()
            assert (drawn[:, white > 0] != picture[white > 0]).any()
    command(monkeypatch, evaluate.main, f"run={run}", "n=10", "batch_size=10", "metrics=[fd]",
            "reference_count=30", "device=cpu", "controls=false")  # fmt: skip
    (file,) = (run / "evaluation").glob("quality*n-10*.json")
    assert json.loads(file.read_text())["scores"][0]["metrics"]["fd_sprites"]["value"] > 0


def test_a_likelihood_of_pictures_is_refused_before_a_latent_is_trained_in(
    autoencoder, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, train.main, *LATENT, f"autoencoder={autoencoder}",
                "callbacks=likelihood", "max_steps=1")  # fmt: skip
    assert end.value.code == 2
    assert "callbacks.bits_per_dim  is for models of pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("autoencoder=nowhere/at/all", "there is no run or checkpoint nowhere/at/all"),
        ("autoencoder=trained", "autoencoder.run"),
        ("autoencoder=trian", "did you mean 'trained'?"),
    ],
)
def test_what_is_no_autoencoder_is_told_before(choice, says, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, train.main, *LATENT, choice)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_a_run_of_pixels_has_no_autoencoder(monkeypatch, tmp_path, capsys):
    pixels = trained(tmp_path / "pixels", *LATENT, "max_steps=2")
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *LATENT, f"autoencoder={pixels}")
    assert "is not the run of an autoencoder" in capsys.readouterr().err


def changed(run, to, change):
    """A copy of a run whose newest checkpoint is changed."""
    shutil.copytree(run, to)
    (to / "checkpoints" / "SHA256SUMS").unlink()
    path = to / "checkpoints" / "step_00000004.ckpt"
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, path)
    return to


def test_a_foreign_autoencoder_or_a_missing_scale_is_refused(run, tmp_path):
    def other_weights(state):
        for key in state:
            if key.endswith("codec.autoencoder.network.decoder.conv_out.bias"):
                state[key] += 1e-3

    def no_scale(state):
        for key in state:
            if key.endswith("codec.scale"):
                state[key].fill_(torch.nan)

    with pytest.raises(UnsafeFile, match="not those that the latents were made with"):
        unnoise.load(changed(run, tmp_path / "a", other_weights), device="cpu")
    with pytest.raises(UnsafeFile, match="the scale of its latents was not measured"):
        unnoise.load(changed(run, tmp_path / "b", no_scale), device="cpu")


def test_weights_that_do_not_fit_their_own_config_are_told(
    autoencoder, tmp_path, monkeypatch, capsys
):
    def lacking(state):
        for key in [key for key in state if key.endswith("autoencoder.quant.bias")]:
            del state[key]

    damaged = changed(autoencoder, tmp_path / "a", lacking)
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, train.main, *LATENT, f"autoencoder={damaged}", "max_steps=1")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "does not fit its own config" in said
    assert "quant.bias" in said


@pytest.fixture
def first_stages(tmp_path, monkeypatch):
    """The experiment tiny_kl, which takes two steps; trained in this process, and noted."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [sprites_kl]\nmax_steps: 2\nbatch_size: 8\n"
    text += (
        "validate_every: 2\nnetwork: {channels: 4, blocks: 1}\ncallbacks: {samples: {count: 4}}\n"
    )
    (folder / "tiny_kl.yaml").write_text(text)
    trained = []

    def in_this_process(overrides, arguments):
        trained.append(overrides)
        with pytest.MonkeyPatch.context() as patch:
            command(patch, train.main, *overrides, f"--config-dir={tmp_path}/conf")

    monkeypatch.setattr(wanted, "train", in_this_process)
    return trained


CHAIN = [*LATENT, "autoencoder=trained", "first_stage=tiny_kl", "max_steps=2"]


def test_without_an_autoencoder_the_one_of_its_experiment_is_trained_first(
    first_stages, tmp_path, monkeypatch, capsys
):
    shared = {"trainer=cpu", "logger=none", "data.size=80", "seed=3", "precision=fp32"}
    for number in (1, 2):
        command(monkeypatch, train.main, *CHAIN, f"--config-dir={tmp_path}/conf",
                f"hydra.run.dir={tmp_path}/{number}")  # fmt: skip
    (once,) = first_stages
    assert shared <= set(once)
    assert "max_steps=2" not in once
    (run,) = (tmp_path / "outputs" / "sprites_kl").iterdir()
    for number in ("1", "2"):
        config = yaml.safe_load((tmp_path / number / "config.yaml").read_text())
        assert config["autoencoder"]["digest"] == first_stage(run).digest
    assert "no autoencoder is given: training experiment=tiny_kl" in capsys.readouterr().out


def test_what_else_is_wrong_is_told_before_an_autoencoder_is_trained(
    first_stages, tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *CHAIN, f"--config-dir={tmp_path}/conf", "batch_size=-1")
    assert "batch_size" in capsys.readouterr().err
    assert not first_stages


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("autoencoder.rnu=outputs/sprites_kl/mine", "unknown key; did you mean 'autoencoder.run'?"),
        ("autoencoder=outputs/a,outputs/b", "add -m"),
    ],
)
def test_an_autoencoder_that_is_mistyped_is_no_reason_to_train_another(
    typed, says, first_stages, tmp_path, monkeypatch, capsys
):
    choice = [] if typed.startswith("autoencoder=") else ["autoencoder=trained"]
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *LATENT, *choice, "first_stage=tiny_kl", typed,
                f"--config-dir={tmp_path}/conf")  # fmt: skip
    assert says in capsys.readouterr().err
    assert not first_stages


def test_an_experiment_that_is_none_is_told(first_stages, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, train.main, *LATENT, "autoencoder=trained", "first_stage=sprites_kk")
    said = capsys.readouterr()
    assert "no autoencoder is given: experiment=sprites_kk" in said.out
    assert "did you mean 'sprites_kl'?" in said.err
    assert not first_stages


def test_its_fd_stands_in_the_sheet_of_its_autoencoder(
    autoencoder, run, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    given = ("measure=autoencoder", f"run={autoencoder}", "device=cpu", "n=12")
    command(monkeypatch, evaluate.main, *given, f"diffusion={run}")
    assert "gfd_sprites" in capsys.readouterr().out
    (path,) = (autoencoder / "evaluation").glob("autoencoder*.json")
    rows = {row["number"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["gfd_sprites"]["value"] > rows["gfd_sprites"]["error"] > 0
    assert rows["gfd_sprites"]["note"].startswith("of 12 drawn by sprites after 4 steps")
    command(monkeypatch, evaluate.main, f"run={run}", "n=12", "metrics=[fd]", "device=cpu")
    (path,) = (run / "evaluation").glob("quality*n-12*.json")
    (drawn, *_) = json.loads(path.read_text())["scores"]
    assert drawn["metrics"]["fd_sprites"]["value"] == rows["gfd_sprites"]["value"]
    with pytest.raises(SystemExit):
        command(monkeypatch, evaluate.main, *given, f"diffusion={autoencoder}")
    assert "is not in the latent of this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "says"), [({"size": 90}, None), ({"seed": 7}, "was trained on other data")]
)
def test_a_run_of_fewer_or_more_of_the_same_pictures_is_in_the_sheet(data, says, autoencoder, run):
    path = run / "checkpoints" / "step_00000004.ckpt"
    sheet = AutoencoderSheet(
        run=str(autoencoder), averaged=True, n=3, extractor="auto", weights=None, diffusion=None,
        data_root=None, data_changed="refuse", batch_size=4, device="cpu",
    )  # fmt: skip
    trained, drawing = (TrainedModel.load(each, device="cpu") for each in (autoencoder, path))
    drawing.config["data"] |= data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderSheet, "_drawing", lambda *_: drawing)
        fault = sheet._latent_fault(trained, str(run))
    assert fault is says or says in fault


def test_a_classifier_does_not_guide_in_a_latent(run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, evaluate.main, "measure=adherence", f"run={run}", "classifier=any")
    assert (
        "run  guidance by a classifier of pictures takes a model of pix" in capsys.readouterr().err
    )


def test_a_prediction_that_only_clipping_saves_is_warned_of(
    autoencoder, monkeypatch, capsys, tmp_path
):
    ways = {
        "prediction=epsilon objective=simple": True,
        "prediction=epsilon objective=simple schedule=quadratic": False,
        "prediction=v": False,
    }
    for number, (way, warned) in enumerate(ways.items()):
        chosen = [*LATENT, f"autoencoder={autoencoder}", *way.split(), "max_steps=1"]
        command(monkeypatch, train.main, *chosen, f"hydra.run.dir={tmp_path}/{number}")
        assert ("a latent is not clipped" in capsys.readouterr().err) == warned

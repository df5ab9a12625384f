"""Loading and drawing, from Python and from the command line."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.cli import sample, train
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import CLASSES, Sprites
from unnoise.diffusion.editing import Inpaint, Interpolate
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Ancestral, Sampler
from unnoise.runs.checkpoints import LAYOUT

TINY = (
    "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null "
    "network.attention_resolutions=[] max_steps=6 batch_size=8 validation_images=2 precision=fp32 "
    "sampler=ddim sampler.steps=5 callbacks.samples.count=4 logger=none optimizer.lr=0.01 "
    "data.size=200"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs of models that are asked by nothing, by classes and by drawings: their directories."""
    folder, before = tmp_path_factory.mktemp("runs"), os.getcwd()
    os.chdir(folder)
    try:
        for extra in (
            ["name=plain"],
            ["name=classes", "conditioning=class"],
            ["name=sketches", "conditioning=sketch", "data.validation_size=10"],
        ):
            sys.argv = ["unnoise-train", *TINY, *extra]
            train.main()
    finally:
        os.chdir(before)
    return {p.parent.name: p for p in folder.glob("outputs/*/*")}


def assert_close(drawn, expected, most=1):
    """Up to the rounding of convolutions, which the first step multiplies by 1/alpha_T = 160."""
    assert drawn.shape == expected.shape
    assert (drawn.int() - expected.int()).abs().max() <= most


def differ(a, b, most=1):
    return (a.int() - b.int()).abs().max() > most


def signal(trained, n, scale=1.0):
    """Pictures 0 … n − 1 as DDIM's first and only step leaves them, before they become pixels."""
    sampler, ids = Sampler(DDIM(), steps=1, guidance=Guidance(scale)), torch.arange(n)
    model = trained.model
    batch = model.conditioner and model.conditioner.examples(ids)
    return model.sample_signal(sampler, Noise(0, ids), batch)


def test_picture_k_is_the_same_in_any_batch_and_any_number(run):
    model = unnoise.load(run["plain"])
    whole = model.sample(7, batch_size=7).pixels
    assert_close(model.sample(7, batch_size=3).pixels, whole)
    assert_close(model.sample(2, first=4).pixels, whole[4:6])
    assert not torch.equal(model.sample(7, seed=1).pixels, whole)


def test_the_loaded_model_draws_what_the_run_drew(run):
    drawn = np.asarray(unnoise.load(run["plain"]).sample(4).grid(), dtype=int)
    shown = np.asarray(Image.open(run["plain"] / "samples" / "step_00000006.png"), dtype=int)
    assert np.abs(drawn - shown).max() <= 1


def test_averaged_weights_by_default_and_last_on_request(run):
    content = torch.load(run["plain"] / "checkpoints" / "step_00000006.ckpt", weights_only=True)[
        "state_dict"
    ]
    for averaged, prefix in ((True, "ema.model."), (False, "model.")):
        state = unnoise.load(run["plain"], averaged=averaged).model.state_dict()
        assert all(torch.equal(value, content[prefix + key]) for key, value in state.items())


def test_labels_choose_the_class(run):
    model = unnoise.load(run["classes"])
    turn = model.sample(10).pixels
    assert_close(model.sample(10, labels=[0, 1, 2, 3, 4]).pixels, turn)
    assert model.sample(6).captions == [*CLASSES, CLASSES[0]]
    only = model.sample(10, labels=[3]).pixels
    assert_close(only[[3, 8]], turn[[3, 8]])
    assert differ(only[[0, 1]], turn[[0, 1]])
    with pytest.raises(ValueError, match=r"labels \[7\] are not classes 0 … 4"):
        model.sample(1, labels=[7])
    with pytest.raises(ValueError, match="the model is unconditional"):
        unnoise.load(run["plain"]).sample(1, labels=[0])


def test_sampler_and_steps_can_be_chosen(run):
    model = unnoise.load(run["plain"])
    few = model.sample(2, steps=2).pixels
    assert differ(few, model.sample(2).pixels)
    other = model.sample(2, sampler=Sampler(Ancestral("posterior"), steps=2)).pixels
    assert differ(few, other)


def test_guidance_goes_from_no_class_through_the_class(run):
    """By DDIM's first and only step, which is linear in the guess."""
    model = unnoise.load(run["classes"])
    sampler = Sampler(DDIM(), steps=1)
    one, none = signal(model, 4), signal(model, 4, 0.0)
    far = model.sample(4, sampler=sampler, guidance=3.0).pixels
    assert_close(far, to_pixels(none + 3 * (one - none)))
    assert differ(far, to_pixels(one), 6)
    other = model.sample(4, sampler=sampler, guidance=0.0, labels=[2]).pixels
    assert_close(other, to_pixels(none))
    with pytest.raises(ValueError, match="the model is unconditional"):
        unnoise.load(run["plain"]).sample(1, guidance=2.0)


def test_an_untrained_null_condition_does_not_guide(run):
    model, worse = (unnoise.load(run["classes"], averaged=last) for last in (True, False))
    model.config["condition_dropout"] = 0
    with pytest.raises(ValueError, match=r"guidance 2 needs a null condition.*dropout=0"):
        model.sample(1, guidance=2.0)
    assert len(model.sample(1, guidance=1.0)) == len(model.sample(1, guidance=2.0, weak=worse))


@pytest.mark.parametrize(
    ("name", "says", "captions"),
    [
        ("plain", True, None),
        ("classes", True, ["hero", "non-hero"]),  # as the checkpoint says
        ("classes", False, ["class 0", "class 1"]),
    ],
)
def test_data_that_are_gone_are_missed_by_nobody(name, says, captions, run):
    model = unnoise.load(run[name])
    assert model.facts["classes"] == list(CLASSES)
    model.config["data"]["_target_"] = "elsewhere.Gone"
    if not says:
        model.facts.clear()
    assert model.sample(2).captions == captions


def test_classes_are_asked_for_by_number_or_name(run):
    model = unnoise.load(run["classes"])
    numbers = model.sample(3, labels=[1, 4])
    assert numbers.captions == ["non-hero", "side-facing", "non-hero"]
    for labels in (["non-hero", "side-facing"], ["non-hero", 4]):
        assert torch.equal(model.sample(3, labels=labels).pixels, numbers.pixels)
    assert model.sample(2, labels="food").captions == ["food", "food"]
    with pytest.raises(ValueError, match=r"no class 'fod'; nearest are food, "):
        model.sample(1, labels=["fod"])


def test_an_unconditional_model_never_builds_its_data(run, monkeypatch):
    monkeypatch.setattr(Sprites, "__init__", None)
    assert len(unnoise.load(run["plain"]).sample(1)) == 1


def test_autoguidance_by_another_checkpoint(run):
    model = unnoise.load(run["plain"])
    worse = unnoise.load(run["plain"], averaged=False)
    sampler = Sampler(DDIM(), steps=1)
    good, bad = (signal(each, 2) for each in (model, worse))
    found = model.sample(2, sampler=sampler, guidance=2.0, weak=worse).pixels
    assert_close(found, to_pixels(bad + 2 * (good - bad)))


def test_drawings_are_taken_from_validation_pictures_or_given(run):
    model = unnoise.load(run["sketches"])
    pictures = model.sample(12, batch_size=5)
    assert pictures.prompts.shape == (12, 1, 16, 16)
    assert torch.equal(pictures.prompts[10:], pictures.prompts[:2])
    assert pictures.grid(columns=4).width > pictures.grid(columns=2).width / 2
    images = model.validation.read(torch.tensor([3, 4]))
    given = model.sample(4, images=images)
    assert torch.equal(given.prompts[:2], pictures.prompts[3:5])
    assert torch.equal(given.prompts[2:], given.prompts[:2])
    with pytest.raises(ValueError, match="reads images"):
        model.sample(1, labels=[0])


def test_edits_hold_in_any_batch(run):
    model = unnoise.load(run["plain"])
    pixels = model.sample(1, seed=3).pixels
    image = to_signal(pixels)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 8:] = True
    inpaint = Inpaint(image, mask, resample=2)
    x = model.sample(5, edit=inpaint, batch_size=2).pixels
    assert torch.equal(x[..., :8], pixels[..., :8].expand(5, -1, -1, -1))
    assert_close(x, model.sample(5, edit=inpaint).pixels)
    path = model.sample(5, edit=Interpolate(image, -image, 5), batch_size=3).pixels
    assert_close(path[3:], model.sample(2, first=3, edit=Interpolate(image, -image, 5)).pixels)
    with pytest.raises(ValueError, match="say what the edited picture shows"):
        unnoise.load(run["classes"]).sample(3, edit=inpaint)
    with pytest.raises(ValueError, match="keeps to one label"):
        unnoise.load(run["classes"]).sample(3, edit=Interpolate(image, -image, 3))


def test_shapes_and_scales(run):
    pictures = unnoise.load(run["plain"]).sample(3)
    assert pictures.pixels.dtype == torch.uint8
    assert pictures.nhwc().shape == (3, 16, 16, 3)
    assert [image.size for image in pictures.images()] == [(16, 16)] * 3
    assert np.array_equal(np.asarray(pictures.images()[1]), pictures.nhwc()[1])


def test_what_is_no_checkpoint_is_refused(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="there is no run or checkpoint"):
        unnoise.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        unnoise.load(tmp_path)
    whole = (run["plain"] / "checkpoints" / "step_00000006.ckpt").read_bytes()
    for name, content in (("cut.ckpt", whole[:-1000]), ("text.ckpt", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no (zip|whole) archive"):
            unnoise.load(tmp_path / name)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_read(run, tmp_path, capsys):
    shutil.copytree(run["plain"] / "checkpoints", tmp_path / "checkpoints")
    before, newest = sorted((tmp_path / "checkpoints").glob("step_*.ckpt"))[-2:]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # a weight, which torch reads as if nothing had happened
    newest.write_bytes(content)
    assert [unnoise.load(tmp_path).checkpoint for _ in range(2)] == [before, before]
    assert capsys.readouterr().err.count(f"{newest} is damaged") == 1
    with pytest.raises(ValueError, match="is damaged: it is not what was written"):
        unnoise.load(newest)
    os.truncate(before, 1000)
    for other in set((tmp_path / "checkpoints").glob("step_*.ckpt")) - {before, newest}:
        other.unlink()
    with pytest.raises(FileNotFoundError, match="every checkpoint of"):
        unnoise.load(tmp_path)


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_hostile_checkpoint_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"config": Payload(), "state_dict": {}}, "pickle.ckpt")
    torch.save(
        {"config": {"network": {"_target_": "os.system", "command": "touch executed"},
                    "prediction": {}}, "state_dict": {}, "layout": LAYOUT,
         "model": {"family": "unnoise.models.diffusion.DiffusionModel", "shape": [3, 16, 16]}},
        "target.ckpt",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"pickle\.ckpt names 'posix system'"):
        unnoise.load("pickle.ckpt")
    with pytest.raises(ValueError, match=r"target\.ckpt is not a whole .*'os\.system' is not on"):
        unnoise.load("target.ckpt")
    assert not (tmp_path / "executed").exists()


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-sample", *arguments])
    sample.main()


def test_command_writes_grid_singles_and_an_array(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, f"run={run['plain']}", "n=5", "first=3", "batch_size=2", "out=drawn",
            "sampler=ddim", "steps=3", "seed=9")  # fmt: skip
    expected = unnoise.load(run["plain"]).sample(5, first=3, steps=3, seed=9)
    array = np.load("drawn/images.npz")["arr_0"]
    assert array.dtype == np.uint8
    assert array.shape == (5, 16, 16, 3)
    assert np.abs(array.astype(int) - expected.nhwc()).max() <= 1
    names = sorted(path.name for path in (tmp_path / "drawn" / "images").iterdir())
    assert names == [f"{k:06d}.png" for k in range(3, 8)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn/images/000004.png")), array[1])
    assert json.loads((tmp_path / "drawn/about.json").read_text())["seed"] == 9
    assert "5 pictures in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["run=nowhere"], "run  there is no run or checkpoint nowhere"),
        ([], "run  missing: give it as run=..."),
        (["run=.", "stepz=5"], "did you mean 'steps'?"),
        (["run=.", "n=0"], "n "),
        (["run=.", "sampler=dimm"], "did you mean 'ddim'?"),
    ],
)
def test_command_tells_mistakes(overrides, told, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *overrides)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_is_no_run(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"is a folder of runs.*b$"):
        unnoise.load(tmp_path)

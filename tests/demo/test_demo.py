"""The demo without a browser: what is set becomes a request of unnoise-sample, which draws it."""

import base64
import os
import re
import shlex
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from untrained import make_run

from unnoise.api import load
from unnoise.cli import demo, sample
from unnoise.cli.demo_jobs import prepare, samplers
from unnoise.demo import photos, served
from unnoise.demo.desk import Desk
from unnoise.demo.drawing import Stopped, drawn
from unnoise.networks.conditioning import Edges


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = "none", "class", "sketch"
    return {name: make_run(folder / name, f"conditioning={name}") for name in names}


@pytest.fixture(scope="module")
def models(runs):
    return {name: load(run, device="cpu") for name, run in runs.items()}


def desk(tmp_path, *models):
    titles = [f"run {number}" for number, _ in enumerate(models)]
    return Desk(models, titles, samplers(), prepare, tmp_path)


def last(desk, **values):
    """The page at the end."""
    *_, html = desk.draw({"first": 17, "seed": 3, "n": 1, **values})
    return html


def pictures(html):
    """The PNG files in a page, by the name under which they are saved."""
    found = re.findall(r'href="data:image/png;base64,([^"]+)" download="([^"]+)"', html)
    return {name: base64.b64decode(data) for data, name in found}


def refusal(html):
    return re.search(r'class="refusal" role="alert">(.*?)</p>', html)[1]


def commands(html):
    return [text.replace("&#x27;", "'").replace("&quot;", '"').replace("&amp;", "&")
            for text in re.findall(r"<code>(.*?)</code>", html)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("none", {}),
        ("none", {"sampler": "ddpm", "steps": 3}),
        ("class", {"labels": "side-facing", "guidance": 2.5}),
        ("class", {"labels": ""}),
    ],
)
def test_picture_17_is_that_of_unnoise_sample_to_the_byte(
    name, values, runs, models, tmp_path, monkeypatch
):
    html = last(desk(tmp_path, models[name]), **values)
    monkeypatch.chdir(tmp_path)
    (command,) = commands(html)
    monkeypatch.setattr(sys, "argv", [*shlex.split(command), "out=o"])
    sample.main()
    assert pictures(html) == {"000017.png": (tmp_path / "o/images/000017.png").read_bytes()}


def test_only_the_inputs_of_a_run_are_there(models, tmp_path):
    plain, classes, sketch = (desk(tmp_path, models[name]).inputs for name in models)
    assert (plain.classes, plain.guidance, plain.sketch, plain.captions) == ((), None, False, False)
    assert (*classes.classes,) == models["class"].class_names
    assert classes.guidance == 1
    assert sketch.sketch
    assert not sketch.picture
    assert "ddim" in plain.samplers
    assert "latent" not in plain.samplers  # of a GAN


def test_runs_side_by_side_start_from_one_noise_and_get_what_they_take(models, tmp_path):
    both = desk(tmp_path, models["none"], models["class"])
    html = last(both, labels="food", guidance=1.0)
    assert "refusal" not in html, refusal(html)
    ours = [re.search("labels", command) is not None for command in commands(html)]
    assert ours == [False, True]
    alone = [last(desk(tmp_path, models[name]), labels="food") for name in ("none", "class")]
    drawn = re.findall(r'href="(data[^"]+)"', html)
    assert drawn == [re.search(r'href="(data[^"]+)"', each)[1] for each in alone]
    assert drawn[0] != drawn[1]


def test_runs_of_several_sizes_are_refused(models, tmp_path):
    large = make_run(tmp_path / "large", "data=image_folder", "data.root=x", "data.image_size=32")
    with pytest.raises(ValueError, match="run 0 16×16, run 1 32×32"):
        desk(tmp_path, models["none"], load(large, device="cpu"))


def painted(size, box):
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(layer).rectangle(box, fill=(255, 45, 149, 255))
    return {"background": None, "layers": [layer], "composite": None}


def test_a_painted_mask_keeps_the_rest_to_the_bit(models, tmp_path):
    at = desk(tmp_path, models["none"])
    Image.effect_noise((40, 30), 60).convert("RGB").save(tmp_path / "photo.png")
    photo = at.photo(str(tmp_path / "photo.png"))
    mask = painted((288, 288), (0, 0, 143, 287))
    html = last(at, edit="inpaint", photo=photo, mask=mask, resample=1, n=2)
    for data in pictures(html).values():
        (tmp_path / "drawn.png").write_bytes(data)
        before, after = (np.asarray(Image.open(f)) for f in (photo, tmp_path / "drawn.png"))
        assert np.array_equal(before[:, 8:], after[:, 8:])
        assert (before[:, :8] != after[:, :8]).any()


def test_a_small_strength_keeps_a_picture(models, tmp_path):
    at = desk(tmp_path, models["none"])
    Image.new("RGB", (16, 16), (250, 250, 250)).save(tmp_path / "white.png")
    photo = at.photo(str(tmp_path / "white.png"))
    how = {"edit": "image_to_image", "photo": photo, "sampler": "ddim", "steps": 50}
    (tmp_path / "s.png").write_bytes(*pictures(last(at, **how, strength=0.05)).values())
    assert np.asarray(Image.open(tmp_path / "s.png")).mean() > 220


def test_a_drawn_line_is_the_sketch_that_the_model_sees(tmp_path):
    layer = Image.new("RGBA", (288, 288), (0, 0, 0, 0))
    ImageDraw.Draw(layer).rectangle((72, 90, 215, 107), fill=(0, 0, 0, 255))  # row 5, columns 4–11
    file = photos.sketched({"layers": [layer]}, (16, 16), tmp_path)
    picture = torch.tensor(np.asarray(Image.open(file).convert("RGB"))).permute(2, 0, 1)
    seen, line = Edges()(picture[None])[0, 0], torch.zeros(16, 16)
    line[5, 4:12] = 1
    assert torch.equal(seen, line)
    assert photos.sketched({"layers": []}, (16, 16), tmp_path) is None


def test_a_sketch_is_drawn_to(models, tmp_path):
    html = last(desk(tmp_path, models["sketch"]), sketch=painted((288, 288), (0, 90, 287, 107)))
    assert "prompt of picture 17" in html
    assert "<code>" not in html  # no command: the sketch is in no file of the user's


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"edit": "inpaint"}, "upload a picture"),
        ({"edit": "inpaint", "photo": "p.png", "mask": None}, "the mask marks nothing"),
        ({"n": 1000}, "16 pictures at once"),
        ({"steps": 10**6}, "1000 steps at most"),
        ({"captions": "x" * 2000}, "captions: 1000 letters"),
        ({"seed": -1}, "seed: must be &gt;= 0"),
        ({"sampler": "ddim", "steps": 1001 - 1, "labels": "dragon"}, "no class &#x27;dragon&#x27;"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(values, says, models, tmp_path):
    assert says in refusal(last(desk(tmp_path, models["class"]), **values))


def test_a_caption_is_never_the_name_of_a_file(models, tmp_path):
    keys = desk(tmp_path, models["none"]).keys({"captions": "@/etc/passwd", "n": 1})
    assert keys["captions"] == ["@/etc/passwd"]


def test_uploads_that_are_no_pictures_are_refused_in_words(models, tmp_path, monkeypatch):
    at = desk(tmp_path, models["none"])
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"^text.png is not a picture that can be read"):
        at.photo(str(tmp_path / "text.png"))
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(photos, "MOST_PIXELS", 9999)
    with pytest.raises(ValueError, match=r"^large.png: it has 10,000 pixels") as large:
        at.photo(str(tmp_path / "large.png"))
    assert "data.most_pixels=" not in str(large.value)  # nothing that the browser could set
    monkeypatch.setattr(photos, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"^large.png has 0 MB"):
        at.photo(str(tmp_path / "large.png"))


def test_the_way_is_seen_and_a_stop_ends_it(models, tmp_path):
    job = prepare(models["none"], {"n": 2, "first": 0, "sampler": "ddim", "steps": 400})
    stop, seen = threading.Event(), []
    frames = drawn(job, models["none"], stop)
    seen.append(next(frames))
    stop.set()
    with pytest.raises(Stopped):
        seen += frames
    assert seen[0].pixels.shape == (2, 3, 16, 16)
    assert 0 < seen[-1].step < 400


def test_a_new_press_ends_the_one_before(models, tmp_path):
    at = desk(tmp_path, models["none"])
    before = at.draw({"first": 0, "seed": 0, "n": 1, "sampler": "ddim", "steps": 400}, "browser")
    next(before)
    assert pictures(last(at, steps=2))
    at.stop("browser")
    assert "stopped" in [*before][-1]


def test_gradio_is_told_to_be_quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/")
    served.quiet(tmp_path)
    said = {key: value for key, value in os.environ.items() if key.startswith("GRADIO_")}
    assert said == {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path)}


def test_without_gradio_one_line_says_what_to_install(runs, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["unnoise-demo", f"run={runs['none']}", "port=0"])
    with pytest.raises(SystemExit) as stop:
        demo.main()
    assert stop.value.code == 2
    assert "pip install 'unnoise[demo]'" in capsys.readouterr().err

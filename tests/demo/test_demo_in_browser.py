"""The demo as a person uses it: buttons are pressed and a mask is painted, in headless Chromium."""

import base64
import io

import numpy as np
import pytest
from browser import BROWSER, Browser
from PIL import Image
from untrained import make_run

from unnoise.api import load
from unnoise.cli.demo_jobs import prepare, samplers

pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on PATH")
DONE = "document.querySelectorAll('#shown section.run details').length"
PICTURES = "[...document.querySelectorAll('#shown a[download] img')].map(e => e.src)"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: load(make_run(folder / name, f"conditioning={name}"), device="cpu")
        for name in ("class", "sketch")
    }


@pytest.fixture
def opened(models, tmp_path, monkeypatch):
    """Opens the page of a model; at the end nothing may have come from elsewhere, or failed."""
    from unnoise.demo.desk import Desk
    from unnoise.demo.served import Served, quiet

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that what is set is undone
    quiet(tmp_path)
    serving, browser = [], Browser(tmp_path / "profile")

    def open_page(*names):
        chosen = [models[name] for name in names]
        serving.append(Served(Desk(chosen, names, samplers(), prepare, tmp_path), 0))
        browser.open(serving[0].address)
        browser.until("!!document.querySelector('#draw')")
        return browser

    yield open_page
    fetched, complaints, address = browser.fetched, browser.complaints, serving[0].address
    browser.close()
    serving[0].close()
    assert [f for f in fetched if not f.startswith((address, "data:", "blob:", "about:"))] == []
    assert complaints == []


def images(browser):
    sources = browser.js(PICTURES)
    data = [base64.b64decode(source.partition(",")[2]) for source in sources]
    return [np.asarray(Image.open(io.BytesIO(each))) for each in data]


def test_a_press_draws_each_run_on_the_same_noise(opened, models):
    browser = opened("class", "sketch")
    assert browser.js("!!document.querySelector('#sketch')")
    browser.click("#draw")
    browser.until(f"{DONE} == 2")
    for shown, model in zip(np.split(np.stack(images(browser)), 2), models.values(), strict=True):
        expected = model.sample(4, first=17, seed=0).pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(shown, expected)


def test_a_mask_is_painted_with_the_mouse(opened, tmp_path):
    """A stroke across the middle: the rows above and below are kept, those under it are not."""
    browser = opened("sketch")
    Image.effect_noise((16, 16), 90).convert("RGB").save(tmp_path / "photo.png")
    browser.click("#edit label:nth-of-type(3)")
    browser.until("!!document.querySelector('#photo input[type=file]')")
    browser.upload("#photo input[type=file]", tmp_path / "photo.png")
    browser.until("!!document.querySelector('#mask [aria-label=\"Brush Size\"]')")
    left, top, width, height = browser.place("#mask canvas")
    across = [left + width * share / 20 for share in range(6, 15)]
    browser.stroke([(x, top + height * 0.5) for x in across])
    browser.until("!document.querySelector('#mask [aria-label=Undo]').disabled")
    browser.click("#draw")
    browser.until(f"{PICTURES}.length == 4 && !document.body.innerText.includes(': step')")
    before = np.asarray(Image.open(tmp_path / "photo.png"))
    for after in images(browser):
        same = (before == after).all(axis=(1, 2))
        assert same[:3].all()
        assert same[-3:].all()
        assert not same[7:9].any()


def test_a_file_that_is_no_picture_is_refused_on_the_page(opened, tmp_path):
    browser = opened("class")
    (tmp_path / "text.png").write_text("not a picture")
    browser.click("#edit label:nth-of-type(2)")
    browser.until("!!document.querySelector('#photo input[type=file]')")
    browser.upload("#photo input[type=file]", tmp_path / "text.png")
    said = "text.png is not a picture that can be read"
    browser.until(f"document.body.innerText.includes({said!r})")

import base64
import hashlib
import json
import platform
import re

import pytest
from html_parts import Seen
from made_runs import CONFIG, make, rows, score

from unnoise.evaluation.results import save
from unnoise.report.page import write

EVIL = "<script>window.hit=1</script><img src=x onerror=hit()>\"'&"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)  # of an address elsewhere


@pytest.fixture
def pair(tmp_path):
    one = make(tmp_path / "a", overrides=["seed=0"])
    other = make(tmp_path / "b", rows(loss=2.0), overrides=["seed=1"], seed=1)
    save(one / "evaluation" / "quality_1.json", [score("ddim", 3.0, 10), score("ddpm", 2.0, 50)])
    return one, other


def page(folder, *runs):
    path = folder / "report.html"
    write(path, runs)
    return path.read_text()


def figures(text):
    found = re.findall(r'data-figure="(\w+)"><script type="application/json">(.*?)</script>', text)
    return {kind: json.loads(data) for kind, data in found}


def both(pair, tmp_path):
    return [page(pair[0], pair[0]), page(tmp_path, *pair)]


def test_nothing_is_fetched(pair, tmp_path):
    for text in both(pair, tmp_path):
        for tag, attributes in Seen(text).tags:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            for key, value in attributes.items():
                assert not key.startswith("on")
                assert key != "src" or value.startswith("data:image/")
                assert key != "href" or not SCHEME.match(value)
                assert key not in ("srcset", "poster", "data", "action", "style")
        style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
        assert "url(" not in style
        assert "@import" not in style


def test_the_browser_is_told_to_fetch_nothing_and_run_only_the_page_s_own_script(pair, tmp_path):
    for text in both(pair, tmp_path):
        (policy,) = (a["content"] for _, a in Seen(text).tags
                     if a.get("http-equiv") == "Content-Security-Policy")  # fmt: skip
        script = re.search(r"<script>(.*?)</script>", text, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rest = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
        assert policy.split("; ") == [*rest, f"script-src 'sha256-{digest}'"]


def test_curves_in_the_page_are_those_in_the_files(pair, tmp_path):
    alone, together = both(pair, tmp_path)
    of_one, of_both = figures(alone)["curves"], figures(together)["overlay"]
    for name in ("train/loss", "validation/loss"):
        for k, run in enumerate(pair):
            lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            steps, values = zip(*((row["step"], row[name]) for row in lines), strict=True)
            _, got_steps, got = of_both["curves"][name][k]
            assert got_steps == list(steps)
            assert got == pytest.approx(list(values), rel=1e-5)
            if k == 0:
                assert of_one["curves"][name] == [of_both["curves"][name][0]]


def test_numbers_in_the_leaderboard_are_those_in_the_files(pair, tmp_path):
    text = Seen(page(tmp_path, *pair)).text
    for loss in ("0.2", "0.4", "0.04", "0.08"):
        assert loss in text
    assert "seed=0" in text
    assert "seed=1" in text


def test_runs_are_judged_by_qualities_and_not_by_what_measuring_them_cost(tmp_path):
    bits = "validation/bits_per_dim"
    names = [bits, f"{bits}_prior", f"{bits}_seconds", "quality/fd_sprites", "quality/seconds"]
    lines = [row | dict.fromkeys(names, 1.0) for row in rows()]
    text = page(tmp_path, *(make(tmp_path / name, lines) for name in "ab"))
    heads = re.findall(r'<button type="button">(.*?)</button>', text)
    assert heads[2:7] == ["validation loss", "loss", "bits/dim", "fd_sprites", "images/s"]


def test_text_of_runs_is_never_markup(tmp_path):
    lines = [row | {EVIL: 1.0} for row in rows()]
    runs = [
        make(tmp_path / name, lines, [f"name={EVIL}"], name=EVIL, **{EVIL: EVIL + name})
        for name in ("javascript:hit()", "b<img src=x onerror=hit()>")
    ]
    evil = score(EVIL, 1.0, 5)
    save(runs[0] / "evaluation" / "quality_1.json", [evil])
    (runs[0] / "manifest.json").write_text(json.dumps({"device": EVIL, "failed": EVIL}))
    rogue = {"measure": EVIL, EVIL: EVIL, "rows": [{EVIL: EVIL}]}
    (runs[0] / "evaluation" / "x.json").write_text(json.dumps(rogue))
    (runs[1] / "config.yaml").write_text(f"a: '{EVIL}'\nb: [")
    for text in (page(runs[0], runs[0]), page(tmp_path, *runs)):
        seen = Seen(text)
        assert EVIL in seen.text
        assert len([tag for tag, _ in seen.tags if tag == "script"]) == 1 + text.count(
            "data-figure="
        )
        for tag, attributes in seen.tags:
            assert "onerror" not in attributes
            assert attributes.get("src", "data:").startswith("data:")
            assert not attributes.get("href", "").startswith("javascript:")
            assert tag != "img" or set(attributes) == {"src", "alt"}


def test_links_lead_to_what_is_there(pair, tmp_path):
    page(pair[0], pair[0])
    hrefs = [a["href"] for tag, a in Seen(page(tmp_path, *pair)).tags if tag == "a"]
    assert {"a/report.html", "b", "a/checkpoints/step_00000100.ckpt"} <= set(hrefs)
    assert all((tmp_path / href).exists() for href in hrefs)


def test_a_run_that_has_just_begun(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    text = Seen(page(run, run)).text
    assert "nothing was logged yet" in text
    assert "state unknown" in text


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("manifest.json", '{"resumed": null, "overrides": 5}', "manifest.json: resumed is None"),
        ("manifest.json", '{"seconds": NaN}', ""),
        ("manifest.json", '{"seconds": "long"}', "seconds is 'long'"),
        ("manifest.json", '{"pid": 1e999}', "pid is inf"),
        ("manifest.json", f'{{"pid": {2**70}, "host": {json.dumps(platform.node())}}}', ""),
        ("config.yaml", "a: &a [*a]", "config.yaml is nested more than 100 deep"),
        ("config.yaml", "a: [2020-01-01]", ""),
        ("metrics.jsonl", '{"step": 1e999, "time": 1.0}\n', "metrics.jsonl, line 1 is left out"),
    ],
)
def test_damage_never_keeps_the_page_from_being_written(file, content, told, tmp_path):
    run, sound = make(tmp_path / "a"), make(tmp_path / "b")
    (run / file).write_text(content)
    for runs in ([run], [run, sound]):
        assert told in Seen(page(tmp_path, *runs)).text


def test_a_broken_picture_is_told(pair):
    (pair[0] / "samples" / "step_00000050.png").write_bytes(b"\x89PNG")
    assert "step_00000050.png is unreadable" in Seen(page(pair[0], pair[0])).text


def test_whether_grids_began_from_the_same_noise(pair, tmp_path):
    assert "The seeds differ" in page(tmp_path, *pair)
    same = make(tmp_path / "c")
    assert "began from the same noise (seed 0)" in page(tmp_path, pair[0], same)
    other = make(tmp_path / "d", data=CONFIG["data"] | {"image_size": 32})
    assert "differ in size" in page(tmp_path, pair[0], other)


def test_twenty_long_runs_make_a_page_below_10_mb(tmp_path):
    names = [f"train/metric_{k}" for k in range(14)]
    lines = [{"step": k, "time": float(k)} | dict.fromkeys(names, 1 / (k + 3)) for k in range(1000)]
    text = "".join(json.dumps(row) + "\n" for row in lines)
    runs = [make(tmp_path / str(k), [], seed=k) for k in range(20)]
    for run in runs:
        (run / "metrics.jsonl").write_text(text)
    whole = page(tmp_path, *runs)
    assert len(whole) < 10_000_000
    curves = figures(whole)["overlay"]["curves"][names[0]]
    assert len(curves) == 20
    assert all(300 < len(steps) <= 1000 for _, steps, _ in curves)

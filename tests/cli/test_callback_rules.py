"""What is wrong with a measurement is told before a run starts, and the clock comes first."""

import pytest

from unnoise.cli import train
from unnoise.config.compose import check_command_line

QUALITY = "callbacks.quality"


def composed(*overrides):
    config, found = check_command_line("train", ["logger=none", *overrides])
    assert config is not None
    return config, found


def told(*overrides):
    config, found = composed(*overrides)
    found += train.check(config)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"{QUALITY}.metrics=[fd,fid]"],
            f"{QUALITY}.metrics: there is no metric fid; did you mean 'fd' (its number is "
            "fd_sprites)?",
        ),
        (
            [f"{QUALITY}.metrics=[fd_garments]"],
            f"{QUALITY}.metrics: there is no metric fd_garments; did you mean 'fd' (its number is "
            "fd_sprites)?",
        ),
        (
            [f"{QUALITY}.metrics=[fid]", f"{QUALITY}.extractor=inception"],
            f"{QUALITY}.metrics: there is no metric fid; did you mean 'fd' (its number is fid)?",
        ),
        (
            [f"{QUALITY}.metrics=[recal]"],
            f"{QUALITY}.metrics: there is no metric recal; did you mean 'recall'?",
        ),
        ([f"{QUALITY}.metrics=fd"], f"{QUALITY}.metrics: 'fd' is not"),
        ([f"{QUALITY}.metrics=[]"], f"{QUALITY}.metrics: is empty: give at least one of fd,"),
        ([f"{QUALITY}.count=5"], f"{QUALITY}.count: must be > 5, not 5"),
        ([f"{QUALITY}.reference_count=2"], f"{QUALITY}.reference_count: must be > 5, not 2"),
        ([f"{QUALITY}.every=0"], f"{QUALITY}.every: must be >= 1, not 0"),
        ([f"{QUALITY}.extractor=[3]"], f"{QUALITY}.extractor:"),
        ([f"{QUALITY}.weights=3", f"{QUALITY}.extractor=inception"], f"{QUALITY}.weights:"),
        ([f"{QUALITY}.split=test"], f"{QUALITY}.split:"),
        (
            [f"{QUALITY}.extractor=sprits"],
            f"{QUALITY}.extractor: there is no extractor sprits; did you mean 'sprites'? (auto,",
        ),
        (
            [f"{QUALITY}.extractor=inception", f"{QUALITY}.weights=none.pth"],
            f"{QUALITY}.weights: there is no file none.pth",
        ),
        ([f"{QUALITY}.weights=none.pth"], f"{QUALITY}.weights: are those of inception, but"),
        (["schedule.T=10", "sampler.steps=5", "callbacks.samples.sampler.steps=5"], "20 steps"),
    ],
    ids=str,
)
def test_a_quality_that_cannot_be_measured(overrides, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = told("callbacks=quality", *overrides)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize("overrides", [["+callbacks@callbacks.all=quality"], ["+callbacks.all=5"]])
def test_what_is_no_callback(overrides):
    found = [each for each in told(*overrides) if each.startswith("callbacks.all: is no callback")]
    assert found, told(*overrides)
    assert ("callbacks=..." in found[0]) == ("quality" in overrides[0])


@pytest.mark.parametrize("steps", [1, 1001, "few"])
def test_a_bound_of_too_few_or_too_many_steps(steps):
    found = told("callbacks=likelihood", f"callbacks.bits_per_dim.steps={steps}")
    assert any("callbacks.bits_per_dim.steps" in problem for problem in found), found


@pytest.mark.parametrize("option", ["default", "quality", "likelihood"])
def test_the_clock_of_training_stops_before_anything_is_drawn(option):
    config, _ = composed(f"callbacks={option}")
    assert list(config["callbacks"])[:2] == ["bad_numbers", "metrics"]


def test_both_measurements_at_once():
    both = ["callbacks=quality", "+callbacks.bits_per_dim="
            "{_target_: unnoise.training.callbacks.likelihood.BitsPerDim}"]  # fmt: skip
    assert told(*both) == []
    assert {"metrics", "quality", "bits_per_dim"} <= set(composed(*both)[0]["callbacks"])

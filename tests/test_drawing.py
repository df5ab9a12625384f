"""What is drawn once is kept, and gone on with."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from untrained import make_run

import unnoise
from unnoise.drawing import Gallery, Setting, draw


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("drawing") / "run", "conditioning=class")


@pytest.fixture(scope="module")
def trained(run):
    return unnoise.load(run, device="cpu")


@pytest.fixture
def setting(trained):
    node = {**trained.config["sampler"], "steps": 2}
    return Setting(trained.checkpoint, True, node, seed=3, precision="fp32")


def test_pictures_are_those_of_the_model(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    draw(gallery, trained, 5, batch_size=2)
    expected = trained.sample(5, steps=2, seed=3).pixels
    assert (gallery.read(5).int() - expected.int()).abs().max() <= 1  # by summation order


def test_a_stopped_drawing_goes_on_where_it_stopped(setting, trained, tmp_path):
    whole, stopped = (Gallery(tmp_path / name, setting) for name in "ab")
    draw(whole, trained, 7, batch_size=2)
    taken = []

    def stop(pictures):
        taken.append(pictures)
        if len(taken) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(stopped, trained, 7, batch_size=2, watch=stop)
    assert stopped.missing(7, 2) == [range(4, 6), range(6, 7)]
    with pytest.raises(ValueError, match="pictures from 4 on are not drawn"):
        stopped.read(7)
    draw(stopped, trained, 7, batch_size=2)
    assert torch.equal(stopped.read(7), whole.read(7))
    draw(stopped, trained, 7, batch_size=2, watch=pytest.fail)


def test_more_pictures_begin_with_those_that_are_there(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    draw(gallery, trained, 3, batch_size=3)
    first = gallery.read(3)
    draw(gallery, trained, 6, batch_size=3)
    assert torch.equal(gallery.read(6)[:3], first)
    assert torch.equal(gallery.read(2), first[:2])


def test_processes_share_the_work_and_give_the_same(setting, trained, tmp_path):
    alone, shared = (Gallery(tmp_path / name, setting) for name in "ab")
    draw(alone, trained, 7, batch_size=2)
    plan = shared.missing(7, 2)
    for rank in (1, 0):  # each sees the plan as it was when all began
        ranks = Gallery(tmp_path / "b", setting)
        ranks.missing = lambda n, at_once: plan
        draw(ranks, trained, 7, batch_size=2, rank=rank, ranks=2)
    assert torch.equal(shared.read(7), alone.read(7))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"averaged": False},
        {"precision": "bf16"},
        {"sampler": {"steps": 3}},
    ],
)
def test_another_setting_has_another_gallery(setting, other, tmp_path):
    first = Gallery(tmp_path, setting)
    assert Gallery(tmp_path, replace(setting, **other)).folder != first.folder
    assert Gallery(tmp_path, replace(setting)).folder == first.folder


def test_another_checkpoint_of_the_same_name_has_another_gallery(setting, tmp_path):
    content = bytearray(setting.checkpoint.read_bytes())
    content[-1] ^= 1
    changed = tmp_path / setting.checkpoint.name
    changed.write_bytes(content)
    moved = replace(setting, checkpoint=changed)
    assert Gallery(tmp_path, moved).folder != Gallery(tmp_path, setting).folder


def test_cost_counts_every_evaluation_of_the_network(setting, trained, tmp_path):
    draw(Gallery(tmp_path, setting), trained, 4, batch_size=2)
    assert Gallery(tmp_path, setting).cost[1] == 2
    guided = {**setting.sampler, "guidance": {**setting.sampler["guidance"], "scale": 2.0}}
    draw(twice := Gallery(tmp_path, replace(setting, sampler=guided)), trained, 4, batch_size=4)
    assert twice.cost[1] == 4
    assert json.loads((twice.folder / "setting.json").read_text())["seed"] == 3

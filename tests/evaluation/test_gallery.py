"""What is drawn once is kept, and gone on with."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from untrained import make_run

import unnoise
from unnoise.config.schema import arguments
from unnoise.distributed.environment import Place
from unnoise.evaluation import gallery as drawing
from unnoise.evaluation.gallery import Gallery, SampleSet
from unnoise.models.drawn import Drawn
from unnoise.runs.identity import Argument


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("drawing") / "run", "conditioning=class")


@pytest.fixture(scope="module")
def trained(run):
    return unnoise.load(run, device="cpu")


@pytest.fixture
def setting(trained):
    node = {**trained.config["sampler"], "steps": 2}
    return SampleSet(checkpoint=trained.checkpoint, recipe=node, seed=3)


def test_pictures_are_those_of_the_model(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    gallery.draw(trained, 5, batch_size=2)
    expected = trained.sample(5, steps=2, seed=3).pixels
    assert (gallery.read(5).int() - expected.int()).abs().max() <= 1  # by summation order


def test_a_generator_without_a_schedule_is_drawn_from_alike(setting, tmp_path):
    network = torch.nn.Identity()

    def draw(n, *, first, **options):
        network(torch.zeros(n, 3))
        return Drawn(torch.arange(first, first + n).byte().view(n, 1, 1, 1))

    model = SimpleNamespace(network=network, device=torch.device("cpu"))
    gallery = Gallery(tmp_path, setting)
    gallery.draw(SimpleNamespace(model=model, draw=draw), 5, batch_size=2)
    assert gallery.read(5).flatten().tolist() == [0, 1, 2, 3, 4]
    assert gallery.cost[1] == 1


def test_a_stopped_drawing_goes_on_where_it_stopped(setting, trained, tmp_path):
    whole, stopped = (Gallery(tmp_path / name, setting) for name in "ab")
    whole.draw(trained, 7, batch_size=2)
    taken = []

    def stop(pictures):
        taken.append(pictures)
        if len(taken) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.draw(trained, 7, batch_size=2, watch=stop)
    assert stopped.missing(7, 2) == [range(4, 6), range(6, 7)]
    with pytest.raises(ValueError, match="pictures from 4 on are not drawn"):
        stopped.read(7)
    stopped.draw(trained, 7, batch_size=2)
    assert torch.equal(stopped.read(7), whole.read(7))
    stopped.draw(trained, 7, batch_size=2, watch=pytest.fail)


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_no_flipped_bit_becomes_a_picture(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    gallery.draw(trained, 2, batch_size=2)
    right, (path,) = gallery.read(2), gallery.folder.glob("*.npz")
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        gallery = Gallery(tmp_path, setting)
        if gallery.missing(2, 2):
            noticed += 1
        else:
            assert torch.equal(gallery.read(2), right), place
    assert noticed > len(whole) / 13 / 2


def test_more_pictures_begin_with_those_that_are_there(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    gallery.draw(trained, 3, batch_size=3)
    first = gallery.read(3)
    gallery.draw(trained, 6, batch_size=3)
    assert torch.equal(gallery.read(6)[:3], first)
    assert torch.equal(gallery.read(2), first[:2])


def test_processes_share_the_work_and_give_the_same(setting, trained, tmp_path):
    alone, shared = (Gallery(tmp_path / name, setting) for name in "ab")
    alone.draw(trained, 7, batch_size=2)
    drawn = []
    for rank in (2, 0, 1):  # each looks at what is missing when others have drawn their share
        shared.draw(trained, 7, batch_size=2, place=Place(rank, rank, 3), watch=drawn.append)
    assert sum(drawn) == 7
    assert torch.equal(shared.read(7), alone.read(7))
    for rank in (1, 0):
        shared.draw(trained, 12, batch_size=3, place=Place(rank, rank, 2), watch=drawn.append)
    assert sum(drawn) == len(shared.read(12)) == 12


def test_a_damaged_file_is_drawn_anew(setting, trained, tmp_path):
    gallery = Gallery(tmp_path, setting)
    gallery.draw(trained, 5, batch_size=2)
    right = gallery.read(5)
    path = gallery.folder / "000002-000003.npz"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"no zip at all"):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=r"000002-000003\.npz is damaged"):
            assert Gallery(tmp_path, setting).missing(5, 2) == [range(2, 4)]
        assert not path.exists()
    (gallery := Gallery(tmp_path, setting)).draw(trained, 5, batch_size=2)
    assert torch.equal(gallery.read(5), right)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"averaged": False},
        {"precision": "bf16"},
        {"recipe": {"steps": 3}},
        {"prompts": "digest of other pictures"},
        {"classifier": "digest of a file"},
    ],
)
def test_another_setting_has_another_gallery(setting, other, tmp_path):
    first = Gallery(tmp_path, setting)
    assert Gallery(tmp_path, replace(setting, **other)).folder != first.folder
    assert Gallery(tmp_path, replace(setting)).folder == first.folder


def test_a_further_argument_at_its_default_leaves_every_gallery_where_it_is(setting, monkeypatch):
    def with_churn(path):
        churn = {"churn": Argument(0.0)} if path == setting.recipe["_target_"] else {}
        return arguments(path) | churn

    @dataclass(frozen=True, kw_only=True)
    class Grown(SampleSet):
        tiles: int = 1

    monkeypatch.setattr(drawing, "arguments", with_churn)
    keys = {}
    for churn in (0, 0.5):
        for tiles in (1, 2):
            values = vars(setting) | {"recipe": {**setting.recipe, "churn": churn}}
            values.pop("model", None)
            keys[churn, tiles] = Grown(**values, tiles=tiles).key
    assert keys.pop((0, 1)) == setting.key
    assert len({setting.key, *keys.values()}) == 4


def test_a_default_that_is_written_out_is_the_same_as_one_that_is_not(setting):
    guidance = {"_target_": "unnoise.diffusion.guidance.Guidance", "scale": 1}
    for other in ({"guidance": guidance}, {"spacing": "uniform"}):
        assert replace(setting, recipe=setting.recipe | other).key == setting.key


@pytest.mark.parametrize("version", ["VERSION", "ROUNDING"])
def test_samplers_that_draw_differently_do_not_reuse_a_gallery(setting, version, monkeypatch):
    before = setting.key
    monkeypatch.setattr(drawing, version, "another")
    assert setting.key != before


def test_a_checkpoint_under_another_name_has_the_same_gallery(setting, tmp_path):
    (tmp_path / "copy.ckpt").write_bytes(setting.checkpoint.read_bytes())
    assert replace(setting, checkpoint=tmp_path / "copy.ckpt").key == setting.key


def test_another_checkpoint_of_the_same_name_has_another_gallery(setting, tmp_path):
    content = bytearray(setting.checkpoint.read_bytes())
    content[-1] ^= 1
    changed = tmp_path / setting.checkpoint.name
    changed.write_bytes(content)
    moved = replace(setting, checkpoint=changed)
    assert Gallery(tmp_path, moved).folder != Gallery(tmp_path, setting).folder


def test_cost_counts_every_evaluation_of_the_network(setting, trained, tmp_path):
    Gallery(tmp_path, setting).draw(trained, 4, batch_size=2)
    assert Gallery(tmp_path, setting).cost[1] == 2
    guided = {**setting.recipe, "guidance": {**setting.recipe["guidance"], "scale": 2.0}}
    (twice := Gallery(tmp_path, replace(setting, recipe=guided))).draw(trained, 4, batch_size=4)
    assert twice.cost[1] == 4
    assert json.loads((twice.folder / "samples.json").read_text())["seed"] == 3


def test_a_checkpoint_is_read_once_for_all_its_settings(setting, tmp_path, monkeypatch):
    read, digest = [], drawing.file_digest
    monkeypatch.setattr(drawing, "file_digest", lambda path: read.append(path) or digest(path))
    copy = tmp_path / "step_00000001.ckpt"
    copy.write_bytes(setting.checkpoint.read_bytes())
    first = replace(setting, checkpoint=copy)
    folders = {Gallery(tmp_path, replace(first, seed=seed)).folder for seed in (0, 1, 1)}
    assert (len(folders), len(read)) == (2, 1)
    copy.write_bytes(copy.read_bytes() + b"more")
    assert Gallery(tmp_path, replace(first, seed=1)).folder not in folders
    assert len(read) == 2


def test_a_folder_says_what_is_drawn_and_one_under_its_digest_alone_is_found(setting, tmp_path):
    assert Gallery(tmp_path, setting).folder == tmp_path / f"ddim-2_seed-3_{setting.key}"
    guidance = {**setting.recipe["guidance"], "scale": 2.5}
    guided = replace(setting, recipe={**setting.recipe, "guidance": guidance})
    assert Gallery(tmp_path, guided).folder.name == f"ddim-2_guidance-2.5_seed-3_{guided.key}"
    old = tmp_path / setting.key
    old.mkdir()
    assert Gallery(tmp_path, setting).folder == old

"""unnoise-evaluate as a user types it, on untrained models and judges."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import make_run

import unnoise
from unnoise.cli import evaluate
from unnoise.config.nodes import instantiate
from unnoise.data.scenes import Scenes
from unnoise.data.sprites import KINDS, Sprites
from unnoise.evaluation.adherence import compared, through
from unnoise.evaluation.classifiers import PromptSet, pixels, prompt_sets, shown, splits
from unnoise.evaluation.likelihood import Likelihood
from unnoise.models.classifier import NoisyClassifier


def make_judge(path, target="label", **data):
    """An untrained judge for the data of these runs."""
    node = {"_target_": "unnoise.networks.encoder.UNetEncoder", "shape": [3, 16, 16],
            "classes": 5, "channels": 8, "multipliers": [1]}  # fmt: skip
    source = {"_target_": "unnoise.data.sprites.Sprites", "image_size": 16, "channels": 3,
              "classes": 5, "seed": 0, **data}  # fmt: skip
    names = ("hero", "non-hero", "food", "spell", "side-facing")
    about = {"network": node, "data": source}
    NoisyClassifier(instantiate(node), names, target, about).save(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    make_run(folder / "plain", "schedule.T=40")
    make_run(folder / "classes", "conditioning=class", "schedule.T=40")
    make_run(folder / "certain", "conditioning=class", "condition_dropout=0")
    (make_run(folder / "full", "conditioning=class") / "evaluation").write_text("")
    make_judge(folder / "judge.pt")
    mute = NoisyClassifier.load(folder / "judge.pt")
    del mute.about["data"]
    mute.save(folder / "mute.pt")
    named = NoisyClassifier.load(folder / "judge.pt")
    named.names = ("hero", "non-hero", "spell", "food", "side-facing")
    named.save(folder / "named.pt")
    make_judge(folder / "other.pt", seed=1)
    make_judge(folder / "kinds.pt", target="kind")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(monkeypatch, *arguments):
    adherence = [] if any("measure=" in each for each in arguments) else ["measure=adherence"]
    monkeypatch.setattr(sys, "argv", ["unnoise-evaluate", *adherence, *arguments])
    evaluate.main()


def test_adherence_is_what_the_judge_says_of_what_the_model_draws(home, monkeypatch, capsys):
    command(monkeypatch, f"run={home / 'classes'}", f"judge={home / 'judge.pt'}", "n=12",
            "guidance=[1,3]", "batch_size=5", "seed=4", "steps=2")  # fmt: skip
    (whole,) = (home / "classes" / "evaluation").glob("adherence_*.json")
    result = json.loads(whole.read_text())
    judge, model = NoisyClassifier.load(home / "judge.pt"), unnoise.load(home / "classes")
    validation = Sprites(60, 40).images("validation")
    expected = [int((judge.predict(validation.images) == validation.labels).sum())]
    for scale in (1.0, 3.0):
        drawn = model.sample(12, steps=2, seed=4, guidance=scale, labels=range(5)).pixels
        expected.append(int((judge.predict(drawn) == torch.arange(12) % 5).sum()))
    assert [row["agreed"] for row in result["rows"]] == expected
    assert [row["guidance"] for row in result["rows"]] == [None, 1, 3]
    assert [row["n"] for row in result["rows"]] == [40, 12, 12]
    assert (result["seed"], result["steps"]) == (4, 2)
    table = list(csv.DictReader(whole.with_suffix(".csv").open()))
    assert [int(row["agreed"]) for row in table] == expected
    assert {"sampler", "checkpoint", "judges", "seed", "steps"} <= set(result)
    assert len(result["judges"]["label"]) == 64
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == [
        "pictures",
        "prompts",
        "guidance",
    ]


def test_the_newest_fitting_judge_is_found(home, monkeypatch, tmp_path):
    """Of two that fit, beside one for other data and one for no data, both newer."""
    digests = {}
    for age, (name, seed) in enumerate((("a", 0), ("d", 0), ("b", 1), ("c", None))):
        path = tmp_path / "outputs" / "classifiers" / name / "classifier.pt"
        torch.manual_seed(age)
        judge = NoisyClassifier.load(make_judge(path, seed=seed))
        if seed is None:
            del judge.about["data"]
            judge.save(path)
        os.utime(path, (1000 + age, 1000 + age))
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(set(digests.values())) == 4
    command(monkeypatch, f"run={home / 'classes'}", "n=5", "guidance=[1]", "steps=1", "seed=9")
    files = (home / "classes" / "evaluation").glob("adherence_*.json")
    (result,) = (each for each in (json.loads(f.read_text()) for f in files) if each["seed"] == 9)
    assert result["judges"]["label"] == digests["d"]


def test_the_last_weights_are_measured_on_request(tmp_path, monkeypatch):
    run, terms = make_run(tmp_path / "run", "schedule.T=4"), {}
    for averaged in ("true", "false"):
        command(monkeypatch, f"run={run}", "measure=likelihood", "n=2", f"averaged={averaged}")
    for file in (run / "evaluation").glob("*.json"):
        result = json.loads(file.read_text())
        terms[result["averaged"]] = [row["bits/dim"] for row in result["rows"]]
    assert terms[True][0] == terms[False][0], "the prior knows no weights"
    assert terms[True][1] != pytest.approx(terms[False][1], rel=1e-4)


def test_data_are_read_where_they_are_now(tmp_path, monkeypatch, capsys):
    """Of grey pictures and of bright ones the prior of a run with few levels differs."""
    for name, grey in (("grey", 128), ("bright", 250)):
        for number in range(16):
            (tmp_path / name / "a").mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", (16, 16), (grey, grey, number))
            picture.save(tmp_path / name / "a" / f"{number}.png")
    run = make_run(tmp_path / "run", "data=image_folder", f"data.root={tmp_path / 'grey'}",
                   "data.image_size=16", "data.validation_share=0.5", "schedule.T=4",
                   "batch_size=1")  # fmt: skip
    priors = []
    for root in ([], [f"data_root={tmp_path / 'bright'}"]):
        command(monkeypatch, f"run={run}", "measure=likelihood", "n=2", *root)
        told = capsys.readouterr().out
        priors.append(float(told.partition("prior L_T")[2].split()[0]))
    assert abs(priors[0] - priors[1]) > 0.1


def test_run_and_judge_are_read_once(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "conditioning=class")
    (tmp_path / "judge").mkdir()
    make_judge(tmp_path / "judge" / "classifier.pt")
    read, load = [], torch.load

    def spy(path, map_location, **how):
        read.extend([path] if map_location == "cpu" else [])
        return load(path, map_location, **how)

    monkeypatch.setattr(torch, "load", spy)
    command(monkeypatch, f"run={run}", f"judge={tmp_path / 'judge'}", "n=2", "steps=1")
    assert sorted(path.suffix for path in read) == [".ckpt", ".pt"]


def test_an_unconditional_model_is_judged_when_a_classifier_guides_it(home, monkeypatch, capsys):
    command(monkeypatch, f"run={home / 'plain'}", "n=5", "guidance=[0,2]", "steps=2",
            f"classifier={home / 'judge.pt'}", f"judge={home / 'judge.pt'}")  # fmt: skip
    told = capsys.readouterr()
    assert "also guides, and so judges itself" in told.err
    assert told.out.count("drawn") == 2


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "run  missing: give it as run=..."),
        (["run=nowhere"], "run  there is no run or checkpoint nowhere"),
        (["run={plain}"], "run  the model is unconditional: it has no prompts"),
        (
            ["run={classes}"],
            "train it by unnoise-classifier data=… data.image_size=16 target=label",
        ),
        (["run={classes}", "judge={kinds}"], "no judge of label for this data among those"),
        (["run={classes}", "judge=none.pt"], "judge  [Errno 2] No such file"),
        (["run={classes}", "judge=[{judge},{other}]"], "is for other data: seed 1, not 0"),
        (["run={classes}", "judge={named}"], "for other classes: label 2 means spell, not food"),
        (["run={classes}", "classifier={other}"], "classifier  "),
        (["run={classes}", "guidance=[1,much]"], "guidance.1  'much' is not a number"),
        (["run={classes}", "guidance=[-1]"], "guidance.0  must be >= 0"),
        (["run={classes}", "guidance=[]"], "guidance  is empty"),
        (["run={certain}", "judge={judge}"], "guidance  guidance 2 needs a null condition"),
        (["run={classes}", "judge={mute}"], "mute.pt does not say what data it is for"),
        (["run=${{nope}}"], "refers to 'nope', which does not exist"),
        (["run={classes}", "device=${{nope}}"], "refers to 'nope', which does not exist"),
        (["run={classes}", "device=meta"], "device  meta cannot be used here"),
        (["run={classes}", "measure=likelihood", "sampler=ddim"], "sampler=ddim  is not a part of"),
        (["run={classes}", "measure=likelihood", "judge={judge}"], "unknown key"),
        (["run={classes}", "measure=likelihood", "steps=1"], "steps  must be >= 2"),
        (["run={classes}", "data_root=nowhere"], "data_root  the run's data are not read"),
        (["run={full}", "judge={judge}"], "evaluation is a file, not a folder"),
        (["run={classes}", "steps=41"], "41 steps with a schedule of T=40"),
        (["run={classes}", "measure=adherance"], "measure"),
        (["run={classes}", "n=1"], "n "),
        (["run={judge}"], "is not a whole checkpoint of unnoise"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_before_anything_is_drawn(
    overrides, told, home, monkeypatch, capsys, tmp_path
):
    names = {name: home / name for name in ("plain", "classes", "certain", "full")}
    names |= {name: home / f"{name}.pt" for name in ("judge", "other", "kinds", "mute", "named")}
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *(each.format(**names) for each in overrides))
    assert stop.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split("\n"))
    assert list(tmp_path.iterdir()) == []


class Oracle:
    """Knows each picture of some sprites by heart."""

    def __init__(self, target, *images):
        self.target, self.names = target, splits(Sprites(60, 40), target).names
        self.known = {
            pixels.numpy().tobytes(): label
            for part in images
            for pixels, label in zip(part.images, shown(part, target, self.names), strict=True)
        }

    def predict(self, image):
        return torch.stack([self.known[each.numpy().tobytes()] for each in image])


def test_captions_are_of_pairings_seen_and_held_out():
    """A model that shows the caption before its prompt fails where that differs."""
    seen, held_out = prompt_sets(Sprites(60, 40), ("kind", "colour"), 30)
    judges = {t: Oracle(t, seen.real, held_out.real) for t in ("kind", "colour")}
    for prompts in (seen, held_out):
        assert prompts.options(judges)["captions"] == list(prompts.real.captions)
        real = compared("real", prompts, None, judges, pixels(prompts.real))
        assert [row.agreement.share for row in real] == [1, 1, 1]
        for offset in (0, 1):
            shuffled = prompts.real.images[(np.arange(30) - offset) % 30]
            rows = list(compared("drawn", prompts, 2.0, judges, shuffled))
            assert [row.label for row in rows] == ["kind", "colour", "kind and colour"]
            assert {row.guidance for row in rows} == {2.0}
            first = prompts.real.attributes[:30]
            moved = [first[k - offset] for k in range(30)]
            pairs = list(zip(first, moved, strict=True))
            assert [row.agreement.agreed for row in rows] == [
                sum(a.kind == b.kind for a, b in pairs),
                sum(a.colour == b.colour for a, b in pairs),
                sum((a.kind, a.colour) == (b.kind, b.colour) for a, b in pairs),
            ]
    held = {(kind.class_name, kind.name): set(kind.held_out) for kind in KINDS}
    assert all((a.colour, a.item) in held[a.class_name, a.kind] for a in held_out.real.attributes)
    assert not any((a.colour, a.item) in held[a.class_name, a.kind] for a in seen.real.attributes)


def test_there_are_no_more_captions_than_pictures():
    with pytest.raises(ValueError, match="n 41 is more than the 40 captions"):
        prompt_sets(Sprites(60, 40), ("kind",), 41)
    with pytest.raises(ValueError, match="captions are judged of data with held-out pairings"):
        prompt_sets(SimpleNamespace(), ("kind",), 5)
    assert isinstance(prompt_sets(Sprites(60, 40), ("label",), 9999)[0], PromptSet)


def test_likelihood_is_told_by_term_and_in_all(home, monkeypatch, capsys):
    command(monkeypatch, f"run={home / 'classes'}", "measure=likelihood", "n=6", "batch_size=4",
            "steps=5")  # fmt: skip
    (whole,) = (home / "classes" / "evaluation").glob("likelihood_*.json")
    result = json.loads(whole.read_text())
    prior, steps, decoder, total, ode = (row["bits/dim"] for row in result["rows"])
    assert prior + steps + decoder == pytest.approx(total, abs=1e-6)
    assert ode > 0
    assert (result["levels"], result["rows"][0]["n"]) == (5, 6)
    assert "bound, in all" in capsys.readouterr().out


def test_samples_that_were_drawn_are_judged_again_without_drawing(home, monkeypatch):
    given = (f"run={home / 'classes'}", f"judge={home / 'judge.pt'}", "n=4", "steps=1", "seed=8")
    command(monkeypatch, *given)
    (whole,) = (
        path
        for path in (home / "classes" / "evaluation").glob("adherence_*.json")
        if json.loads(path.read_text())["seed"] == 8
    )
    before = whole.read_text()
    whole.unlink()
    monkeypatch.setattr("unnoise.models.trained.TrainedModel.draw", pytest.fail)
    command(monkeypatch, *given)
    assert whole.read_text() == before


@pytest.mark.slow
def test_two_processes_agree_with_one(home, monkeypatch, tmp_path):
    shared = make_run(tmp_path / "shared", "conditioning=class", "schedule.T=40")
    given = [f"judge={home / 'judge.pt'}", "n=7", "steps=1", "batch_size=2", "seed=3"]
    command(monkeypatch, f"run={home / 'classes'}", *given)
    bin = Path(sys.executable).parent
    subprocess.run(
        [bin / "torchrun", "--standalone", "--nproc-per-node=2", "--no-python",
         bin / "unnoise-evaluate", "measure=adherence", f"run={shared}", *given],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    one, two = (
        next(each["rows"] for f in folder.glob("adherence_*.json")
             if (each := json.loads(f.read_text()))["seed"] == 3)
        for folder in (home / "classes" / "evaluation", shared / "evaluation")
    )  # fmt: skip
    assert two == one


@pytest.mark.slow
@pytest.mark.parametrize("target", ["kind", "colour"])
def test_a_judge_of_sprites_knows_seen_and_held_out_ones(target, tmp_path, monkeypatch):
    from unnoise.cli import classifier

    monkeypatch.setattr(sys, "argv", ["unnoise-classifier", "data=sprites", f"target={target}",
                                      "steps=600", f"out={tmp_path}"])  # fmt: skip
    classifier.main()
    clean = json.loads((tmp_path / "about.json").read_text())["accuracy"][0]
    assert min(clean["validation"], clean["held out"]) > 0.98


def test_likelihood_is_measured_by_one_process(home, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        command(monkeypatch, f"run={home / 'classes'}", "measure=likelihood", "n=2")
    assert "measure  likelihood is measured by one process" in capsys.readouterr().err


def test_ctrl_c_is_one_line(home, monkeypatch, capsys):
    def stopped(measure, keys):
        raise KeyboardInterrupt

    monkeypatch.setattr(Likelihood, "measure", stopped)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, f"run={home / 'classes'}", "measure=likelihood", "n=2")
    assert stop.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_scenes_are_judged_by_what_is_recognised_in_them(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", "data=scenes", "data.validation_size=40", "conditioning=text")
    command(monkeypatch, f"run={run}", "n=6", "guidance=[2]", "steps=1", "batch_size=6")
    (file,) = (run / "evaluation").glob("adherence_*.json")
    result = json.loads(file.read_text())
    assert result["judges"] == "data"
    rows = {(row["pictures"], row["prompts"], row["judged"]): row for row in result["rows"]}
    sets = ("seen", "held-out pairing", "held-out relation", "held-out count")
    for name in sets:
        for attribute in ("background", "kind", "colour", "number"):
            assert (rows["real", name, attribute]["share"], rows["real", name, "all"]["n"]) == (
                1,
                6,
            )
        assert rows["drawn", name, "all"]["agreed"] == 0
        assert rows["drawn", name, "all"]["guidance"] == 2
    assert {prompts for _, prompts, _ in rows} == {*sets}
    assert "held-out relation" in capsys.readouterr().out


def test_a_codec_that_loses_something_is_judged_too():
    class Grey(torch.nn.Module):
        def encode(self, data):
            return data.float().mean(1, keepdim=True)

        def decode(self, signal):
            return signal.expand(-1, 3, -1, -1).round().to(torch.uint8)

    scenes = Scenes(8, 8)
    pictures = scenes.images("validation").read(torch.arange(8))
    grey = through(Grey(), pictures, 3, torch.device("cpu"))
    assert grey.shape == pictures.shape
    prompts = PromptSet("seen", scenes.images("validation"))
    shares = {
        kind: {row.label: row.agreement.share for row in compared(kind, prompts, None, scenes, x)}
        for kind, x in (("real", pictures), ("reconstructed", grey))
    }
    assert shares["real"]["colour"] == 1
    assert shares["reconstructed"]["colour"] < 0.5

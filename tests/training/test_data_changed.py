"""A run that goes on meets the data it was trained on, or says what differs and writes nothing."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import experiment

from unnoise.config.problems import ConfigError
from unnoise.data.folders import ImageFolder
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.loop import fit

CLASSES = ("cat", "dog", "owl")


def made(root, classes=CLASSES, number=12):
    """A folder of pictures by class, 12 of each held out."""
    for part in ("train", "validation"):
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for k in range(number):
                rng = np.random.default_rng((len(part), label, k))
                pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{k:02}.png")
    return root


def run(root, to=4, **changes):
    return experiment(data=ImageFolder(str(root), 16), max_steps=to, **changes)


def last(run_dir):
    return checkpoints(run_dir)[-1]


def manifest(run_dir):
    return json.loads((run_dir / "manifest.json").read_text())


def state(folder):
    """Every file with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def trained(tmp_path):
    """(data, run directory) of a run that is at step 4."""
    root = made(tmp_path / "data")
    fit(run(root), {}, tmp_path / "run", None)
    return root, tmp_path / "run"


def five_more(root):
    for k in range(5):
        Image.new("RGB", (16, 16), (k, 0, 0)).save(root / "train" / "dog" / f"more{k}.png")


def one_other(root):
    Image.new("RGB", (16, 16)).save(root / "validation" / "owl" / "03.png")


def a_class_more(root):
    for part in ("train", "validation"):
        shutil.copytree(root / part / "cat", root / part / "bird")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (five_more, ("train had 36 pictures, now 41 (5 new: ",)),
        (one_other, ("validation had 36 pictures, now 36 (1 changed: ",)),
        (a_class_more, ("label 0 meant cat, and would mean bird", "train had 36 pictures, now 48")),
    ],
)
def test_other_data_are_refused_before_anything_is_written(trained, change, said):
    root, run_dir = trained
    change(root)
    before = state(run_dir)
    with pytest.raises(ConfigError) as refused:
        fit(run(root, to=6), {}, run_dir, last(run_dir))
    assert state(run_dir) == before
    message = str(refused.value)
    assert all(part in message for part in said)
    assert "\n" not in message
    assert "data_changed=accept" in message


def test_the_same_data_elsewhere_go_on(trained, tmp_path):
    root, run_dir = trained
    fit(run(root.rename(tmp_path / "moved"), to=6), {}, run_dir, last(run_dir))
    assert manifest(run_dir)["steps"] == 6
    assert manifest(run_dir)["data_changed"] == []


def test_accepted_data_are_noted_and_are_the_runs_from_then_on(trained):
    root, run_dir = trained
    five_more(root)
    fit(run(root, to=6, data_changed="accept"), {}, run_dir, last(run_dir))
    after = manifest(run_dir)
    (noted,) = after["data_changed"]
    assert noted["step"] == 4
    assert noted["time"] == after["resumed"][0]["time"]
    assert "train had 36 pictures, now 41 (5 new: " in noted["what"]
    assert after["data"]["train_images"] == 41
    fit(run(root, to=8), {}, run_dir, last(run_dir))
    assert manifest(run_dir)["data_changed"] == [noted]
    (root / "train" / "dog" / "more0.png").unlink()
    with pytest.raises(ConfigError, match=r"had 41 pictures, now 40 \(1 gone: "):
        fit(run(root, to=10), {}, run_dir, last(run_dir))


def test_data_of_a_run_that_does_not_say_what_they_were_are_taken(trained):
    root, run_dir = trained
    old = manifest(run_dir)
    del old["data"]["validation_fingerprint"], old["data"]["classes"]
    (run_dir / "manifest.json").write_text(json.dumps(old))
    (run_dir / "content.json.gz").unlink()
    one_other(root)  # of the split that an older run did not record
    fit(run(root, to=6), {}, run_dir, last(run_dir))
    assert "validation_fingerprint" in manifest(run_dir)["data"]
    five_more(root)
    with pytest.raises(ConfigError, match="had 36 pictures, now 41"):
        fit(run(root, to=8), {}, run_dir, last(run_dir))


def test_manifest_and_checkpoint_hold_what_the_data_are(trained):
    root, run_dir = trained
    data = manifest(run_dir)["data"]
    source = ImageFolder(str(root), 16)
    for split, key in (("train", "fingerprint"), ("validation", "validation_fingerprint")):
        assert data[key] == source.images(split).fingerprint
    assert (data["train_images"], data["validation_images"]) == (36, 36)
    assert data["classes"] == list(CLASSES)
    assert torch.load(last(run_dir), weights_only=True)["data"] == data


def test_labels_and_classes_are_told_once(tmp_path, capsys):
    root, run_dir = made(tmp_path / "data"), tmp_path / "run"
    for to in (4, 6):
        fit(run(root, to), {}, run_dir, last(run_dir) if to == 6 else None)
        assert capsys.readouterr().out.count("classes: 0=cat, 1=dog, 2=owl\n") == 1


def test_data_that_cannot_be_read_leave_no_run(tmp_path):
    root = made(tmp_path / "data")
    (root / "train" / "cat" / "03.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"03.png.* is unreadable"):
        fit(experiment(data=ImageFolder(str(root), 16, in_memory=True)), {}, tmp_path / "run", None)
    assert not (tmp_path / "run").exists()

"""unnoise-classifier as a user types it."""

import json
import sys

import pytest
import torch

from unnoise.cli import classifier
from unnoise.data.sprites import Sprites
from unnoise.evaluation.classifiers import splits
from unnoise.models.classifier import NoisyClassifier, accuracy


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-classifier", *arguments])
    classifier.main()


def test_it_trains_writes_and_tells_the_accuracy(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unnoise.models.classifier.LOG_SNRS", (0.0,))
    monkeypatch.setattr("unnoise.evaluation.classifiers.UNSEEN", 100)
    command(monkeypatch, "data=sprites", "data.size=600", "data.validation_size=60", "steps=9",
            "target=label", "network.channels=8", "network.multipliers=[1,2]",
            "precision=fp32")  # fmt: skip
    (folder,) = (tmp_path / "outputs" / "classifiers").iterdir()
    assert folder.name.startswith("sprites_label_")
    loaded = NoisyClassifier.load(folder / "classifier.pt")
    assert loaded.names == ("hero", "non-hero", "food", "spell", "side-facing")
    pictures = splits(Sprites(600, 60), "label")
    measured = json.loads((folder / "about.json").read_text())["accuracy"]
    assert measured == loaded.about["accuracy"]
    assert measured[0]["validation"] == accuracy(loaded, pictures.real["validation"])
    assert loaded.about["fingerprint"] == pictures.training.fingerprint
    printed = capsys.readouterr().out
    assert f"0.00{measured[0]['validation']:>12.1%}{measured[0]['held out']:>12.1%}" in printed
    assert "outputs/classifiers/sprites_label_" in printed


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=mnist", "data.root=nowhere"], "data.root nowhere is not a folder"),
        (["target=kind"], "target  these data have no kind: use label"),
        (["data=sprites", "target=kinds"], "target"),
        (["data=sprites", "batch_size=30000"], "30000 is more than the data (20000 images)"),
        (["data=sprites", "network.multipliers=[1,1,1,1,1,1]"], "halved 5 times"),
        (["data=sprites", "lr=0"], "lr "),
        (["data=sprites", "device=tpu9"], "device  tpu9 cannot be used here"),
        (["data=sprites", "device=${nope}"], "refers to 'nope', which does not exist"),
        (["data=sprites", "data.size=${nope}"], "refers to 'nope', which does not exist"),
        (["data=sprites", f"out={__file__}"], "is a file, not a folder"),
        (["data=sprites", "stepz=3"], "did you mean 'steps'?"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(overrides, told, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *overrides)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_with_one_seed_give_one_classifier(monkeypatch, tmp_path):
    monkeypatch.setattr("unnoise.models.classifier.LOG_SNRS", ())
    monkeypatch.setattr("unnoise.evaluation.classifiers.UNSEEN", 100)
    for name in ("a", "b"):
        torch.rand(3)
        command(monkeypatch, "data=sprites", "data.size=200", "data.validation_size=30", "steps=3",
                "network.channels=8", "network.multipliers=[1,2]", "precision=fp32",
                f"out={tmp_path / name}")  # fmt: skip
    first, second = (NoisyClassifier.load(tmp_path / n / "classifier.pt") for n in ("a", "b"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)

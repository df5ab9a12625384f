"""What ended a run is told in a line with what to try; what nobody foresaw keeps its traceback."""

import pytest
import torch
from PIL import Image
from test_train import FEW, TINY, command

from unnoise.data.memory import Removed, Unreadable
from unnoise.training.diffusion import DiffusionModule
from unnoise.training.failures import explanation

CONFIG = {"batch_size": 12, "accumulate": 2, "precision": "fp32", "data": {"image_size": 32}}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def cannot_allocate():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    return error.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"),
        cannot_allocate(),
    ],
    ids=["gpu", "cpu"],
)
def test_running_out_of_memory_names_what_it_took_and_what_to_try(error):
    first, *others = explanation(error, CONFIG).splitlines()
    given = "batch_size=12, accumulate=2, precision=fp32, data.image_size=32"
    assert first.startswith(f"out of memory with {given}: ")
    assert "allocate" in first
    assert [each.split()[0] for each in others] == ["what", "accumulate=4", "precision=bf16", "a"]
    wide = explanation(error, CONFIG | {"data": {"image_size": [32, 48]}})
    assert "data.image_size=[32,48]: " in wide
    odd = explanation(error, CONFIG | {"batch_size": 10, "precision": "bf16"})
    assert "accumulate=4" not in odd, "10 does not divide into 4 parts"
    assert "precision=bf16 " not in odd
    assert explanation(error, {"batch_size": 8}).startswith("out of memory with batch_size=8: ")


def test_the_command_ends_with_that_and_without_a_traceback(monkeypatch, capsys):
    def too_much(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(DiffusionModule, "training_step", too_much)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *TINY, *FEW)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "out of memory with batch_size=2, accumulate=1" in said
    assert "Traceback" not in said


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    assert explanation(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), CONFIG) is None
    assert explanation(ValueError("image 3"), CONFIG) is None


def test_an_unreadable_image_keeps_its_message_through_a_worker_process():
    wall = "Caught Unreadable in DataLoader worker process 0.\nOriginal Traceback (most recent call"
    wall += ' last):\n  File "x", line 1\nunnoise.data.memory.Unreadable: image 3, a.png, is bad\n'
    line = "data: image 3, a.png, is bad; repair or remove it"
    assert (
        explanation(Unreadable(wall), CONFIG)
        == explanation(Unreadable("image 3, a.png, is bad"), {})
        == line
    )
    config = {"data": {"quarantine": 0}}
    assert "data.quarantine=N" in explanation(Unreadable("image 3"), config)
    told = explanation(Removed("a.png was removed after its folder was listed"), config)
    assert told.endswith("was listed; start again once nothing changes the folder")


@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
def test_a_device_that_is_not_there_is_told_before_the_run(accelerator, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, f"trainer={accelerator}", *TINY)
    assert stop.value.code == 2
    assert "trainer.accelerator: there is no " in capsys.readouterr().err


def test_more_gpus_than_there_are_is_told_before_the_run(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, "trainer=ddp", "trainer.devices=2", *TINY)
    assert stop.value.code == 2
    assert "trainer.devices: 2 wanted, but there is 1 GPU here" in capsys.readouterr().err


def test_one_unreadable_image_too_many_ends_the_command_with_a_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(40):
        Image.new("RGB", (16, 16), (k, 0, 0)).save(tmp_path / "pictures" / f"{k:02}.png")
    data = ["data=image_folder", "data.root=pictures", "data.image_size=16"]
    (tmp_path / "pictures" / "07.png").write_text("<html>not found</html>")
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *data, *TINY)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "pictures/07.png, is unreadable: cannot identify image file" in said
    assert "Traceback" not in said

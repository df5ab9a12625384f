"""The training command refuses other data than the run's, and leaves nothing of a refused run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_train import TINY, command, elsewhere  # noqa: F401 (a fixture)

FOLDER = ["data=image_folder", "data.root=pictures", "data.image_size=16", "trainer=cpu", *TINY]


@pytest.fixture
def pictures(tmp_path):
    """Of two classes, 20 each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(20):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{k}.png")
    return tmp_path / "pictures"


def refused(monkeypatch, capsys, *words):
    """What is said of a command that ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()


def dated(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_resume_by_name_and_by_config_compares_the_data(pictures, monkeypatch, capsys):
    command(monkeypatch, *FOLDER)
    (run,) = Path("outputs/image_folder").iterdir()
    before = dated(run)
    shutil.copytree(pictures, "others")
    Image.new("RGB", (16, 16)).save("others/cat/new.png")
    Image.new("RGB", (16, 16)).save(pictures / "cat" / "new.png")
    for way in (["resume=true"], [f"resume={run}", "data.root=others", "max_steps=4"]):
        (line,) = refused(monkeypatch, capsys, *FOLDER, *way)
        assert line.startswith(f"data: {run} was trained on others: ")
        assert "1 new" in line
        assert dated(run) == before
    command(monkeypatch, *FOLDER, "max_steps=4", f"resume={run}", "data_changed=accept")
    assert (run / "checkpoints" / "step_00000004.ckpt").exists()


def test_a_damaged_manifest_ends_a_resume_in_a_line(pictures, monkeypatch, capsys):
    command(monkeypatch, *FOLDER)
    (run,) = Path("outputs/image_folder").iterdir()
    (run / "manifest.json").write_text("{")
    before = dated(run)
    _, line = refused(monkeypatch, capsys, *FOLDER, "max_steps=4", f"resume={run}")
    assert line.startswith(f"  resume  {run}/manifest.json is damaged")
    assert dated(run) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("trainer=gpu", "trainer.accelerator: there is no GPU here"),
        ("trainer=ddp", "trainer.accelerator: there is no GPU here"),
        ("callbacks=quality callbacks.quality.extractor=net.safetensors", "callbacks.quality"),
        ("data.root=empty", "data"),
    ],
)
@pytest.mark.parametrize("there", [(), ("outputs",), ("outputs", "outputs/image_folder/older")])
def test_a_run_that_is_refused_leaves_nothing(
    wrong, said, there, pictures, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    Path("empty").mkdir()
    Path("net.safetensors").touch()
    for folder in there:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "note.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    assert said in "\n".join(refused(monkeypatch, capsys, *FOLDER, *wrong.split()))
    assert sorted(tmp_path.rglob("*")) == before

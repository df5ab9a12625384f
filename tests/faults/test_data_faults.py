"""Damaged data under the real command: one line says what is wrong, and nothing hangs."""

import json
import shutil

import pytest
from faulty import rows, run_of, said, start
from PIL import Image

pytestmark = pytest.mark.faults
DATA = ["data=image_folder", "data.root=pictures", "data.image_size=16", "data.in_memory=false"]


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures below ``pictures``, of which the training ones are given."""
    for k in range(40):
        path = tmp_path / "pictures" / "train" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 80).convert("RGB").save(path)
    (tmp_path / "pictures" / "val").mkdir()
    for k in range(4):
        shutil.copy(path, tmp_path / "pictures" / "val" / f"{k}.jpg")
    return sorted(path.parent.iterdir())


def damage(paths):
    """As a download that was cut, one that never began, and one that found no page."""
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    paths[8].write_bytes(b"")
    paths[21].write_text("<!doctype html><title>404 Not Found</title>")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_the_run_with_its_name(workers, pictures, tmp_path):
    damage(pictures)
    process = start(tmp_path, *DATA, f"workers={workers}", "max_steps=40")
    assert process.wait(120) == 1, said(tmp_path)
    (line,) = [each for each in said(tmp_path).splitlines() if "unreadable" in each]
    told = [f"data: image {k}, pictures/train/{k:02}.jpg, is unreadable: " for k in (3, 8, 21)]
    assert any(each in line for each in told), line
    assert "data.quarantine=N" in line
    assert "Traceback" not in said(tmp_path)
    manifest = json.loads((run_of(tmp_path) / "manifest.json").read_text())
    assert manifest["failed"].startswith("Unreadable: image ")


def test_quarantined_images_are_said_once_and_the_run_is_the_same_on_workers_and_ranks(
    pictures, tmp_path
):
    damage(pictures)
    losses = []
    for name, more in {"here": ["workers=2"], "ranks": ["trainer=ddp_cpu"]}.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "pictures", folder / "pictures")
        process = start(folder, *DATA, "data.quarantine=3", "max_steps=12", *more)
        assert process.wait(200) == 0, said(folder)
        assert said(folder).count("is unreadable") == 3
        listed = json.loads((run_of(folder) / "manifest.json").read_text())["data"]["quarantined"]
        assert [each.rpartition("/")[2] for each in listed] == [
            f"{k + 1:02}.jpg replaces it" for k in (3, 8, 21)
        ]
        losses.append([row["train/loss"] for row in rows(run_of(folder)) if "train/loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_one_unreadable_image_more_than_the_quarantine_ends_the_run_before_its_first_step(
    pictures, tmp_path
):
    damage(pictures)
    process = start(tmp_path, *DATA, "data.quarantine=2", "max_steps=12")
    assert process.wait(120) == 1, said(tmp_path)
    assert "data: 3 images are unreadable, data.quarantine is 2: image 3, " in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert not list((tmp_path / "outputs").glob("*/*_*-*")), "nothing was begun"

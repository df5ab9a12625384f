"""Nothing that was logged is lost, nothing prompts, and W&B's file says what it should."""

import json
import struct

import pytest
from PIL import Image
from tiny import experiment
from wandb.proto.wandb_internal_pb2 import Record

from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.training import loggers
from unnoise.training.callbacks import SampleGrid
from unnoise.training.checkpoints import checkpoints
from unnoise.training.launch import fit
from unnoise.training.loggers import JsonLines

QUICK = Sampler(DDIM(), steps=2)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_lines_are_on_disk_at_once(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log_metrics({"a": 1.5}, 3)
    assert json.loads(log.path.read_text())["a"] == 1.5
    assert log.latest == {"a": 1.5}


def test_rewind_drops_later_lines_and_a_torn_one(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.log_metrics({"a": float(step)}, step)
    with log.path.open("a") as file:
        file.write('{"step": 2, "a"')
    log.rewind(2)
    assert [json.loads(line)["step"] for line in log.path.open()] == [1, 2]


def test_auto_takes_wandb_only_with_credentials(tmp_path, monkeypatch):
    assert not loggers.wandb_credentials()
    assert type(loggers.auto(tmp_path, "x")[0]).__name__ == "TensorBoardLogger"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert loggers.wandb_credentials()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not loggers.wandb_credentials()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert loggers.wandb_credentials()


def test_wandb_without_credentials_is_an_error_not_a_prompt(tmp_path):
    with pytest.raises(ValueError, match="no credentials here: run `wandb login`"):
        loggers.wandb(tmp_path, "x")


def records(data):
    """The records of a .wandb file: blocks of 32 KiB, chunks with checksum, length and kind."""
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last chunk
            yield Record.FromString(whole)
            whole = b""


def plain(items):
    """Dotted keys to values."""
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def read_back(file):
    """The history rows and the config that an offline run wrote."""
    rows, config = [], {}
    for record in records(file.read_bytes()):
        if record.history.item:
            rows.append(plain(record.history.item))
        config |= plain(record.config.update)
    return rows, config


def test_wandb_offline_has_pictures_config_and_the_step_axis_after_a_resume(tmp_path):
    def offline(run_dir, name):
        return loggers.wandb(run_dir, name, mode="offline")

    samples = {"samples": SampleGrid(QUICK, QUICK, every=2, count=2)}
    config = {"data": {"size": 40, "nested": [1, 2]}, "seed": 0}
    fit(experiment(samples, logger=offline, max_steps=4), config, tmp_path, None)
    newest = checkpoints(tmp_path)[-1]
    fit(experiment(samples, logger=offline, max_steps=8), config, tmp_path, newest)

    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.stem for file in files}) == 1, "a resumed run keeps its id"
    (first, config_read), (second, _) = (read_back(file) for file in files)

    def steps(rows, key):
        return [row["trainer/global_step"] for row in rows if key in row]

    assert steps(first, "train/loss") == [1, 2, 4]
    assert steps(second, "train/loss") == [6, 8]
    assert steps(first, "samples/filenames") == [2, 4]
    assert steps(second, "samples/filenames") == [6, 8]
    assert config_read["data"] == {"size": 40, "nested": [1, 2]}
    name = next(row["samples/filenames"] for row in first if "samples/filenames" in row)[0]
    shown = Image.open(files[0].parent / "files" / name)
    assert shown.tobytes() == Image.open(tmp_path / "samples" / "step_00000002.png").tobytes()
    assert steps(second, "denoising/videos") == [8]

"""Nothing that was logged is lost, nothing prompts, and no dashboard stops a run."""

import json
from functools import partial

import pytest
from tiny import experiment

from unnoise.training import loggers
from unnoise.training.launch import fit
from unnoise.training.loggers import JsonLines


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


def test_every_line_is_json_though_a_value_be_none(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log_metrics({"a": float("nan"), "b": float("inf"), "c": 2.0}, 3)
    row = json.loads(log.path.read_text(), parse_constant=pytest.fail)
    assert (row["a"], row["b"], row["c"]) == (None, None, 2.0)


def test_rewind_drops_later_lines_and_a_torn_one(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.log_metrics({"a": float(step)}, step)
    with log.path.open("a") as file:
        file.write('{"step": 2, "a"')
    assert len(log.times()) == 3, "as after an error of a full disk"
    log.rewind(2)
    assert [json.loads(line)["step"] for line in log.path.open()] == [1, 2]


def test_auto_takes_wandb_only_with_credentials(tmp_path, monkeypatch):
    def chosen():
        return type(loggers.auto(tmp_path, "x")[0]).__name__

    assert chosen() == "TensorBoard"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert chosen() == "WeightsAndBiases"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert chosen() == "TensorBoard"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert chosen() == "WeightsAndBiases"


def test_wandb_without_credentials_is_an_error_not_a_prompt(tmp_path):
    with pytest.raises(ValueError, match="no credentials here: run `wandb login`"):
        loggers.wandb(tmp_path, "x")


def test_a_server_that_does_not_answer_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(**settings):
        raise OSError("connection\nrefused")

    monkeypatch.setattr("wandb.init", refuse)
    offline = partial(loggers.wandb, mode="offline")
    with pytest.warns(UserWarning, match="failed") as told:
        fit(experiment(logger=offline, max_steps=4), {}, tmp_path, None)
    (message,) = [str(w.message) for w in told if "metrics.jsonl" in str(w.message)]
    assert message == (
        "WeightsAndBiases failed (connection refused) and is left out from step 0 on; "
        "metrics.jsonl goes on"
    )
    assert "finished" in json.loads((tmp_path / "manifest.json").read_text())

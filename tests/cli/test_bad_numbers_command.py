"""What the training command says when numbers are not finite for good."""

import json

import pytest
from test_train import FEW, TINY, command

MINE = '''
import torch
from unnoise.diffusion.objectives import SimpleLoss


class Fragile(SimpleLoss):
    """Not a number from a place of the stream on."""

    def __init__(self, start: int = 4) -> None:
        self.start = start

    def __call__(self, denoiser, schedule, x0, u, condition, noise):
        loss = super().__call__(denoiser, schedule, x0, u, condition, noise)
        return loss + torch.where(noise.ids >= self.start, torch.nan, 0.0)
'''


def test_a_run_that_stays_bad_ends_with_a_line_and_a_report(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fragile.py").write_text(MINE)
    (tmp_path / "mine" / "objective").mkdir(parents=True)
    (tmp_path / "mine" / "objective" / "fragile.yaml").write_text(
        "_target_: fragile.Fragile\nstart: 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("unnoise.config.nodes.USERS_PACKAGES", ("fragile",))
    limits = ["callbacks.bad_numbers.tolerated=0", "callbacks.bad_numbers.rollbacks=1"]
    fragile = [*TINY, *FEW, "objective=fragile", "max_steps=4", *limits]
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, "--config-dir", "mine", *fragile)
    ended = stop.value.code  # a text: Python prints it, and the status is 1
    said = capsys.readouterr().err
    (report,) = tmp_path.glob("outputs/sprites/*/bad_batch.json")
    assert "going on from step 0 with other noise (rollback 1 of 1)" in said
    assert f"after 1 rollback, the run ends: {report.relative_to(tmp_path)} names" in ended
    assert "\n" not in ended
    assert "Traceback" not in said
    found = json.loads(report.read_text())
    assert [row["position"] for row in found["samples"] if row["loss"] == "nan"] == [4, 5]

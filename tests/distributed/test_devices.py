"""Precision by what the devices of this machine are fast at."""

import pytest

from unnoise.config.compose import check_command_line
from unnoise.distributed import devices
from unnoise.distributed.devices import lightning_precision, slow_bf16
from unnoise.training.check import problems_of

LISTS = {
    "flags : fpu avx512f avx512_bf16 sse": True,
    "flags : fpu amx_bf16 amx_tile": True,
    "Features : fp asimd bf16 i8mm": True,
    "flags : fpu avx512f avx2": False,
    "Features : fp asimd ebf16": False,
}


@pytest.fixture(params=LISTS)
def fast(request, tmp_path, monkeypatch):
    """A machine without a GPU whose processor has these instructions; whether bf16 is fast."""
    monkeypatch.setattr(devices, "CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "cpuinfo").write_text(f"model name : x\n{request.param}\n")
    return LISTS[request.param]


def test_auto_is_bf16_where_the_processor_has_instructions_for_it(fast):
    assert lightning_precision("auto", "cpu") == ("bf16-mixed" if fast else "32-true")
    assert lightning_precision("bf16", "cpu") == "bf16-mixed"


def test_bf16_where_it_is_slow_is_warned_of_before_the_run(fast):
    line = ["precision=bf16", "trainer=cpu", "logger=none"]
    warned = [p for p in problems_of(check_command_line("train", line)[0]) if p.key == "precision"]
    assert [problem.severity for problem in warned] == ([] if fast else ["warning"])
    assert (slow_bf16("bf16", "cpu") is None) == fast
    assert all("no instructions for bf16" in problem.message for problem in warned)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_nothing_is_said_of_what_is_not_asked_for(precision, fast):
    assert slow_bf16(precision, "cpu") is None


def test_without_a_list_of_instructions_bf16_is_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU", tmp_path / "none")
    assert lightning_precision("auto", "cpu") == "32-true"
    assert "processor" in slow_bf16("bf16", "cpu")

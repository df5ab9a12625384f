"""What becomes of a check, and how it looks in a table."""

import json
import math

import pytest
import torch

from unnoise.evaluation.selftest import table
from unnoise.evaluation.selftest.check import Check, Outcome, Result, outcomes
from unnoise.evaluation.selftest.checks import CHECKS

CPU = torch.device("cpu")


def check(run):
    return Check("group", "name", "a paper", run)


def outcome(got, expected=1.0, tolerance=0.1):
    return Outcome(check(None), Result(got, expected, tolerance), None, 0.5)


@pytest.mark.parametrize("got", [1.0, 0.95, 1.05])
def test_passes_within_the_tolerance(got):
    assert outcome(got).passed


@pytest.mark.parametrize("got", [0.89, 1.11, math.nan, math.inf])
def test_fails_beyond_it_and_where_there_is_no_number(got):
    assert not outcome(got).passed


def test_a_tolerance_of_nothing_takes_the_number_itself():
    assert outcome(7, 7, 0).passed
    assert not outcome(8, 7, 0).passed


def test_an_error_is_a_check_that_fails_and_the_next_one_runs():
    def broken(device):
        raise RuntimeError("no kernel image is available\nand much more")

    first, second = outcomes([check(broken), check(lambda device: Result(1, 1, 0))], CPU)
    assert not first.passed
    assert first.error == "RuntimeError: no kernel image is available"
    assert "FAIL" in table.row(first)
    assert second.passed


def test_arithmetic_is_exact_while_a_check_runs_and_as_before_after_it():
    def allowed(device):
        exact = torch.get_float32_matmul_precision() == "highest"
        return Result(exact and not torch.backends.cudnn.allow_tf32, True, 0)

    torch.set_float32_matmul_precision("high")
    try:
        (found,) = outcomes([check(allowed)], CPU)
        assert found.passed
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_names_are_unique_and_rows_are_aligned_in_100_columns():
    every = CHECKS
    assert len({(each.group, each.name) for each in every}) == len(every)
    tall = Result(-1.23456e-12, -1.23456e-12, 1.2e-10)
    rows = [table.row(Outcome(each, tall, None, 0.0)) for each in every]
    lengths = {len(row.replace("\N{COMBINING TILDE}", "")) for row in rows}
    assert lengths == {len(table.heading()) - len("verdict") + len("pass")}
    assert len(table.heading()) <= 100


def test_summary_says_what_failed_and_why_it_should_not_have():
    text = table.summary([outcome(1.0), outcome(2.0)], {"torch": "2"}, {"device": "cpu"})
    assert text.splitlines() == [
        "1 of 2 checks failed (1 s):",
        "  group: name",
        "    expected by: a paper",
        "torch 2",
        "device cpu",
    ]
    assert "All 2 checks passed (1 s)." in table.summary([outcome(1.0), outcome(1.0)], {}, {})


def test_plain_values_are_json_also_where_a_number_is_none():
    found = json.loads(json.dumps(table.plain(outcome(math.nan)), allow_nan=False))
    assert (found["got"], found["expected"], found["passed"]) == ("nan", 1.0, False)

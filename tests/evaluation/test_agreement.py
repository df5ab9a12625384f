import math

import pytest
import torch

from unnoise.evaluation.adherence import Agreement, Row, Z, agreements, table


@pytest.mark.parametrize(("agreed", "n"), [(0, 10), (3, 7), (49, 50), (500, 500), (1, 1)])
def test_the_ends_of_the_interval_are_where_the_score_test_is_z(agreed, n):
    """Wilson's interval holds the p with |p̂ − p| ≤ z·√(p(1 − p)/n)."""
    for p in Agreement(agreed, n).interval:
        assert abs(agreed / n - p) == pytest.approx(Z * math.sqrt(p * (1 - p) / n), abs=1e-12)


def test_the_interval_of_all_and_of_none_has_its_closed_form():
    n = 40
    assert Agreement(n, n).interval == pytest.approx((1 / (1 + Z**2 / n), 1), abs=1e-12)
    assert Agreement(0, n).interval == pytest.approx((0, Z**2 / n / (1 + Z**2 / n)), abs=1e-12)


def test_the_interval_covers_the_truth_19_times_of_20():
    p, n = 0.9, 100
    agreed = torch.distributions.Binomial(n, p)
    inside = 0.0
    for k in range(n + 1):
        low, high = Agreement(k, n).interval
        inside += float(agreed.log_prob(torch.tensor(float(k))).exp()) * (low <= p <= high)
    assert inside == pytest.approx(0.95, abs=0.02)


def test_targets_are_counted_each_and_together():
    expected = {"kind": torch.tensor([0, 1, 2, 3]), "colour": torch.tensor([0, 0, 1, 1])}
    found = {"kind": torch.tensor([0, 1, 2, 0]), "colour": torch.tensor([0, 1, 1, 1])}
    counted = {name: each.agreed for name, each in agreements(found, expected)}
    assert counted == {"kind": 3, "colour": 3, "kind and colour": 2}


def test_a_single_target_stands_alone():
    classes = torch.tensor([0, 1])
    assert [name for name, _ in agreements({"label": classes}, {"label": classes})] == ["label"]


@pytest.mark.parametrize("n", [0, 2])
def test_samples_without_a_prompt_are_refused(n):
    with pytest.raises(ValueError, match=f"label: {n} samples were judged, but {n and 3} expected"):
        list(agreements({"label": torch.zeros(n)}, {"label": torch.zeros(n and 3)}))


def test_the_table_lines_up():
    rows = [
        Row("real", "validation", None, "label", Agreement(9187, 10_000)),
        Row("drawn", "class", 1.5, "label", Agreement(83, 100)),
    ]
    head, real, drawn = table(rows).splitlines()
    assert real.split() == ["real", "validation", "label", "91.9%", "91.3%", "…", "92.4%", "10000"]
    assert drawn.split()[2:5] == ["1.5", "label", "83.0%"]
    assert len(head) == len(real) == len(drawn)

import math

import pytest
import torch

from unnoise.evaluation.likelihood import Term, table, terms


def test_the_mean_has_the_standard_error_of_its_sample():
    bits = torch.tensor([1.0, 2.0, 3.0, 6.0])
    (row,) = terms({"decoder": bits})
    assert row.mean == 3
    assert row.error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert row.n == 4


def test_the_table_has_a_line_for_each_term():
    head, first, second = table([Term("a", 3.14159, 0.01, 64), Term("long", 0, 0, 64)]
                                ).splitlines()  # fmt: skip
    assert head.split()[:2] == ["term", "bits/dim"]
    assert first.split() == ["a", "3.1416", "±", "0.0100", "64"]
    assert first.index("±") == second.index("±")

import math

import pytest

from unnoise.training.optimization import factor


def test_warmup_rises_linearly_to_one():
    values = [factor(step, 4, "constant", 100) for step in range(6)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_without_warmup_the_first_step_is_whole():
    assert factor(0, 0, "constant", 10) == factor(9, 0, "constant", 10) == 1


def test_cosine_falls_from_one_to_zero():
    assert factor(10, 10, "cosine", 110) == 1
    assert factor(60, 10, "cosine", 110) == pytest.approx(0.5)
    assert factor(35, 10, "cosine", 110) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(110, 10, "cosine", 110) == pytest.approx(0, abs=1e-12)
    assert factor(500, 10, "cosine", 110) == pytest.approx(0, abs=1e-12)

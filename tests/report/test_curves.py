import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unnoise.report.logged import Curve, thinned
from unnoise.report.page.charts import packed

VALUES = st.floats(allow_nan=True, allow_infinity=True)


def curve(values):
    return Curve(np.arange(len(values)), np.array(values, float))


@given(st.lists(VALUES, min_size=1, max_size=300), st.integers(4, 50))
def test_thinning_keeps_points_of_the_curve_its_ends_and_its_extremes(values, most):
    short = thinned(curve(values), most)
    assert len(short) <= most
    assert (np.diff(short.steps) > 0).all()
    np.testing.assert_array_equal(short.values, np.array(values)[short.steps])
    assert (short.steps[0], short.steps[-1]) == (0, len(values) - 1)
    finite = [v for v in values if math.isfinite(v)]
    kept = [v for v in short.values if math.isfinite(v)]
    if finite:
        assert (min(kept), max(kept)) == (min(finite), max(finite))


@given(st.lists(VALUES, max_size=50))
def test_packing_keeps_six_digits_and_gaps(values):
    steps, got = packed(curve(values))
    assert steps == list(range(len(values)))
    for value, each in zip(values, got, strict=True):
        if math.isfinite(value):
            assert math.isclose(each, value, rel_tol=5.1e-6, abs_tol=1e-320)
        else:
            assert each is None

import pytest
from html_parts import TEXT, Seen
from hypothesis import given

from unnoise.report.page.table import breakable, duration, number, with_error


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sprites_learned_variance", ["sprites_", "learned_", "variance"]),
        ("schedule.beta_1=0.02", ["schedule.", "beta_", "1=", "0.02"]),
        ("2026-01-31_12-00-00_1a2b", ["2026-", "01-", "31_", "12-", "00-", "00_", "1a2b"]),
        ("a word", ["a word"]),
    ],
)
def test_long_words_break_between_their_parts(text, parts):
    assert breakable(text).split("<wbr>") == parts


@given(TEXT)
def test_breaks_add_nothing_to_the_text(text):
    seen = Seen(breakable(text))
    assert seen.text == text
    assert {tag for tag, _ in seen.tags} <= {"wbr"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "–"), (35746307, "35,746,307"), (0.040371, "0.04037"), (12345.6, "12,346")),
        *((-0.5, "−0.5"), (3.2e-5, "3.2·10⁻⁵"), (float("nan"), "NaN"), (float("-inf"), "−∞")),
        *((True, "yes"), ("text", "text"), (0.0, "0")),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        *((7.3219, 0.1464, "7.32 ± 0.15"), (264.7, 5.3, "264.7 ± 5.3")),
        *((2647.0, 53.0, "2,647 ± 53"), (-1.0, 0.25, "−1.00 ± 0.25")),
        *(
            (7.531e-4, 1.5e-5, "(7.53 ± 0.15)·10⁻⁴"),
            (1.04e-3, 2.1e-5, "(1.040 ± 0.021)·10⁻³"),
            (0.5, None, "0.5"),
            (0.5, 0.0, "0.5"),
        ),
        *((0.5, float("nan"), "0.5"), (0.0, 2e-6, "(0.0 ± 2.0)·10⁻⁶")),
    ],
)
def test_numbers_with_errors(value, error, shown):
    assert with_error(value, error) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (3.2, "3 s"), (200, "3 min"), (3600 * 5 + 61, "5 h 01 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown

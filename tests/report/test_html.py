from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unnoise.report.html import Cell, Column, breakable, duration, element, number, table, uncertain


class Seen(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=["Cc"]))


@given(TEXT, TEXT)
def test_text_and_attributes_come_out_as_they_went_in(text, value):
    seen = Seen(element("p", {"title": value, "class": None}, text, element("b", {}, text)))
    assert seen.tags == [("p", {"title": value}), ("b", {})]
    assert seen.text == text * 2


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


def test_cells_carry_what_they_are_sorted_by():
    told = table([Column("a", order=-1, kinds=[0, 1])], [[Cell("1.2", 1.23)], [Cell("–")]])
    cells = [attributes for tag, attributes in Seen(told).tags if tag in ("th", "td")]
    assert cells == [
        {"scope": "col", "class": "number", "data-order": "-1"},
        {"class": "number", "data-value": "1.23", "data-kind": "0"},
        {"class": "number", "data-kind": "1"},
    ]


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
def test_uncertain_numbers(value, error, shown):
    assert uncertain(value, error) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (3.2, "3 s"), (200, "3 min"), (3600 * 5 + 61, "5 h 01 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown

"""Templates: text stays text, and cells carry what the script sorts by."""

import re
from pathlib import Path

import pytest
from html_parts import TEXT, Seen
from hypothesis import given
from jinja2 import UndefinedError

from unnoise.report.page import templates
from unnoise.report.page.charts import chart
from unnoise.report.page.samples import Picture
from unnoise.report.page.table import Cell, Column

TEMPLATES = templates(Path("report.html"))
PARTS = TEMPLATES.get_template("parts.html").module


@given(TEXT, TEXT)
def test_text_and_attributes_come_out_as_they_went_in(text, value):
    picture = Seen(PARTS.picture(Picture(value, Path("a.png"), text, value)))
    figure, link, image, _ = picture.tags
    assert figure == ("figure", {})
    assert link == ("a", {"href": "a.png"})
    assert image == ("img", {"src": value, "alt": value})
    assert picture.text.strip("\n") == text.strip("\n")
    table = Seen(PARTS.table([Column(text, [Cell(value, text)], style="breakable")]))
    assert {tag for tag, _ in table.tags} <= set(
        "div table thead tr th button tbody td wbr".split()
    )
    assert ("td", {"data-value": value}) in table.tags
    assert re.sub(r"\s", "", table.text) == re.sub(r"\s", "", text * 2)


@given(TEXT)
def test_data_of_a_chart_never_end_its_script(text):
    told = PARTS.chart(chart("curves", {text: [text, float("nan")]}))
    assert [tag for tag, _ in Seen(told).tags] == ["div", "script", "noscript", "p"]


def test_cells_carry_what_they_are_sorted_by():
    table = PARTS.table([Column("a", [Cell(1.23, "1.2", kind=0), Cell(kind=1)], order=-1)])
    seen = Seen(table)
    cells = [attributes for tag, attributes in seen.tags if tag in ("th", "td")]
    assert cells == [
        {"scope": "col", "class": "number", "data-order": "-1"},
        {"class": "number", "data-value": "1.23", "data-kind": "0"},
        {"class": "number", "data-kind": "1"},
    ]
    assert seen.text.split() == ["a", "1.2", "–"]


def test_a_name_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError):
        TEMPLATES.get_template("run.html").render()

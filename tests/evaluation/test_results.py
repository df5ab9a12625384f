from dataclasses import replace

import pytest

from unnoise.evaluation.results import (
    Estimate,
    Fingerprint,
    Samples,
    Score,
    comparable,
    flat,
    folded,
    lower_is_better,
    read,
    save,
    table,
)

FINGERPRINT = Fingerprint(1000, "train 10000 of 1a2b", "garments 3c4d", "bilinear 28", "nearest")


def score(name, fingerprint=FINGERPRINT, **metrics):
    found = {key: Estimate(value, 0.1) for key, value in metrics.items()}
    return Score(name, Samples(kind="drawn", steps=50), fingerprint, found)


def names(scores):
    return [each.name for each in scores]


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(12.34567, 0.4567), "12.35 ± 0.46"),
        (Estimate(1234.5678, 56.78), "1235 ± 57"),
        (Estimate(0.5), "0.5"),
        (Estimate(0.5, 0.0), "0.5"),
        (Estimate(-0.000123456, 0.00067), "-0.00012 ± 0.00067"),
    ],
)
def test_how_a_number_is_shown(estimate, shown):
    assert str(estimate) == shown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 50),
        ("reference", "validation 500 of 1a2b"),
        ("extractor", "inception 5e6f"),
        ("resize", "bicubic 28"),
        ("rounding", "floor"),
    ],
)
def test_each_part_of_a_fingerprint_counts(field, value):
    other = replace(FINGERPRINT, **{field: value})
    (told,) = FINGERPRINT.differences(other)
    assert told == f"{field} is {getattr(FINGERPRINT, field)!r} in one, {value!r} in the other"
    assert [names(group) for group in comparable([score("a"), score("b", other)])] == [["a"], ["b"]]


def test_a_fingerprint_does_not_differ_from_itself():
    assert FINGERPRINT.differences(replace(FINGERPRINT)) == []


@pytest.mark.parametrize(
    "metric",
    [
        "fd_toy",
        "sfd_toy",
        "kid_toy",
        "fid",
        "sfid",
        "kid",
        "memorised_toy",
        "bits_per_dim",
        "mean_distance_toy",
    ],
)
def test_less_is_better(metric):
    assert lower_is_better(metric)


@pytest.mark.parametrize(
    "metric", ["is_toy", "precision_toy", "recall_toy", "density_toy", "coverage_toy"]
)
def test_more_is_better(metric):
    assert not lower_is_better(metric)


def test_groups_stand_in_order_of_appearance():
    other = replace(FINGERPRINT, count=50)
    scores = [score("a", other), score("b"), score("c", other), score("d")]
    assert [names(group) for group in comparable(scores)] == [["a", "c"], ["b", "d"]]


def test_what_is_saved_is_read(tmp_path):
    scores = [score("a", fd_toy=1 / 3), score("b", kid_toy=-1e-9)]
    scores[0].metrics["bits_per_dim"] = Estimate(3.5)
    save(tmp_path / "deep" / "quality.json", scores, run="outputs/run", seconds=1.5)
    assert read(tmp_path / "deep" / "quality.json") == scores
    assert '"run": "outputs/run"' in (tmp_path / "deep" / "quality.json").read_text()


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "quality.json"
    save(path, [score("a", fd_toy=1)])
    with pytest.raises(TypeError):
        save(path, [score("b", fd_toy=2)], run=object())
    assert names(read(path)) == ["a"]
    assert sorted(tmp_path.iterdir()) == [path.with_suffix(".csv"), path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"scores": 5}',
        '{"scores": [{"name": "a"}]}',
        '{"scores": [{"name": "a", "samples": {}, "fingerprint": {"count": 1}, "metrics": {}}]}',
    ],
)
def test_a_file_of_something_else(text, tmp_path):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json holds no scores of unnoise"):
        read(tmp_path / "other.json")


def test_metrics_that_are_no_table(tmp_path):
    save(tmp_path / "quality.json", [score("a")])
    text = (tmp_path / "quality.json").read_text()
    (tmp_path / "quality.json").write_text(text.replace('"metrics": {}', '"metrics": [1]'))
    with pytest.raises(ValueError, match="holds no scores of unnoise"):
        read(tmp_path / "quality.json")


def test_a_table_says_what_its_numbers_depend_on():
    first, second = score("ddim 50", fd_toy=8.25, kid_toy=0.5), score("ddim 250", fd_toy=3)
    second = replace(second, samples=replace(second.samples, evaluations=250.0))
    shown = table([first, second])
    assert "1000 pictures against train 10000 of 1a2b" in shown
    assert "garments 3c4d" in shown
    assert "8.25 ± 0.10" in shown.splitlines()[-2]
    assert shown.splitlines()[-1].split() == ["ddim", "250", "250", "3.00", "±", "0.10"]


def test_a_table_keeps_apart_what_cannot_be_compared():
    scores = [score("a", fd_toy=1), score("b", replace(FINGERPRINT, count=50), fd_toy=2)]
    one, other, told = table(scores).split("\n\n")
    assert "b" not in [line.split()[0] for line in one.splitlines()]
    assert other.startswith("50 pictures")
    assert told == "a and b are not to be compared: count is 1000 in one, 50 in the other"


def test_a_row_of_plain_values():
    nested = score("a", fd_toy=1.5)
    nested = replace(nested, samples=replace(nested.samples, recipe={"steps": 50}))
    row = flat(nested)
    assert row["name"] == "a"
    assert (row["fd_toy"], row["fd_toy_error"]) == (1.5, 0.1)
    assert (row["steps"], row["count"], row["rounding"]) == (50, 1000, "nearest")
    assert "recipe" not in row


MANY = {
    f"{kind}_sprites": 1000.0
    for kind in "fd sfd kid is precision recall density coverage memorised".split()
}


@pytest.mark.parametrize("name", ["ddim 4", "dpm_solver_sde 1000, guidance 1.25, last weights"])
@pytest.mark.parametrize("every", [True, False])
def test_a_table_fits_and_says_what_it_leaves_out(name, every):
    text = table([score(name, **MANY), score("noise", **MANY)], every)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    left = "sfd is density coverage memorised".split()
    shown = " ".join(line for line in lines if "columns=all" not in line).split()
    assert {"fd", "kid", "precision", "recall"} <= set(shown)
    assert (set(left) <= set(shown)) == every
    assert ("columns=all" in text) == (not every)
    assert every or all(kind in lines[-1] for kind in left)
    assert text.count("1000.00 ± 0.10") == 2 * (9 if every else 4)


def test_what_is_measured_first_is_always_shown():
    shown = table([score("a", density_x=1.0, sfd_x=2.0)], every=False)
    assert "density" in shown
    assert shown.splitlines()[-1] == "columns=all also shows sfd, which are in the files"


def test_a_folded_table_has_each_cell_once_beside_its_row():
    rows = [["", "", *(f"column{k:02d}" for k in range(30))]]
    rows += [[f"row{r}", "x", *(f"{r}.{k:02d}" for k in range(30))] for r in range(3)]
    lines = folded(rows)
    assert max(map(len, lines)) <= 100
    for r in range(3):
        own = [line.split() for line in lines if line.startswith(f"row{r}")]
        assert [cell for line in own for cell in line[2:]] == rows[r + 1][2:]

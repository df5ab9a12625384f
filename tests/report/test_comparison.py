from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import CONFIG, MANIFEST

from unnoise.report.page.comparison import columns, differences, kinds, labels
from unnoise.report.reader import Run

COSINE = {"_target_": "unnoise.diffusion.schedules.cosine", "s": 0.008}


def run(manifest=MANIFEST, choices=None, **config):
    return Run(Path("run"), config=CONFIG | config, manifest=manifest, choices=choices or {})


def test_only_keys_that_differ_and_lacking_ones_empty():
    told = differences([run(), run(schedule=COSINE, seed=1)])
    assert told == {
        "seed": ["0", "1"],
        "schedule._target_": [f"unnoise.diffusion.schedules.{n}" for n in ("linear", "cosine")],
        "schedule.T": ["1000", ""],
        "schedule.s": ["", "0.008"],
    }
    assert differences([run(), run()]) == {}


def test_a_part_stands_for_its_keys_and_before_plain_values():
    told = columns([run(), run(schedule=COSINE, seed=1, logger={"mode": "x"}, name="other")])
    assert told == {"schedule": ["linear", "cosine"], "seed": [0, 1]}
    assert list(told) == ["schedule", "seed"]


def test_a_part_is_called_what_was_chosen_and_else_by_its_class():
    linear = run(choices={"schedule": "straight", "experiment": "x"})
    assert columns([linear, run(schedule=COSINE)]) == {"schedule": ["straight", "cosine"]}
    flow = {"_target_": "unnoise.x.Flow", "s": 1}
    both = [
        run(choices={"schedule": name}, schedule=flow | {"s": s}) for s, name in enumerate("ab")
    ]
    assert columns(both) == {"schedule": ["a", "b"]}


def test_what_differs_within_a_choice_is_told_as_well():
    short = CONFIG["schedule"] | {"T": 500}
    told = columns([run(), run(schedule=short), run(schedule=COSINE)])
    assert told == {"schedule": ["linear", "linear", "cosine"], "schedule.T": [1000, 500, "null"]}


def test_a_part_with_the_same_name_shows_its_keys():
    other = CONFIG["optimizer"] | {"lr": 0.01}
    assert columns([run(), run(optimizer=other)]) == {"optimizer.lr": [0.001, 0.01]}


OTHER_DATA = MANIFEST | {"data": {"fingerprint": "0" * 64}}


@pytest.mark.parametrize(
    ("other", "losses", "speeds"),
    [
        (run(seed=1, max_steps=7, optimizer={"lr": 1.0}), [0, 0], [0, 0]),
        (run(schedule=COSINE), [0, 1], [0, 0]),
        (run(objective={"_target_": "x"}), [0, 1], [0, 0]),
        (run(manifest=OTHER_DATA), [0, 1], [0, 0]),
    ],
)
def test_losses_compare_where_what_is_lost_is_the_same(other, losses, speeds):
    assert kinds([run(), other], "validation/loss")[0] == losses
    assert kinds([run(), other], "train/images_per_second")[0] == speeds


def test_why_losses_do_not_compare():
    assert kinds([run(), run(schedule=COSINE)], "train/loss") == ([0, 1], ["schedule"])


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("quality/fd_sprites", "quality"),
        ("validation/bits_per_dim", "bits_per_dim"),
        ("validation/bits_per_dim_decoder", "bits_per_dim"),
    ],
)
def test_measures_compare_across_schedules_but_not_across_ways_to_measure(metric, name):
    def told(*runs):
        return kinds(runs, metric)

    measured = run(callbacks={name: {"count": 1000, "every": 10}})
    assert told(measured, run(callbacks={name: {"count": 1000}}, schedule=COSINE)) == ([0, 0], [])
    other = run(callbacks={name: {"count": 500, "every": 10}})
    assert told(measured, other) == ([0, 1], [f"callbacks.{name}"])
    assert told(run(), run(manifest=OTHER_DATA)) == ([0, 1], ["data"])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12"))))
def test_no_two_labels_are_equal(chosen):
    runs = [
        Run(Path(f"{k % 3}/{k}"), config={"name": name}, overrides=[f"seed={seed}"])
        for k, (name, seed) in enumerate(chosen)
    ]
    assert len(set(labels(runs))) == len(runs)


def test_labels_of_a_sweep_tell_what_was_swept():
    runs = [Run(Path(s), config={"name": "x"}, overrides=["a=1", f"seed={s}"]) for s in "12"]
    assert labels(runs) == ["seed=1", "seed=2"]
    runs.append(Run(Path("3"), config={"name": "y"}))
    assert labels(runs) == ["x · seed=1", "x · seed=2", "y"]
    assert labels(runs[:1]) == ["x"]

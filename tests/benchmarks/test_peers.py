import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from budget import Budget


class Clock:
    def __init__(self):
        self.now = 7.0

    def __call__(self):
        return self.now


def test_steps_are_taken_until_the_time_is_used():
    clock = Clock()
    budget = Budget(10.0, clock)
    clock.now += 5.0  # setting up
    budget.begin()
    taken = []
    for _ in range(4):
        clock.now += 3.0
        taken.append(budget.step())
    assert taken == [True, True, True, False]
    assert budget.steps == 4
    assert budget.used == 12.0


def test_the_number_of_steps_follows_the_speed_so_far():
    clock = Clock()
    budget = Budget(100.0, clock)
    budget.begin()
    clock.now += 2.0
    budget.step()
    assert budget.steps_in_all == 50
    clock.now += 3.0
    budget.step()
    assert budget.steps_in_all == 40


def test_steps_that_are_done_are_not_taken_back():
    clock = Clock()
    budget = Budget(1.0, clock)
    budget.begin()
    clock.now += 4.0
    budget.step()
    assert budget.steps_in_all == 1


def test_the_learning_rate_rises_and_falls_to_0_with_the_time():
    clock = Clock()
    budget = Budget(10.0, clock)
    budget.begin()
    assert budget.factor(warmup=1) == 0.5
    for seconds, factor in ((5.0, 0.5), (5.0, 0.0), (1.0, 0.0)):
        clock.now += seconds
        budget.step()
        assert abs(budget.factor(warmup=1) - factor) < 1e-12

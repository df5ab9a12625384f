import numpy as np
import pytest
import torch

from unnoise.evaluation import neighbours
from unnoise.evaluation.neighbours import covered, hits, kept, radii, surroundings


@pytest.fixture(params=[1, 1 << 22])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", request.param)


def normal(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def line(*places):
    return torch.tensor(places).float()[:, None]


def far(x, y):
    x, y = x.double().numpy(), y.double().numpy()
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))


def sorted_others(x):
    to = far(x, x)
    return np.sort(to[~np.eye(len(x), dtype=bool)].reshape(len(x), -1), 1)


def nearest(x, y):
    """Which of y is nearest to each x, and its distance."""
    found = [to.min(1) for to in neighbours._between(x, y)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])


@pytest.mark.usefixtures("_chunk")
def test_surroundings_by_hand():
    x = normal(50)
    others = sorted_others(x)
    found = surroundings(x)
    for part, column in ((found.third, 2), (found.fifth, 4), (found.other, 0)):
        np.testing.assert_allclose(part, others[:, column], rtol=1e-6)


@pytest.mark.usefixtures("_chunk")
def test_hits_by_hand():
    x, y = normal(40, seed=1) * 1.5, normal(50)
    to, others = far(x, y), sorted_others(y)
    found = hits(x, y, surroundings(y))
    assert found.inside.tolist() == (to <= others[:, 2]).any(1).tolist()
    assert found.balls.tolist() == (to <= others[:, 4]).sum(1).tolist()
    assert found.copied.tolist() == (to.min(1) < others[to.argmin(1), 0]).tolist()
    np.testing.assert_allclose(found.closest, to.min(0), rtol=1e-6)
    assert 0 < found.inside.sum() < 40
    assert 0 < found.copied.sum() < 40


@pytest.mark.usefixtures("_chunk")
def test_nearest_by_hand():
    x, y = normal(40, seed=1), normal(50)
    which, distance = nearest(x, y)
    assert which.tolist() == far(x, y).argmin(1).tolist()
    np.testing.assert_allclose(distance, far(x, y).min(1), rtol=1e-6)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("groups", [0, 3, 30])
def test_radii_and_what_they_cover_by_hand(groups):
    x, y = normal(30, seed=1), normal(25)
    found, keep = radii(x, groups), kept(30, groups).numpy()
    for radius, some in zip(found, keep, strict=True):
        np.testing.assert_allclose(radius[some], sorted_others(x[some])[:, 2], rtol=1e-6)
        assert (radius[~some] == -1).all()
    expected = [(far(y, x[some]) <= sorted_others(x[some])[:, 2]).any(1).mean() for some in keep]
    assert covered(y, x, found).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_group_is_every_gth_picture():
    assert kept(5, 2).int().tolist() == [[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]


def test_close_pictures_far_from_the_origin():
    x = line(1e4, 1e4 + 0.25)  # squares of 10⁸, apart by 0.06: float32 could not tell
    assert nearest(x, line(1e4, 1e4 + 0.5))[1].tolist() == [0, 0.25]


def test_a_pair_is_as_far_apart_from_either_side():
    x, y = normal(60) + 100, normal(60, seed=1)
    there = torch.cat(list(neighbours._between(x, y)))
    back = torch.cat(list(neighbours._between(y, x)))
    assert (there == back.T).float().mean() > 0.999
    torch.testing.assert_close(there, back.T, rtol=2e-7, atol=0)


def test_duplicates_are_at_distance_0():
    x = normal(8).repeat(3, 1) * 7 + 1000
    found = surroundings(x)
    assert (found.third > 0).all()  # two duplicates, then another one
    assert (surroundings(x.repeat(2, 1)).third == 0).all()
    assert (nearest(x, x)[1] == 0).all()


def test_a_copy_of_a_picture_that_occurs_twice_is_a_copy():
    y = line(0, 0, 10, 20, 30, 40)
    found = hits(line(0, 4, 14, 16), y, surroundings(y))
    assert found.copied.tolist() == [True, True, True, True]
    assert surroundings(y).other.tolist() == [10, 10, 10, 10, 10, 10]


def test_what_is_no_nearer_than_other_real_pictures_is_no_copy():
    y = line(0, 1, 2, 3, 4, 5)
    assert hits(line(-1, -0.5, 6, 9), y, surroundings(y)).copied.tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_copies_of_duplicates_lie_in_their_ball_of_radius_0():
    y = line(*[3] * 6, 100)
    found = hits(line(3, 4), y, surroundings(y))
    assert found.balls.tolist() == [7, 1]  # the ball about 100 reaches to 3
    assert found.inside.tolist() == [True, True]


def test_no_drawn_pictures_hit_nothing():
    y = normal(9)
    found = hits(y[:0], y, surroundings(y))
    assert len(found.inside) == 0
    assert found.closest.isinf().all()


@pytest.mark.parametrize(("n", "groups"), [(3, 0), (4, 2), (5, 2)])
def test_too_few_pictures_for_three_neighbours(n, groups):
    with pytest.raises(ValueError, match="3 neighbours take 4 pictures, not"):
        radii(normal(n), groups)


def test_too_few_pictures_for_five_neighbours():
    with pytest.raises(ValueError, match="5 neighbours take 6 pictures, not 5"):
        surroundings(normal(5))


def test_nearest_real_pictures():
    real = normal(50)
    which, distance = nearest(real[[5, 2, 40]], real)
    assert which.tolist() == [5, 2, 40]
    assert distance.tolist() == [0, 0, 0]

import functools
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torchmetrics.image.inception import InceptionScore

from unnoise.evaluation.estimates import KINDS, estimates, metric_name, metrics_by_name
from unnoise.evaluation.extractors.base import Features
from unnoise.evaluation.reference import Reference


def features(n, seed, shift=0.0, d=5):
    generator = torch.Generator().manual_seed(seed)
    pooled, spatial, logits = (torch.randn(n, k, generator=generator) for k in (d, 7, 4))
    return Features(pooled + shift, spatial + shift, 2 * logits)


def rows(whole, index):
    return Features(*(part[index] for part in whole))


def reference(n=60):
    return Reference({"extractor": "toy"}, features(n, 0))


def computed(held, *batches):
    metrics = metrics_by_name(held)
    for batch in batches:
        metrics.update(batch)
    return {name: value.item() for name, value in metrics.compute().items()}


def far(x, y):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))


def others(x):
    return np.sort(far(x, x)[~np.eye(len(x), dtype=bool)].reshape(len(x), -1), 1)


def by_hand(real, drawn):
    """Every metric in float64 as the papers define it, one picture against all."""
    (y, y_spatial, _), (x, x_spatial, logits) = (
        [part.double().numpy() for part in each] for each in (real, drawn)
    )

    def frechet(a, b):
        a_root, b_root = ((c - c.mean(0)) / math.sqrt(len(c) - 1) for c in (a, b))
        trace = np.linalg.svd(a_root @ b_root.T, compute_uv=False).sum()
        means = ((a.mean(0) - b.mean(0)) ** 2).sum()
        return means + (a_root**2).sum() + (b_root**2).sum() - 2 * trace

    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def pairs(a):
        return (k(a, a).sum() - np.trace(k(a, a))) / (len(a) * (len(a) - 1))

    to, apart = far(x, y), others(y)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {
        "fd_toy": frechet(x, y),
        "sfd_toy": frechet(x_spatial, y_spatial),
        "kid_toy": pairs(x) + pairs(y) - 2 * k(x, y).mean(),
        "is_toy": np.exp((p * np.log(p / p.mean(0))).sum(1).mean()),
        "precision_toy": (to <= apart[:, 2]).any(1).mean(),
        "recall_toy": (to <= others(x)[:, 2:3]).any(0).mean(),
        "density_toy": (to <= apart[:, 4]).sum() / (5 * len(x)),
        "coverage_toy": (to.min(0) <= apart[:, 4]).mean(),
        "memorised_toy": (to.min(1) < apart[to.argmin(1), 0]).mean(),
    }


def test_every_metric_by_hand():
    held, drawn = reference(), features(45, 1, shift=0.4)
    expected = by_hand(held.features, drawn)
    assert computed(held, drawn) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected["precision_toy"] < 1
    assert 0 < expected["recall_toy"] < 1
    assert 0 < expected["coverage_toy"] < 1
    assert 0 < expected["memorised_toy"] < 1


def test_the_score_is_that_of_torchmetrics():
    class Same(nn.Module):
        def forward(self, x):
            return x

    drawn = features(80, 1)
    theirs = InceptionScore(feature=Same(), splits=1)
    theirs.update(drawn.logits.double())
    assert computed(reference(), drawn)["is_toy"] == pytest.approx(float(theirs.compute()[0]))


def test_the_score_of_sure_and_of_clueless_logits():
    sure = features(8, 1)._replace(logits=1000 * torch.eye(4).repeat(2, 1))
    clueless = features(8, 1)._replace(logits=torch.zeros(8, 4))
    assert computed(reference(), sure)["is_toy"] == pytest.approx(4, abs=1e-12)
    assert computed(reference(), clueless)["is_toy"] == pytest.approx(1, abs=1e-12)


def test_a_set_against_itself():
    held = reference()
    found = computed(held, held.features)
    assert found["fd_toy"] < 1e-6
    assert found["sfd_toy"] < 1e-6
    assert found["precision_toy"] == found["recall_toy"] == found["coverage_toy"] == 1
    assert found["memorised_toy"] == 1
    assert found["density_toy"] == pytest.approx(6 / 5)  # itself, and the 5 that its ball holds


def test_batches_change_nothing():
    held, drawn = reference(), features(50, 1, shift=0.3)
    batches = [rows(drawn, part) for part in torch.arange(50).split([1, 20, 0, 29])]
    assert computed(held, *batches) == pytest.approx(computed(held, drawn), rel=1e-12)


def test_reset_forgets():
    held, drawn = reference(), features(40, 1)
    metrics = metrics_by_name(held)
    metrics.update(features(30, 2, shift=3.0))
    metrics.reset()
    metrics.update(drawn)
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == computed(held, drawn)


def test_streaming_metrics_do_not_grow():
    metrics = metrics_by_name(
        reference(), [kind for kind in KINDS if kind not in ("kid", "recall")]
    )

    def size():
        return sum(
            state.numel() for metric in metrics.values() for state in metric.metric_state.values()
        )

    metrics.update(features(10, 1))
    before = size()
    metrics.update(features(500, 2))
    assert size() == before


SHARDS = {"unequal": (17, 33), "none": (50, 0), "not even an update": (50, None)}


def shard(rank, name):
    sizes, drawn = SHARDS[name], features(50, 1, shift=0.3)
    if sizes[rank] is None:
        return None
    start = sum(sizes[:rank])
    return rows(drawn, slice(start, start + sizes[rank]))


def work(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name in SHARDS:
        mine = shard(rank, name)
        found[name] = computed(reference(), *([] if mine is None else [mine]))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_as_one(tmp_path):
    mp.spawn(work, (tmp_path,), nprocs=2)
    expected = computed(reference(), features(50, 1, shift=0.3))
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt").values():
            assert found == pytest.approx(expected, rel=1e-9)


def test_estimates_are_the_metrics_without_each_group():
    held, drawn = reference(), features(43, 1, shift=0.3)
    found = estimates(held, drawn, groups=4)
    whole = computed(held, drawn)
    blocks = torch.arange(43).tensor_split(4)
    without = [
        computed(held, rows(drawn, torch.cat([b for b in blocks if b is not block])))
        for block in blocks
    ]
    assert list(found) == [f"{kind}_toy" for kind in KINDS]
    for name, estimate in found.items():
        parts = np.array([each[name] for each in without])
        assert estimate.value == pytest.approx(whole[name], rel=1e-9)
        assert estimate.error == pytest.approx(math.sqrt(3 * parts.var()), rel=1e-6)


def density(held, drawn):
    metrics = metrics_by_name(held, ["density"])
    metrics.update(drawn)
    return metrics.compute()["density_toy"].item()


def test_the_error_of_a_mean_over_pictures_is_its_standard_error():
    held, drawn = reference(), features(40, 1, shift=0.3)
    balls = [density(held, rows(drawn, [k])) for k in range(40)]
    error = np.std(balls, ddof=1) / math.sqrt(40)
    assert estimates(held, drawn, ["density"], 40)["density_toy"].error == pytest.approx(error)


def test_errors_are_the_spread_of_independent_drawings():
    held = reference(120)
    drawings = [estimates(held, features(120, 1 + k, shift=0.5)) for k in range(60)]
    for name in drawings[0]:
        spread = np.std([drawing[name].value for drawing in drawings], ddof=1)
        error = math.sqrt(np.mean([drawing[name].error ** 2 for drawing in drawings]))
        most = 2.0 if name in ("recall_toy", "coverage_toy") else 1.3
        assert 0.8 < error / spread < most, name


@pytest.mark.parametrize("classes", [4, 10])
def test_errors_are_that_spread_too_where_classes_take_turns(classes):
    def drawn(seed, n):
        apart = 4 * features(classes, 99).pooled
        each = features(n, seed)
        return each._replace(pooled=each.pooled + apart[torch.arange(n) % classes])

    held = Reference({"extractor": "toy"}, drawn(0, 390))
    drawings = [estimates(held, drawn(1 + k, 200), ["fd"])["fd_toy"] for k in range(30)]
    spread = np.std([each.value for each in drawings], ddof=1)
    error = math.sqrt(np.mean([each.error**2 for each in drawings]))
    assert 0.7 < error / spread < 1.7


def test_fewer_pictures_than_groups_are_a_group_each():
    held, drawn = reference(), features(7, 1)
    assert estimates(held, drawn) == estimates(held, drawn, groups=7)


def test_a_function_of_drawn_and_real_features_is_a_metric():
    def mean_distance(drawn, real, power=1):
        return (drawn.mean(0) - real.mean(0)).norm() ** power

    real, drawn = reference(), features(50, 3, shift=0.5)
    kinds = ["fd", functools.partial(mean_distance, power=2)]
    metrics = metrics_by_name(real, kinds)
    for part in (slice(0, 20), slice(20, 50)):
        metrics.update(rows(drawn, part))
    away = drawn.pooled.mean(0) - real.features.pooled.mean(0)
    assert metrics.compute()["mean_distance_toy"] == pytest.approx(float(away @ away), rel=1e-5)
    found = estimates(real, drawn, kinds, groups=5)
    assert list(found) == ["fd_toy", "mean_distance_toy"]
    without = torch.stack(
        [mean_distance(drawn.pooled[torch.arange(50) // 10 != g], real.features.pooled, 2)
         for g in range(5)]
    )  # fmt: skip
    error = ((without - without.mean()).square().sum() * 4 / 5).sqrt()
    assert found["mean_distance_toy"].error == pytest.approx(float(error), rel=1e-4)
    assert found["mean_distance_toy"].value == pytest.approx(float(away @ away), rel=1e-5)


def test_chosen_metrics():
    found = estimates(reference(), features(20, 1), ["memorised", "fd"])
    assert list(found) == ["fd_toy", "memorised_toy"]


def test_unknown_metric():
    with pytest.raises(ValueError, match="there is no metric fid; did you mean 'fd'"):
        metrics_by_name(reference(), ["fid"])


@pytest.mark.parametrize(("kind", "n"), [("fd", 1), ("sfd", 1), ("kid", 1), ("density", 5)])
def test_a_reference_too_small(kind, n):
    with pytest.raises(ValueError, match=f", not {n}"):
        metrics_by_name(reference(n), [kind])


@pytest.mark.parametrize(
    ("kind", "n"), [("fd", 1), ("kid", 1), ("recall", 3), ("is", 0), ("coverage", 0)]
)
def test_too_few_pictures(kind, n):
    metrics = metrics_by_name(reference(), [kind])
    metrics.update(features(n, 1))
    with pytest.raises(ValueError, match=r"takes? \d|a picture"):
        metrics.compute()


def test_errors_of_one_picture():
    with pytest.raises(ValueError, match="errors take 2 pictures"):
        estimates(reference(), features(1, 1), ["is"])


def test_features_of_another_extractor():
    with pytest.raises(ValueError, match=r"pooled .* are \(6,\), those of the reference \(5,\)"):
        estimates(reference(), features(20, 1, d=6), ["fd"])


def test_features_that_are_not_finite():
    drawn = features(20, 1)
    drawn.pooled[3, 1] = math.nan
    with pytest.raises(ValueError, match="pooled features of drawn pictures are NaN or infinite"):
        metrics_by_name(reference(), ["fd"]).update(drawn)


def test_the_reference_is_measured_once(monkeypatch):
    held = reference()
    metrics_by_name(held)
    for name in ("moments", "surroundings", "kernel_mean"):
        monkeypatch.setattr(f"unnoise.evaluation.reference.{name}", None)
    estimates(held, features(20, 1))


def test_numbers_are_named_after_the_extractor_or_as_in_the_literature():
    kinds = ("fd", "sfd", "kid", "is")
    assert [metric_name(kind, "toy") for kind in kinds] == [
        "fd_toy",
        "sfd_toy",
        "kid_toy",
        "is_toy",
    ]
    assert [metric_name(kind, "inception") for kind in kinds] == ["fid", "sfid", "kid", "is"]

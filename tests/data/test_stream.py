import time
from itertools import islice

import pytest
import torch
from torch import Tensor

from unnoise.data.memory import TensorImages
from unnoise.data.source import Batch
from unnoise.data.stream import split_loader, training_loader

N = 23  # with batches of 5 no epoch ends where a batch does


def some_images(n: int = N, captions: bool = False) -> TensorImages:
    """Image i shows i + 1 on the left and nothing on the right; its label is i."""
    images = torch.zeros(n, 1, 2, 4, dtype=torch.uint8)
    images[..., :2] = torch.arange(1, n + 1, dtype=torch.uint8).view(-1, 1, 1, 1)
    return TensorImages(
        images, torch.arange(n), [f"image {i}" for i in range(n)] if captions else None
    )


def take(batches: int, *, images: TensorImages | None = None, **settings) -> list[Batch]:
    settings = {"batch_size": 5, "seed": 3} | settings
    return list(islice(training_loader(images or some_images(), **settings), batches))


def joined(batches: list[Batch]) -> dict[str, Tensor]:
    return {key: torch.cat([b[key] for b in batches]) for key in ("image", "label", "position")}


def assert_same(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for key in ("image", "label", "position"):
            assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_every_epoch_has_every_image_once(batch_size):
    epochs = 4
    labels = joined(take(epochs * N // batch_size + 1, batch_size=batch_size))["label"]
    rows = labels[: epochs * N].view(epochs, N)
    assert torch.equal(rows.sort(1).values, torch.arange(N).expand(epochs, N))


def test_epochs_and_seeds_have_orders_of_their_own():
    rows = [joined(take(14, seed=seed))["label"][: 3 * N].view(3, N) for seed in (0, 1)]
    orders = {tuple(row.tolist()) for row in torch.cat(rows)} | {tuple(range(N))}
    assert len(orders) == 7


def test_orders_are_uniform():
    """The first image of each of 2300 epochs: χ² with 22 degrees of freedom, p = 1e-4 at 56.7."""
    first = joined(take(2300, batch_size=N))["label"].view(-1, N)[:, 0]
    counts = first.bincount(minlength=N)
    assert ((counts - 100) ** 2 / 100).sum() < 56.7


def test_positions_number_the_stream():
    assert torch.equal(joined(take(12))["position"], torch.arange(60))


def test_batches_have_the_types_they_declare():
    batch = take(1, images=some_images(captions=True))[0]
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["position"].dtype == torch.int64
    assert batch["caption"] == [f"image {i}" for i in batch["label"].tolist()]
    assert "caption" not in take(1)[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 4, 5, 23, 24])  # batch 23 begins epoch 5 exactly
def test_a_stream_resumes_anywhere(start, workers):
    whole = take(start + 6, flip=True)
    assert_same(take(6, flip=True, start=start, workers=workers), whole[start:])


@pytest.mark.parametrize("start", [0, 3])
def test_a_stream_resumes_at_the_end_of_an_epoch_of_whole_batches(start):
    images = some_images(15)  # three batches of 5
    whole = take(9, images=images)
    assert_same(take(9 - start, images=images, start=start), whole[start:])


def test_workers_change_nothing():
    assert_same(take(12, flip=True, workers=2), take(12, flip=True))


def test_a_far_start_is_as_fast_as_a_near_one():
    begun = time.perf_counter()
    batch = take(1, start=10**6)[0]
    assert time.perf_counter() - begun < 1.0
    assert batch["position"].tolist() == list(range(5 * 10**6, 5 * 10**6 + 5))
    assert_same(take(2, start=10**6 - 1)[1:], [batch])


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_ranks_share_each_batch_of_the_single_process(ranks):
    single = take(9, batch_size=6, flip=True)
    shares = [take(9, batch_size=6, flip=True, rank=r, ranks=ranks) for r in range(ranks)]
    for step, batch in enumerate(single):
        together = joined([share[step] for share in shares])
        for key in ("image", "label", "position"):
            assert torch.equal(together[key], batch[key])
        assert {len(share[step]["label"]) for share in shares} == {6 // ranks}


def mirrored(batch: dict[str, Tensor]) -> Tensor:
    """Which images are mirrored; that they are the right ones, mirrored or not, is asserted."""
    value = (batch["label"] + 1).view(-1, 1, 1, 1).to(torch.uint8)
    left, right = batch["image"][..., :2], batch["image"][..., 2:]
    is_mirrored = left[:, 0, 0, 0] == 0
    swap = is_mirrored.view(-1, 1, 1, 1)
    assert torch.equal(torch.where(swap, right, left), value.expand_as(left))
    assert not torch.where(swap, left, right).any()
    return is_mirrored


def test_half_the_images_are_mirrored_afresh_each_epoch():
    epochs = 200
    batch = joined(take(epochs, batch_size=N, flip=True))
    flips = mirrored(batch).view(epochs, N)
    assert abs(flips.float().mean() - 0.5) < 4 * 0.5 / (epochs * N) ** 0.5
    by_image = flips.gather(1, batch["label"].view(epochs, N).argsort(1)).float()
    assert ((by_image.mean(0) - 0.5).abs() < 5 * 0.5 / epochs**0.5).all()
    assert len({tuple(row) for row in flips.tolist()}) == epochs


def test_flips_change_neither_the_order_nor_the_source():
    images = some_images()
    before = images.images.clone()
    plain, flipped = joined(take(9)), joined(take(9, images=images, flip=True))
    assert torch.equal(plain["label"], flipped["label"])
    assert not mirrored(plain).any()
    assert torch.equal(images.images, before)


def test_flips_do_not_depend_on_what_was_read_before():
    loader = training_loader(some_images(), batch_size=5, seed=3, flip=True)
    first = list(islice(loader, 7))
    assert_same(list(islice(loader, 7)), first)  # a second pass begins at start again
    assert_same(take(1, start=6, flip=True), first[6:])


def test_loading_leaves_the_global_generators_alone():
    state = torch.get_rng_state()
    take(5, flip=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5, "ranks": 2}, "batch_size 5 does not divide among 2 processes"),
        ({"batch_size": 24}, r"batch_size 24 is larger than the data \(23 images\)"),
    ],
)
def test_batches_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        training_loader(some_images(), seed=0, **settings)


@pytest.mark.parametrize("limit", [None, 1, 5, 12, 23, 100])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_split_is_covered_once_up_to_the_limit(limit, ranks):
    total = min(N, limit or N)
    seen: list[int] = []
    for rank in range(ranks):
        loader = split_loader(some_images(), batch_size=5, limit=limit, rank=rank, ranks=ranks)
        batches = list(loader)
        assert len(batches) == len(loader) == -(-total // 5)
        rows = joined(batches)
        assert torch.equal(rows["position"], rows["label"])
        assert not mirrored(rows).any()
        seen += rows["position"].tolist()
    assert sorted(seen) == list(range(total))
    if ranks == 1:
        assert seen == sorted(seen)


def test_split_workers_change_nothing():
    split = split_loader(some_images(captions=True), batch_size=5)
    parallel = split_loader(some_images(captions=True), batch_size=5, workers=2)
    assert_same(list(parallel), list(split))
    assert [b["caption"] for b in parallel] == [b["caption"] for b in split]

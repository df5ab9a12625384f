import pickle
import shutil

import pytest
import torch

from unnoise.data import latents
from unnoise.data.latents import Latents, make_room, size_of
from unnoise.data.memory import TensorImages
from unnoise.data.stream import Kept, split_loader, training_loader

N, SHAPE = 600, (2, 3, 3)
ALL = torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path))


class Encoder:
    def __init__(self, of=ALL):
        self.of, self.calls = of, 0

    def __call__(self, rows):
        self.calls += 1
        return self.of[rows]


def test_what_was_encoded_is_read_and_not_encoded_again():
    encode = Encoder()
    kept = Latents("a", N, SHAPE)
    assert torch.equal(torch.cat([block for _, block in kept.blocks(encode)]), ALL)
    assert encode.calls == 3
    again = Latents("a", N, SHAPE)
    assert torch.equal(torch.cat([block for _, block in again.blocks(encode)]), ALL)
    assert encode.calls == 3
    rows = torch.tensor([599, 0, 300, 0])
    assert torch.equal(again.read(rows), ALL[rows])


def test_it_goes_on_where_it_was_stopped():
    encode = Encoder()
    next(Latents("a", N, SHAPE).blocks(encode))  # and no more
    kept = Latents("a", N, SHAPE)
    list(kept.blocks(encode))
    assert encode.calls == 3
    assert torch.equal(kept.read(torch.arange(N)), ALL)


@pytest.mark.parametrize("at", [0, 4 * 256 * 18, -4])
def test_a_damaged_block_is_encoded_anew(at):
    encode = Encoder()
    kept = Latents("a", N, SHAPE)
    list(kept.blocks(encode))
    with (kept.folder / "latents.float32").open("r+b") as file:
        file.seek(at, 0 if at >= 0 else 2)
        file.write(b"\x12\x34\x56\x78")
    kept = Latents("a", N, SHAPE)
    list(kept.blocks(encode))
    assert encode.calls == 4
    assert torch.equal(kept.read(torch.arange(N)), ALL)


def test_processes_share_the_work():
    encoders = Encoder(), Encoder()
    kept = [Latents("a", N, SHAPE) for _ in encoders]
    numbers = [
        [number for number, _ in each.blocks(encode, rank, 2)]
        for rank, (each, encode) in enumerate(zip(kept, encoders, strict=True))
    ]
    assert numbers == [[0, 2], [1]]
    assert [encode.calls for encode in encoders] == [2, 1]
    assert all(torch.equal(each.read(torch.arange(N)), ALL) for each in kept)


def test_a_file_that_another_run_reads_is_not_changed_under_it():
    """Two runs that allocate at once may leave a file of another size."""
    kept = Latents("a", N, SHAPE)
    list(kept.blocks(Encoder()))
    with (kept.folder / "latents.float32").open("ab") as file:
        file.write(bytes(64))
    other = Latents("a", N, SHAPE)
    assert torch.equal(kept.read(torch.arange(N)), ALL)
    list(other.blocks(Encoder()))
    assert torch.equal(other.read(torch.arange(N)), ALL)
    shutil.rmtree(kept.folder)
    assert torch.equal(kept.read(torch.arange(N)), ALL)


def test_a_worker_reads_the_same():
    kept = Latents("a", N, SHAPE)
    list(kept.blocks(Encoder()))
    packed = pickle.dumps(kept)
    assert len(packed) < 10_000
    assert torch.equal(pickle.loads(packed).read(torch.arange(N)), ALL)


def test_what_was_used_longest_ago_makes_room():
    size = size_of(N, SHAPE)
    room = 2.5 * (size + 48)
    for name in ("a", "b"):
        assert make_room({name: size}, room) is None
        list(Latents(name, N, SHAPE).blocks(Encoder()))
    assert make_room({"a": size}, room) is None  # used again
    assert make_room({"c": size}, room) is None
    assert sorted(each.name for each in latents.home().iterdir()) == ["a"]
    assert "latent_cache allows" in make_room({"d": size}, size / 2)
    assert sorted(each.name for each in latents.home().iterdir()) == ["a"]


def test_a_full_disk_is_told_before_anything_is_encoded():
    assert "left" in make_room({"a": 10**18}, 2e18)


def pictures():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (N, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return TensorImages(pixels, torch.zeros(N, dtype=torch.int64))


def half(pixels):
    return pixels.float()[..., ::2] / 255


@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_a_batch_has_the_latents_of_its_pictures_mirrored_or_not(flip, with_images):
    images = pictures()
    found = []
    for name, pixels in (("plain", images.images), ("mirrored", images.images.flip(-1))):
        kept = Latents(name, N, (1, 4, 2))
        list(kept.blocks(lambda rows, pixels=pixels: half(pixels[rows])))
        found.append(kept)
    way = {"batch_size": 32, "seed": 0, "flip": flip}
    encoded = training_loader(Kept(images, found[: 1 + flip], with_images), **way)
    for step, (batch, plain) in enumerate(
        zip(encoded, training_loader(images, **way), strict=False)
    ):
        assert torch.equal(batch["position"], plain["position"])
        assert torch.equal(batch["moments"], half(plain["image"]))
        assert ("image" in batch) == with_images
        if with_images:
            assert torch.equal(batch["image"], plain["image"])
        if step == 40:  # twice through the pictures
            break


def test_a_split_is_read_in_order_as_it_is():
    kept = Latents("plain", 100, (1, 4, 2))
    images = pictures()
    list(kept.blocks(lambda rows: half(images.images[rows])))
    batches = list(split_loader(Kept(images, [kept], False), batch_size=64, limit=100))
    assert torch.equal(torch.cat([b["moments"] for b in batches]), half(images.images[:100]))

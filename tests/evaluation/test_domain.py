import functools
import hashlib

import pytest
import torch

from unnoise.data.scenes import Scenes
from unnoise.data.sprites import Sprites
from unnoise.evaluation.estimates import estimates
from unnoise.evaluation.extractors import domain
from unnoise.evaluation.extractors.base import Features, extract
from unnoise.evaluation.extractors.domain import (
    SHIPPED,
    DomainExtractor,
    DomainNetwork,
    Learned,
    fit,
    shipped,
)
from unnoise.evaluation.reference import reference

PLAN = Learned("bars", ("across", "down"), channels=1, size=16, data="0f", seed=3, steps=30)


def bars(n, seed=0):
    """Noisy pictures of one bright bar, and which way it lies."""
    random = torch.Generator().manual_seed(seed)
    pictures = torch.randint(60, (n, 1, 16, 16), dtype=torch.uint8, generator=random)
    labels = torch.arange(n) % 2
    places = torch.randint(2, 14, (n,), generator=random).tolist()
    for picture, place, label in zip(pictures, places, labels.tolist(), strict=True):
        (picture[0].T if label else picture[0])[place] = 250
    return pictures, labels


def batches(seed=0):
    return (bars(32, 100 * seed + k) for k in range(10**6))


def untrained(channels=3, size=16):
    torch.manual_seed(0)
    learned = PLAN._replace(channels=channels, size=size)
    return DomainExtractor(DomainNetwork(channels, 2), learned)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_learns_what_it_is_taught():
    pictures, labels = bars(200, seed=-1)
    assert fit(PLAN, batches())(pictures).logits.argmax(1).eq(labels).float().mean() > 0.98


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_training_depends_on_seed_and_batches_alone(two_threads):
    first = fit(PLAN._replace(steps=4), batches()).network.state_dict()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    torch.rand(7)
    state = torch.get_rng_state()
    again = fit(PLAN._replace(steps=4), batches()).network.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = fit(PLAN._replace(steps=4, seed=4), batches()).network.state_dict()
    assert not torch.equal(first["classify.weight"], other["classify.weight"])


def test_what_was_saved_is_what_was_trained(tmp_path):
    extractor = fit(PLAN._replace(steps=4), batches())
    pictures, _ = bars(5)
    digest = extractor.save(tmp_path / "a.safetensors")
    assert digest == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert extractor.save(tmp_path / "b.safetensors") == digest
    loaded = DomainExtractor.load(tmp_path / "a.safetensors")
    assert equal(loaded(pictures), extractor(pictures))
    assert (loaded.digest, loaded.learned, loaded.name) == (digest, extractor.learned, "bars")


def test_a_file_that_is_none_of_ours_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no extractor .*gone"):
        DomainExtractor.load(tmp_path / "gone")
    extractor = untrained()
    extractor.save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for name, wrong in {"cut": content[:-100], "text": b"weights", "empty": b""}.items():
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{name} is no whole safetensors file"):
            DomainExtractor.load(tmp_path / name)


def test_pixel_art_enlarged_gives_the_same_features():
    sprites = Sprites(40, 1).images("train").images
    extractor = untrained()
    for times in (2, 4):
        large = sprites.repeat_interleave(times, 2).repeat_interleave(times, 3)
        assert equal(extractor(large), extractor(sprites))


def test_pictures_of_another_size_keep_their_mean_tone():
    ramp = torch.linspace(0, 255, 28).round().to(torch.uint8).expand(1, 1, 28, 28)
    for size in (16, 20, 32):
        seen = untrained(channels=1, size=size).seen(ramp)
        assert seen.shape == (1, 1, size, size)
        assert seen.mean().item() == pytest.approx(0, abs=1e-2)
        assert (seen.diff(dim=3) > 0).all()


def test_pictures_that_are_no_squares_are_read_as_they_are(tmp_path):
    sprites = Sprites(12, 1).images("train").images[..., 2:14, :]
    extractor = untrained(size=(12, 16))
    assert equal(extractor(sprites), extractor.network(sprites.float() / 127.5 - 1))
    assert extractor(sprites).spatial.shape == (12, 8 * 3 * 4)
    large = sprites.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert equal(extractor(large), extractor(sprites))
    stretched = sprites.repeat_interleave(2, 3)
    assert extractor.seen(stretched).shape == (12, 3, 12, 16)
    extractor.network.half().float()
    extractor.save(tmp_path / "own.safetensors")
    again = DomainExtractor.load(tmp_path / "own.safetensors")
    assert (again.learned, again.resize) == (extractor.learned, extractor.resize)
    assert equal(again(sprites), extractor(sprites))


def test_it_learns_from_pictures_that_are_no_squares():
    def wide(pictures, labels):
        return torch.cat((pictures, pictures[..., :8].flip(0)), dim=3), labels

    plan = PLAN._replace(size=(16, 24))
    extractor = fit(plan, (wide(*batch) for batch in batches()))
    pictures, labels = wide(*bars(200, seed=-1))
    assert extractor(pictures).logits.argmax(1).eq(labels).float().mean() > 0.9


def test_grey_is_its_own_colour_and_its_own_luma():
    grey, _ = bars(6)
    colour = grey.expand(-1, 3, -1, -1)
    assert equal(untrained(channels=3)(grey), untrained(channels=3)(colour))
    for a, b in zip(untrained(1)(grey), untrained(1)(colour), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert untrained(1).seen(red).mean().item() == pytest.approx(2 * 0.299 - 1, abs=1e-6)


def test_each_picture_is_seen_on_its_own():
    pictures = Sprites(8, 1).images("train").images
    together = untrained()(pictures)
    for row, picture in enumerate(pictures):
        for a, b in zip(untrained()(picture[None]), together, strict=True):
            torch.testing.assert_close(a[0], b[row], rtol=1e-4, atol=1e-5)


def test_features_are_float32_whatever_surrounds():
    pictures, _ = bars(4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = untrained(1)(pictures)
    assert equal(inside, untrained(1)(pictures))


@pytest.mark.parametrize(
    "pictures",
    [torch.zeros(2, 3, 16, 16), torch.zeros(2, 4, 16, 16).byte(), torch.zeros(3, 16, 16).byte()],
)
def test_what_are_no_pictures_is_refused(pictures):
    with pytest.raises(ValueError, match=r"\(B, 1 or 3, H, W\) uint8"):
        untrained()(pictures)


@pytest.mark.parametrize(
    ("name", "least"), [("garments", 0.91), ("sprites", 0.99), ("scenes", 0.82)]
)
def test_those_that_come_along_are_small_and_good(name, least):
    extractor = shipped(name)
    assert extractor.digest == SHIPPED[name]
    assert extractor.learned.accuracy > least
    (file,) = domain.WEIGHTS.glob(f"{name}_*.safetensors")
    assert file.stat().st_size < 500_000


def test_a_file_of_ours_that_was_changed_is_refused(monkeypatch):
    monkeypatch.setitem(SHIPPED, "sprites", SHIPPED["sprites"][:8] + 56 * "0")
    with pytest.raises(ValueError, match=r"sprites_.*has the SHA-256 .*: install unnoise anew"):
        shipped("sprites")
    monkeypatch.setitem(SHIPPED, "sprites", 64 * "0")
    with pytest.raises(ValueError, match="is not there: install unnoise anew"):
        shipped("sprites")


@pytest.fixture(scope="module")
def scenes_by_feature():
    """Real scenes, and the Fréchet distance of others from them."""
    extractor = shipped("scenes")
    train, held_out = (Scenes(600, 200, seed=1).images(s) for s in ("train", "validation"))
    real = reference(train, "train", 600, extractor, torch.device("cpu"))

    def distance(pictures):
        seen = extract(extractor, pictures.split(100), torch.device("cpu"))
        return estimates(real, seen, ["fd"])["fd_scenes"].value

    return held_out.read(torch.arange(200)), distance


def test_the_distance_of_scenes_grows_with_blur_and_with_noise(scenes_by_feature):
    pictures, distance = scenes_by_feature
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))

    def blur(times):
        return functools.reduce(lambda x, _: blurred(x), range(times), pictures)

    of_real = distance(pictures)
    spoilt = [blur(times) for times in (1, 3, 9)]
    noisy = [(pictures + s * noise).round().clamp(0, 255).to(torch.uint8) for s in (20, 40, 80)]
    for each in (spoilt, noisy):
        found = [of_real, *map(distance, each)]
        assert found == sorted(found)
        assert found[1] > of_real * 1.2
    plain = torch.randint(256, pictures.shape, generator=torch.Generator().manual_seed(1)).byte()
    assert distance(plain) > distance(spoilt[-1])


def halves(pictures):
    """The upper half of each above the lower half of another."""
    return torch.cat([pictures[:, :, :8], pictures.roll(7, 0)[:, :, 8:]], dim=2)


def blurred(pictures):
    means = torch.nn.functional.avg_pool2d(pictures.float(), 3, 1, 1, count_include_pad=False)
    return means.round().to(torch.uint8)


@pytest.fixture(scope="module")
def sprites_reference():
    source = Sprites(size=20_000, validation_size=1000)
    return source.images("validation").images, reference(
        source.images("train"), "train", 5000, shipped("sprites"), torch.device("cpu")
    )


@pytest.mark.parametrize(
    ("spoilt", "least", "most"), [(lambda x: x, 0.9, 1.0), (halves, 0.0, 0.35), (blurred, 0.0, 0.3)]
)
def test_precision_of_sprites_tells_real_ones_from_spoilt_ones(
    sprites_reference, spoilt, least, most
):
    held_out, real = sprites_reference
    seen = extract(shipped("sprites"), [spoilt(held_out)], torch.device("cpu"))
    found = estimates(real, seen, ["precision", "recall", "coverage"])
    assert least <= found["precision_sprites"].value <= most
    if spoilt is blurred:  # none is as sharp as any real one
        assert found["recall_sprites"].value < 0.05


def test_memorised_is_sought_among_all_pictures(sprites_reference):
    _, real = sprites_reference
    copies = Features(*(part[-500:] for part in real.features))
    found = estimates(real, copies, ["memorised", "precision"])
    assert found["memorised_sprites"].value == 1
    assert found["precision_sprites"].value > 0.9
    assert len(real.neighbours) == 1000
    assert len(real.whole.neighbours) == 5000

import hashlib
import struct

import pytest
import torch

from unnoise.data.cifar import CIFAR10
from unnoise.data.classics import MNIST, FashionMNIST
from unnoise.data.memory import TensorImages
from unnoise.data.scenes import Scenes
from unnoise.data.source import ImageSource
from unnoise.data.sprites import Sprites
from unnoise.evaluation.extractors.domain import shipped
from unnoise.evaluation.extractors.find import (
    find_extractor,
    found,
    inception_weights,
    train_extractor,
)
from unnoise.evaluation.reference import reference, spread

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unnoise.evaluation.extractors.find.STEPS", 3)
    return tmp_path / "cache" / "extractors"


def write_digits(folder, seed=0):
    """A data set in MNIST's files, of 40 + 20 pictures of noise."""
    folder.mkdir(exist_ok=True)
    random = torch.Generator().manual_seed(seed)
    for prefix, n in (("train", 40), ("t10k", 20)):
        pixels = torch.randint(256, (n, 28, 28), dtype=torch.uint8, generator=random)
        labels = torch.arange(n).byte() % 10
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">{1 + values.ndim}I", 8 << 8 | values.ndim, *values.shape)
            (folder / f"{prefix}-{name}-ubyte").write_bytes(head + values.numpy().tobytes())
    return str(folder)


def test_auto_goes_by_the_data():
    assert find_extractor("auto", FashionMNIST(), CPU).digest == shipped("garments").digest
    assert find_extractor("auto", Sprites(), CPU).digest == shipped("sprites").digest
    assert find_extractor("auto", Scenes(), CPU).digest == shipped("scenes").digest
    assert find_extractor("sprites", CIFAR10(), CPU).name == "sprites"


def test_digits_are_learned_once_for_the_same_pictures(tmp_path, cache, monkeypatch):
    root = write_digits(tmp_path / "mnist")
    first = find_extractor("auto", MNIST(root), CPU)
    assert (first.name, first.learned.size, first.learned.channels) == ("digits", 28, 1)
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("unnoise.evaluation.extractors.find.fit", None)
        again = find_extractor("digits", MNIST(root, image_size=28, channels=3), CPU)
    assert (again.digest, again.learned) == (first.digest, first.learned)
    file.write_bytes(file.read_bytes()[:-1])
    assert find_extractor("digits", MNIST(root), CPU).digest == first.digest
    other = find_extractor("digits", MNIST(write_digits(tmp_path / "mnist", seed=1)), CPU)
    assert other.digest != first.digest
    assert len(list(cache.iterdir())) == 2


def test_missing_digits_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"trained from its data: data\.root .* is not a folder"):
        find_extractor("digits", MNIST(str(tmp_path / "nowhere")), CPU)


def test_a_file_can_be_named_and_a_mistake_is_told(tmp_path):
    extractor = train_extractor(Sprites(60, 30), "pets", steps=2)
    extractor.save(tmp_path / "pets.safetensors")
    found = find_extractor(str(tmp_path / "pets.safetensors"), CIFAR10(), CPU)
    assert (found.name, found.digest) == ("pets", extractor.digest)
    with pytest.raises(ValueError, match="no extractor garment: name one of auto, inception, dig"):
        find_extractor("garment", Sprites(), CPU)
    with pytest.raises(ValueError, match="weights and resize are those of inception; sprites has"):
        find_extractor("auto", Sprites(), CPU, weights="inception.pth")
    with pytest.raises(ValueError, match="weights and resize are those of inception"):
        find_extractor("garments", Sprites(), CPU, resize="antialias")


def test_accuracy_is_that_of_the_held_out_pictures():
    source = Sprites(300, 60)
    extractor = train_extractor(source, "sprites", steps=30)
    held_out = source.images("validation")
    classes = [
        f"{a.class_name}: {a.colour} {a.kind}" + (f" with {a.item}" if a.item else "")
        for a in held_out.attributes
    ]
    said = extractor(held_out.images).logits.argmax(1).tolist()
    right = [extractor.learned.classes[k] == c for k, c in zip(said, classes, strict=True)]
    assert extractor.learned.accuracy == sum(right) / 60
    assert extractor.learned.data == source.images("train").fingerprint


def test_the_extractor_of_sprites_knows_new_ones():
    lessons = Sprites(600, 600, seed=5).lessons("validation")
    found = shipped("sprites")(lessons.images).logits.argmax(1)
    assert (found == lessons.labels).float().mean() > 0.97


def test_what_is_found_of_several_classes_is_their_share():
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3]])
    assert found(logits, torch.tensor([0, 0])).tolist() == [1, 0]
    several = torch.tensor([[0.5, 0, 0.5, 0], [0, 0.5, 0.25, 0.25]])
    torch.testing.assert_close(found(logits, several), torch.tensor([1 / 2, 3 / 3]))


def test_the_extractor_of_scenes_knows_new_ones():
    lessons = Scenes(1, 200, seed=5).lessons("validation")
    logits = shipped("scenes")(lessons.read(torch.arange(200))).logits
    assert found(logits, lessons.labels).mean() > 0.78
    places = logits[:, :8].argmax(1)
    assert (places == torch.arange(200) % 8).float().mean() > 0.97


def test_pictures_without_classes_teach_nothing():
    class Plain(ImageSource):
        prepare = class_names = check = images = staticmethod(tuple)

    with pytest.raises(ValueError, match="have no classes"):
        train_extractor(Plain(16, 3), "plain")


def published(monkeypatch, tmp_path, content, digest=None):
    (tmp_path / "published").write_bytes(content)
    monkeypatch.setattr(
        "unnoise.evaluation.extractors.find.inception.URL", (tmp_path / "published").as_uri()
    )
    right = digest or hashlib.sha256(content).hexdigest()
    monkeypatch.setattr("unnoise.evaluation.extractors.find.inception.SHA256", right)


def test_weights_of_inception_are_fetched_once_and_verified(monkeypatch, tmp_path, cache):
    published(monkeypatch, tmp_path, b"weights")
    assert inception_weights().read_bytes() == b"weights"
    (tmp_path / "published").unlink()
    assert inception_weights().parent == cache
    assert inception_weights(str(tmp_path / "cache" / "extractors" / inception_weights().name))


def test_weights_that_are_not_those_leave_nothing_behind(monkeypatch, tmp_path, cache):
    published(monkeypatch, tmp_path, b"weights", digest=64 * "0")
    with pytest.raises(ValueError, match="not the published 0000"):
        inception_weights()
    assert list(cache.iterdir()) == []


def test_without_a_network_it_says_what_to_put_where(monkeypatch, tmp_path, cache):
    published(monkeypatch, tmp_path, b"")
    (tmp_path / "published").unlink()
    with pytest.raises(ValueError, match="weights are not here") as told:
        find_extractor("auto", CIFAR10(), CPU)
    for part in ("Download", "SHA-256", str(cache), "set weights to", "unnoise-extractor"):
        assert part in str(told.value)
    assert "data.root" not in str(told.value)
    with pytest.raises(ValueError, match=r"there is no file gone\.pth"):
        find_extractor("inception", CIFAR10(), CPU, weights="gone.pth")


def test_a_reference_is_computed_once_for_its_pictures(monkeypatch):
    extractor, images = shipped("sprites"), Sprites(70, 1).images("train")
    first = reference(images, "train", 30, extractor, CPU)
    chosen = torch.cat(list(spread(images, 30)))
    torch.testing.assert_close(
        first.features.pooled, extractor(chosen).pooled, rtol=1e-4, atol=1e-5
    )
    monkeypatch.setattr("unnoise.evaluation.reference.extract", None)
    again = reference(images, "train", 30, extractor, CPU)
    assert torch.equal(first.features.pooled, again.features.pooled)
    assert first.about["data"] == images.fingerprint


def numbered(n):
    values = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1)
    return TensorImages(values, torch.zeros(n, dtype=torch.int64))


def test_chosen_pictures_are_distinct_and_always_the_same():
    taken = torch.cat(list(spread(numbered(100), 20, batch_size=7))).flatten().tolist()
    assert len(taken) == len(set(taken)) == 20
    torch.rand(3)
    assert torch.cat(list(spread(numbered(100), 20))).flatten().tolist() == taken
    assert torch.cat(list(spread(numbered(100), 100))).flatten().tolist() == list(range(100))


@pytest.mark.parametrize("period", [2, 3, 5, 30])
def test_no_class_that_takes_turns_is_missed(period):
    chosen = torch.cat(list(spread(numbered(240), 120))).flatten().int() % period
    shares = chosen.bincount(minlength=period) / 120
    assert (shares - 1 / period).abs().max() < 4 * (0.25 / 120) ** 0.5
    assert shares.min() > 0

import gzip
import hashlib
import inspect
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from unnoise.data import classics
from unnoise.data.cifar import CIFAR10, CIFAR100
from unnoise.data.classics import MNIST, FashionMNIST

RNG = np.random.default_rng(0)
DIGITS = {
    k: RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8) for k, n in (("train", 7), ("t10k", 3))
}
KINDS = {k: RNG.integers(0, 10, n, dtype=np.uint8) for k, n in (("train", 7), ("t10k", 3))}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, zipped: bool = True, mark: str = "-") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in ("train", "t10k"):
        for name, array in (("images-idx3", DIGITS[prefix]), ("labels-idx1", KINDS[prefix])):
            path, raw = folder / f"{prefix}-{name.replace('-', mark)}-ubyte", idx(array)
            if zipped:
                path = path.with_name(path.name + ".gz")
            path.write_bytes(gzip.compress(raw, mtime=0) if zipped else raw)


def cifar_record(labels: list[int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, 3072, dtype=np.uint8)
    return bytes(labels) + pixels.tobytes()


CIFAR10_FILES = {f"data_batch_{i}.bin": cifar_record([i], seed=i) for i in range(1, 6)}
CIFAR10_FILES["test_batch.bin"] = cifar_record([9], 9) + cifar_record([0], 10)
CIFAR100_FILES = {
    "train.bin": cifar_record([19, 99], 1) + cifar_record([3, 0], 2),
    "test.bin": cifar_record([5, 42], 3),
}


def archive(files: dict[str, bytes], folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def fetch(urls, path, digest):
        raise AssertionError(f"tried to download {path}")

    monkeypatch.setattr(classics, "fetch", fetch)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw", "fashion_mnist"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_are_used_where_they_lie(tmp_path, zipped, below, mark):
    write_idx(tmp_path / below, zipped, mark)
    source = FashionMNIST(str(tmp_path))
    source.prepare()
    for split, prefix in (("train", "train"), ("validation", "t10k")):
        images = source.images(split)
        assert images.images.shape == (len(DIGITS[prefix]), 1, 32, 32)
        inner = images.read(torch.arange(len(images)))[:, 0, 2:-2, 2:-2]
        assert np.array_equal(inner, DIGITS[prefix])
        assert images.images.sum() == DIGITS[prefix].sum(dtype=np.int64)  # the border is black
        assert np.array_equal(images.labels, KINDS[prefix])


def test_image_size_28_is_the_published_one_and_channels_repeat_it(tmp_path):
    write_idx(tmp_path)
    images = MNIST(str(tmp_path), image_size=28, channels=3).images("train").images
    assert np.array_equal(images, np.repeat(DIGITS["train"][:, None], 3, axis=1))


def test_other_sizes_resample(tmp_path):
    write_idx(tmp_path)
    assert MNIST(str(tmp_path), image_size=14).images("train").images.shape == (7, 1, 14, 14)


def test_other_shapes_are_fitted(tmp_path):
    write_idx(tmp_path)
    raw = torch.from_numpy(DIGITS["train"])[:, None]
    padded = MNIST(str(tmp_path), (28, 40), fit="pad").images("train").images
    assert torch.equal(padded[..., 6:34], raw)
    assert not padded[..., :6].any()
    assert not padded[..., 34:].any()
    assert torch.equal(MNIST(str(tmp_path), (20, 28)).images("train").images, raw[:, :, 4:24])
    stretched = MNIST(str(tmp_path), (28, 56), fit="stretch").images("train").images.float()
    pairs = stretched.unfold(3, 2, 2).mean(-1)[..., 1:-1]  # linear: ¼ of the one beside, ¾ of it
    linear = 0.75 * raw[..., 1:-1] + 0.125 * (raw[..., :-2].float() + raw[..., 2:])
    assert (pairs - linear).abs().max() <= 1
    bordered = MNIST(str(tmp_path), (32, 32), fit="stretch").images("train").images
    assert torch.equal(bordered[..., 2:30, 2:30], raw)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("source", "files", "folder"),
    [
        (CIFAR10, CIFAR10_FILES, "cifar-10-batches-bin"),
        (CIFAR100, CIFAR100_FILES, "cifar-100-binary"),
    ],
)
def test_cifar_is_read_packed_or_not(tmp_path, packed, source, files, folder):
    if packed:
        (name,) = source.md5
        (tmp_path / name).write_bytes(archive(dict(reversed(files.items())), folder))
    else:
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    cifar = source(str(tmp_path))
    cifar.prepare()
    for split in ("train", "validation"):
        raw = b"".join(files[name] for name in source.members[split])
        records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, source.label_bytes + 3072)
        images = cifar.images(split)
        # the format: the fine label is the last label byte; then the red, green and blue planes
        assert images.labels.tolist() == records[:, source.label_bytes - 1].tolist()
        for channel in range(3):
            plane = records[:, source.label_bytes + 1024 * channel :][:, :1024].reshape(-1, 32, 32)
            assert np.array_equal(images.images[:, channel], plane)


@pytest.mark.parametrize("suffix", ["tgz", "tar"])
def test_an_archive_that_was_renamed_or_unpacked_once_is_not_downloaded(tmp_path, suffix):
    packed = archive(CIFAR10_FILES, "cifar-10-batches-bin")
    raw = packed if suffix == "tgz" else gzip.decompress(packed)
    (tmp_path / f"cifar-10-binary.{suffix}").write_bytes(raw)
    source = CIFAR10(str(tmp_path))
    source.prepare()
    assert source.images("train").labels.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("source", "files", "folder"),
    [
        (CIFAR10, CIFAR10_FILES, "cifar-10-binary/cifar-10-batches-bin"),
        (CIFAR10, CIFAR10_FILES, "cifar10"),
        (CIFAR100, CIFAR100_FILES, "cifar-100-binary/cifar-100-binary"),
    ],
)
def test_unpacked_folders_are_not_passed_over(tmp_path, source, files, folder):
    (tmp_path / folder).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / folder / name).write_bytes(content)
    source(str(tmp_path)).prepare()
    assert len(source(str(tmp_path)).images("validation")) > 0


@pytest.mark.parametrize(
    ("source", "there", "named"),
    [
        (CIFAR10, "cifar-10-python.tar.gz", "cifar-10-python.tar.gz"),
        (CIFAR10, "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py"),
        (CIFAR10, "cifar10/cifar-10-batches-py/data_batch_1", "cifar10/cifar-10-batches-py"),
        (CIFAR100, "cifar-100-python.tar.gz", "cifar-100-python.tar.gz"),
        (CIFAR100, "cifar-100-python/train", "cifar-100-python"),
    ],
)
@pytest.mark.parametrize("at_root", [True, False])
def test_pickles_are_not_passed_over_in_silence(
    tmp_path, monkeypatch, capsys, source, there, named, at_root
):
    monkeypatch.setattr(classics, "fetch", lambda urls, path, digest: None)
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_bytes(b"pickles")
    source(str(tmp_path if at_root else (tmp_path / there).parent)).prepare()
    said = f"{tmp_path / named} holds pickles, which can run anything: cifar-10"
    assert said in capsys.readouterr().err


def test_cifar_at_another_size_and_in_grey(tmp_path):
    for name, content in CIFAR10_FILES.items():
        (tmp_path / name).write_bytes(content)
    images = CIFAR10(str(tmp_path), image_size=16, channels=1).images("train").images
    assert images.shape == (5, 1, 16, 16)


@pytest.mark.parametrize("source", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_classes_must_be_those_of_the_set(source):
    declared = inspect.signature(source).parameters["classes"].default
    assert len(set(source().class_names())) == declared
    with pytest.raises(ValueError, match=f"classes is 7, but {source.title} has {declared}"):
        source(classes=7)


def test_a_root_that_is_no_folder_is_refused_by_check_not_by_the_constructor(tmp_path):
    source = MNIST(str(tmp_path / "mnits"))
    with pytest.raises(FileNotFoundError, match=r"data.root .*mnits is not a folder"):
        source.check()
    with pytest.raises(FileNotFoundError, match="mnits"):
        source.prepare()
    MNIST().check()  # the default folder is made when it is needed


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path))
    write_idx(tmp_path / "mnist")
    source = MNIST()
    source.prepare()
    assert len(source.images("train")) == 7
    monkeypatch.delenv("UNNOISE_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert MNIST().home == tmp_path / "home" / ".cache" / "unnoise" / "mnist"


def test_only_what_is_missing_is_downloaded(tmp_path, monkeypatch):
    write_idx(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    asked = []
    monkeypatch.setattr(
        classics, "fetch", lambda urls, path, digest: asked.append((urls, path, digest))
    )
    MNIST(str(tmp_path)).prepare()
    ((urls, path, digest),) = asked
    assert path == tmp_path / "t10k-labels-idx1-ubyte.gz"
    assert digest == MNIST.md5[path.name]
    assert len(urls) > 1
    assert all(url.endswith(f"/{path.name}") for url in urls)


def test_some_of_the_unpacked_files_are_not_enough(tmp_path, monkeypatch):
    for name in list(CIFAR10_FILES)[1:]:
        (tmp_path / name).write_bytes(CIFAR10_FILES[name])
    asked = []
    monkeypatch.setattr(classics, "fetch", lambda urls, path, digest: asked.append(path.name))
    CIFAR10(str(tmp_path)).prepare()
    assert asked == ["cifar-10-binary.tar.gz"]


def test_a_download_is_verified_and_then_read(tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "host").mkdir()
    (tmp_path / "root").mkdir()
    packed = archive(CIFAR100_FILES, "cifar-100-binary")
    (tmp_path / "host" / "cifar-100-binary.tar.gz").write_bytes(packed)
    monkeypatch.setattr(CIFAR100, "hosts", ((tmp_path / "host").as_uri() + "/",))
    source = CIFAR100(str(tmp_path / "root"))
    with pytest.raises(FileNotFoundError, match="not the published 03b5dce0"):
        source.prepare()
    assert not list((tmp_path / "root").iterdir())
    digest = hashlib.md5(packed).hexdigest()
    monkeypatch.setattr(CIFAR100, "md5", {"cifar-100-binary.tar.gz": digest})
    source.prepare()
    assert source.images("train").labels.tolist() == [99, 0]


def test_a_failed_download_names_all_the_files_needed(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(FashionMNIST, "hosts", ((tmp_path / "nothing").as_uri() + "/",))
    with pytest.raises(FileNotFoundError) as error:
        FashionMNIST(str(tmp_path)).prepare()
    for part in (*FashionMNIST.md5, str(tmp_path), "data.root", "nothing/train-images"):
        assert part in str(error.value)


@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_images_without_their_files(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=f"{source.title}: no .* in {tmp_path}.*data.root"):
        source(str(tmp_path)).images("train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(KINDS["train"]), "IDX file of 3 dimensions"),
        ("train-images-idx3-ubyte", b"<html>", "IDX file of 3 dimensions"),
        ("train-images-idx3-ubyte", idx(DIGITS["train"])[:-1], "holds 5487 values"),
        ("train-images-idx3-ubyte", idx(DIGITS["train"][:0]), "holds 0 values"),
        ("train-images-idx3-ubyte", idx(DIGITS["train"][:, :27]), r"not \(28, 28\)"),
        ("train-labels-idx1-ubyte", idx(KINDS["train"][:6]), "7 images, but .* 6 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(7, 10, np.uint8)), "label 10, but only 10 classes"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(KINDS["train"]), mtime=0)[:-9], "damaged"),
        ("train-labels-idx1-ubyte.gz", b"<html>", "damaged"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, name, content, message):
    write_idx(tmp_path, zipped=name.endswith(".gz"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        MNIST(str(tmp_path)).images("train")


def test_damaged_cifar_files_are_named(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(CIFAR10_FILES, "cifar-10-batches-bin")[:5000])
    with pytest.raises(ValueError, match=rf"{path} is damaged"):
        CIFAR10(str(tmp_path)).images("train")
    path.write_bytes(archive({"data_batch_1": b""}, "cifar-10-batches-py"))
    with pytest.raises(ValueError, match=r"does not hold data_batch_1.bin"):
        CIFAR10(str(tmp_path)).images("train")
    (tmp_path / "test_batch.bin").write_bytes(CIFAR10_FILES["test_batch.bin"][:-1])
    with pytest.raises(ValueError, match="6145 bytes, not records of 3073"):
        CIFAR10(str(tmp_path)).images("validation")

"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 from the files their authors publish.

The validation split is the official test split. Files found in place are checked for their format;
what is missing is downloaded once and checked against the published MD5.
"""

import gzip
import math
import os
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unnoise.data.downloads import fetch
from unnoise.data.images import TensorImages, pad, resize, to_channels
from unnoise.data.loading import Split

ImageSize = Annotated[int, Field(ge=4)]


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


class ClassicImages(ABC):
    """What the four sets share: where the files are, and what is done to the pixels.

    ``root`` is the folder of the files, or the one above it; what is not there is downloaded into
    it. Without ``root`` that folder is ``folder`` below $UNNOISE_DATA, else below ~/.cache/unnoise.

    Raises:
        ValueError: ``classes`` is not the number of classes of the set.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    subfolders: ClassVar[Sequence[str]]  # other places below root where the files may lie
    names: ClassVar[tuple[str, ...]]
    train_size: ClassVar[int]  # images
    md5: ClassVar[dict[str, str]]  # of each file to download
    hosts: ClassVar[Sequence[str]]  # folders on the net that hold every one of them

    def __init__(self, root: str | None, image_size: int, channels: int, classes: int) -> None:
        if classes != len(self.names):
            raise ValueError(f"classes is {classes}, but {self.title} has {len(self.names)}")
        self.root, self.image_size, self.channels = root, image_size, channels

    @property
    def home(self) -> Path:
        """The folder that missing files are downloaded into."""
        if self.root is not None:
            return Path(self.root).expanduser()
        cache = os.environ.get("UNNOISE_DATA") or Path.home() / ".cache" / "unnoise"
        return Path(cache).expanduser() / self.folder

    def class_names(self) -> tuple[str, ...]:
        """The names the authors gave the classes."""
        return self.names

    def check(self) -> int:
        """The size of the training set; FileNotFoundError if ``root`` is given but is no folder."""
        if self.root is not None and not self.home.is_dir():
            raise FileNotFoundError(
                f"data.root {self.root} is not a folder: name the one that has the {self.title} "
                "files, or make it to have them downloaded into it"
            )
        return self.train_size

    def prepare(self) -> None:
        """Download the files that are not there yet."""
        self.check()
        for name, md5 in self.md5.items():
            if self._there(name):
                continue
            try:
                fetch([host + name for host in self.hosts], self.home / name, md5)
            except FileNotFoundError as error:
                needed = ", ".join(self.md5)
                raise FileNotFoundError(f"{error}\n{self.title} needs {needed}.") from None

    def images(self, split: Split) -> TensorImages:
        """The official training split, or as validation the official test split, in memory."""
        images, labels = self._load(split)
        if int(labels.max()) >= len(self.names):
            raise ValueError(
                f"{self.title} in {self.home} has the label {int(labels.max())}, "
                f"but only {len(self.names)} classes"
            )
        return TensorImages(to_channels(self._sized(images), self.channels), labels)

    def _find(self, *names: str) -> Path | None:
        """The first of ``names`` in ``home`` or in a usual place below it."""
        for place in ("", self.folder, *self.subfolders):
            for name in names:
                if (path := self.home / place / name).is_file():
                    return path
        return None

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"{self.title}: no {name} in {self.home}; put it there, or set data.root to the folder "
            "that has it"
        )

    @abstractmethod
    def _there(self, name: str) -> bool:
        """Whether the file, or what it unpacks to, is there."""

    @abstractmethod
    def _load(self, split: Split) -> tuple[Tensor, Tensor]:
        """The split's pixels (N, C, H, W) uint8 and labels (N,) int64."""

    @abstractmethod
    def _sized(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) at ``image_size``."""


class _Idx(ClassicImages):
    """A set in the IDX format of http://yann.lecun.com/exdb/mnist: big-endian shape, then bytes.

    Images are 28×28 grey. An ``image_size`` of 32 adds a black border of two pixels; any other
    resamples. The files may be gzipped or not.
    """

    def __init__(
        self,
        root: str | None = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 1,
        classes: int = 10,
    ) -> None:
        super().__init__(root, image_size, channels, classes)

    def _there(self, name: str) -> bool:
        return self._find(name, name.removesuffix(".gz")) is not None

    def _load(self, split: Split) -> tuple[Tensor, Tensor]:
        prefix = "train" if split == "train" else "t10k"
        images_path, images = self._read(f"{prefix}-images-idx3-ubyte", dimensions=3)
        labels_path, labels = self._read(f"{prefix}-labels-idx1-ubyte", dimensions=1)
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{images_path} has images of {images.shape[1:]} pixels, not (28, 28)")
        if len(images) != len(labels):
            raise ValueError(
                f"{images_path} has {len(images)} images, but {labels_path} {len(labels)} labels"
            )
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))

    def _sized(self, images: Tensor) -> Tensor:
        return pad(images, 32) if self.image_size == 32 else resize(images, self.image_size)

    def _read(self, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
        path = self._find(name, f"{name}.gz")
        if path is None:
            raise self._missing(f"{name}(.gz)")
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it to download it anew"
            ) from error
        start = 4 + 4 * dimensions
        if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
            raise ValueError(f"{path} does not begin like an IDX file of {dimensions} dimensions")
        shape = np.frombuffer(raw[4:start], dtype=">u4").tolist()
        data = np.frombuffer(raw, dtype=np.uint8, offset=start)
        if data.size != math.prod(shape) or not data.size:
            raise ValueError(f"{path} declares the shape {shape}, but holds {data.size} values")
        return path, data.reshape(shape).copy()


@final
class MNIST(_Idx):
    """Handwritten digits, 60,000 + 10,000 (LeCun, Bottou, Bengio, Haffner 1998)."""

    title = "MNIST"
    train_size = 60_000
    folder = "mnist"
    subfolders = ("MNIST/raw", "raw")
    names = tuple("0123456789")
    md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    hosts = (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    )


@final
class FashionMNIST(_Idx):
    """Articles of clothing, 60,000 + 10,000 (Xiao, Rasul, Vollgraf 2017)."""

    title = "Fashion-MNIST"
    train_size = 60_000
    folder = "fashion_mnist"
    subfolders = ("FashionMNIST/raw", "raw", "fashion-mnist")
    names = _listed(
        "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    )
    md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    hosts = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    )


class _Cifar(ClassicImages):
    """A set in CIFAR's binary version: records of label bytes, then 3 × 32 × 32 pixels.

    The archive is read as it is; the files it holds may also lie unpacked. An ``image_size`` other
    than 32 resamples.
    """

    hosts = (
        "https://www.cs.toronto.edu/~kriz/",
        "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
    )
    members: ClassVar[dict[Split, Sequence[str]]]
    label_bytes: ClassVar[int]  # the last of them is the class

    def _there(self, name: str) -> bool:
        members = [member for split in self.members.values() for member in split]
        return self._find(name) is not None or all(map(self._find, members))

    def _load(self, split: Split) -> tuple[Tensor, Tensor]:
        length = self.label_bytes + 3 * 32 * 32
        parts = []
        for member, raw in self._read(self.members[split]):
            if not raw or len(raw) % length:
                raise ValueError(
                    f"{member} has {len(raw)} bytes, not records of {length}: "
                    f"is it the binary version of {self.title}?"
                )
            parts.append(np.frombuffer(raw, dtype=np.uint8).reshape(-1, length))
        records = torch.from_numpy(np.concatenate(parts))
        images = records[:, self.label_bytes :].reshape(-1, 3, 32, 32)
        return images, records[:, self.label_bytes - 1].long()

    def _sized(self, images: Tensor) -> Tensor:
        return resize(images, self.image_size)

    def _read(self, members: Sequence[str]) -> list[tuple[str, bytes]]:
        """Each member's place and bytes, from the unpacked files, else from the archive."""
        paths = [path for member in members if (path := self._find(member))]
        if len(paths) == len(members):
            return [(str(path), path.read_bytes()) for path in paths]
        (archive,) = self.md5
        path = self._find(archive)
        if path is None:
            raise self._missing(archive)
        found = {}
        try:
            with tarfile.open(path) as tar:
                for entry in tar:
                    if (name := Path(entry.name).name) in members and (
                        file := tar.extractfile(entry)
                    ):
                        found[name] = file.read()
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it to download it anew"
            ) from error
        if missing := [member for member in members if member not in found]:
            raise ValueError(f"{path} does not hold {', '.join(missing)}")
        return [(f"{member} in {path}", found[member]) for member in members]


@final
class CIFAR10(_Cifar):
    """Colour photographs of ten things, 50,000 + 10,000 (Krizhevsky 2009)."""

    title = "CIFAR-10"
    train_size = 50_000
    folder = "cifar10"
    subfolders = ("cifar-10-batches-bin",)
    names = _listed("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
    md5: ClassVar[dict[str, str]] = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
    members: ClassVar[dict[Split, Sequence[str]]] = {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "validation": ("test_batch.bin",),
    }
    label_bytes = 1

    def __init__(
        self,
        root: str | None = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        classes: int = 10,
    ) -> None:
        super().__init__(root, image_size, channels, classes)


@final
class CIFAR100(_Cifar):
    """Colour photographs of a hundred things, 500 + 100 of each; fine labels (Krizhevsky 2009)."""

    title = "CIFAR-100"
    train_size = 50_000
    folder = "cifar100"
    subfolders = ("cifar-100-binary",)
    names = _listed(
        """apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy,
        bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
        cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish,
        forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn_mower, leopard, lion,
        lizard, lobster, man, maple_tree, motorcycle, mountain, mouse, mushroom, oak_tree, orange,
        orchid, otter, palm_tree, pear, pickup_truck, pine_tree, plain, plate, poppy, porcupine,
        possum, rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk,
        skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet_pepper, table, tank,
        telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale,
        willow_tree, wolf, woman, worm"""
    )
    md5: ClassVar[dict[str, str]] = {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}
    members: ClassVar[dict[Split, Sequence[str]]] = {
        "train": ("train.bin",),
        "validation": ("test.bin",),
    }
    label_bytes = 2

    def __init__(
        self,
        root: str | None = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        classes: int = 100,
    ) -> None:
        super().__init__(root, image_size, channels, classes)

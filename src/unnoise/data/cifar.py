"""CIFAR-10 and CIFAR-100 from the binary archives their authors publish."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from unnoise.data.classics import ClassicImages, Downloaded, listed, unpacked
from unnoise.data.size import Fit, ImageSize
from unnoise.data.source import Split
from unnoise.data.walk import say


class _Cifar(ClassicImages):
    """A set in CIFAR's binary version: records of label bytes, then 3 × 32 × 32 pixels.

    The archive is read as it is; the files it holds may also lie unpacked. An ``image_size`` other
    than 32 resamples.
    """

    train_size = 50_000
    hosts = (
        "https://www.cs.toronto.edu/~kriz/",
        "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
    )
    members: ClassVar[dict[Split, Sequence[str]]]
    label_bytes: ClassVar[int]  # the last of them is the class
    pickles: ClassVar[tuple[str, ...]]  # the version for Python, packed and not

    def _there(self, name: str) -> bool:
        members = [member for split in self.members.values() for member in split]
        return self._archive(name) is not None or all(map(self._find, members))

    def prepare(self) -> None:
        """Download the archive if neither it nor what is in it is there."""
        (archive,) = self.md5
        places = (self.home / place for place in ("", self.folder, *self.subfolders))
        usual = (place / name for place in places for name in self.pickles)
        for found in (self.home, *usual):
            if found.name in self.pickles and found.exists() and not self._there(archive):
                say(f"{found} holds pickles, which can run anything: {archive} is used instead")
        super().prepare()

    def _archive(self, name: str) -> Path | None:
        """The archive, packed or, as some browsers leave it, not."""
        stem = name.removesuffix(".tar.gz")
        return self._find(name, f"{stem}.tgz", f"{stem}.tar")

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

    def _read(self, members: Sequence[str]) -> list[tuple[str, bytes]]:
        """Each member's place and bytes, from the unpacked files, else from the archive."""
        paths = [path for member in members if (path := self._find(member))]
        if len(paths) == len(members):
            return [(str(path), path.read_bytes()) for path in paths]
        (archive,) = self.md5
        path = self._archive(archive)
        if path is None:
            raise self._missing(archive)
        found, raw = {}, unpacked(path)
        try:
            with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
                for entry in tar:
                    if (
                        entry.isreg()  # a link may name a file outside
                        and (name := Path(entry.name).name) in members
                        and (file := tar.extractfile(entry))
                    ):
                        found[name] = file.read()
        except (tarfile.TarError, EOFError) as error:
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
    folder = "cifar10"
    subfolders = (
        "cifar-10-batches-bin",
        "cifar-10-binary",
        "cifar-10-binary/cifar-10-batches-bin",
        "cifar-10-batches-bin/cifar-10-batches-bin",
    )
    names = listed("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
    md5: ClassVar[dict[str, str]] = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
    members: ClassVar[dict[Split, Sequence[str]]] = {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "validation": ("test_batch.bin",),
    }
    label_bytes = 1
    pickles = ("cifar-10-python.tar.gz", "cifar-10-batches-py")


@final
class CIFAR100(_Cifar):
    """Colour photographs of a hundred things, 500 + 100 of each; fine labels (Krizhevsky 2009)."""

    title = "CIFAR-100"
    folder = "cifar100"
    subfolders = ("cifar-100-binary", "cifar-100-binary/cifar-100-binary")
    names = listed(
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
    pickles = ("cifar-100-python.tar.gz", "cifar-100-python")

    def __init__(
        self,
        root: Downloaded = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        classes: int = 100,
        fit: Fit = "crop",
    ) -> None:
        super().__init__(root, image_size, channels, classes, fit)

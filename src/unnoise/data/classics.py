"""MNIST and Fashion-MNIST from the files their authors publish, and what all such sets share.

The validation split is the official test split. Files found in place are checked for their format;
what is missing is downloaded once and checked against the published MD5.
"""

import gzip
import math
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from unnoise.data.downloads import data_folder, fetch
from unnoise.data.memory import TensorImages
from unnoise.data.pixels import pad, resize, to_channels
from unnoise.data.size import Fit, ImageSize
from unnoise.data.source import ImageSource, Split
from unnoise.runs.identity import Role

Downloaded = Annotated[str | None, Role.MACHINE]
"""A folder for files that are the same wherever they lie."""
MOST_BYTES = 2**28
"""Of a set's file once it is unpacked: more than any has, so that none can be made to swell."""


def listed(names: str) -> tuple[str, ...]:
    """The names in a comma-separated line."""
    return tuple(name.strip() for name in names.split(","))


def unpacked(path: Path) -> bytes:
    """The bytes of a file, or gzipped in it; ValueError if damaged, or beyond MOST_BYTES."""
    try:
        with gzip.open(path) if path.suffix in (".gz", ".tgz") else path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to download it anew") from error
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{path} holds more than {MOST_BYTES:,} bytes, which no such set has")
    return raw


class ClassicImages(ImageSource):
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

    def __init__(
        self,
        root: Downloaded = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        classes: int = 10,
        fit: Fit = "crop",
    ) -> None:
        if classes != len(self.names):
            raise ValueError(f"classes is {classes}, but {self.title} has {len(self.names)}")
        super().__init__(image_size, channels)
        self.root, self.fit = root, fit

    @property
    def home(self) -> Path:
        """The folder that missing files are downloaded into."""
        if self.root is not None:
            return Path(self.root).expanduser()
        return data_folder() / self.folder

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
        return TensorImages(to_channels(self._sized(images), self.shape[0]), labels)

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

    def _sized(self, images: Tensor) -> Tensor:
        """Pixels (N, C, h, w) at ``image_size``."""
        return resize(images, self.shape[1:], self.fit)


class _Idx(ClassicImages):
    """A set in the IDX format of http://yann.lecun.com/exdb/mnist: big-endian shape, then bytes.

    Images are 28×28 grey. An ``image_size`` of 32 adds a black border of two pixels, whatever
    ``fit``; any other resamples. The files may be gzipped or not, and have a dot in their names, as
    in ``train-images.idx3-ubyte``.
    """

    train_size = 60_000

    def __init__(
        self,
        root: Downloaded = None,
        image_size: ImageSize = 32,
        channels: Literal[1, 3] = 1,
        classes: int = 10,
        fit: Fit = "crop",
    ) -> None:
        super().__init__(root, image_size, channels, classes, fit)

    def _there(self, name: str) -> bool:
        return self._find(*_spellings(name.removesuffix(".gz"))) is not None

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
        size = self.shape[1:]
        return pad(images, size) if size == (32, 32) else super()._sized(images)

    def _read(self, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
        path = self._find(*_spellings(name))
        if path is None:
            raise self._missing(f"{name}(.gz)")
        raw, start = unpacked(path), 4 + 4 * dimensions
        if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
            raise ValueError(f"{path} does not begin like an IDX file of {dimensions} dimensions")
        shape = np.frombuffer(raw[4:start], dtype=">u4").tolist()
        data = np.frombuffer(raw, dtype=np.uint8, offset=start)
        if data.size != math.prod(shape) or not data.size:
            raise ValueError(f"{path} declares the shape {shape}, but holds {data.size} values")
        return path, data.reshape(shape).copy()


def _spellings(name: str) -> tuple[str, ...]:
    """The names under which an IDX file is found, as its authors and others have published it."""
    dotted = name.replace("-idx", ".idx")
    return name, f"{name}.gz", dotted, f"{dotted}.gz"


@final
class MNIST(_Idx):
    """Handwritten digits, 60,000 + 10,000 (LeCun, Bottou, Bengio, Haffner 1998)."""

    extractor = "digits"

    title = "MNIST"
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

    extractor = "garments"

    title = "Fashion-MNIST"
    folder = "fashion_mnist"
    subfolders = ("FashionMNIST/raw", "raw", "fashion-mnist")
    names = listed(
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

"""A user's own images: a folder of files."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from typing import Annotated, Literal, final

import numpy as np
import PIL
import torch
from pydantic import Field
from torch import Tensor

from unnoise.data.decoding import MOST_PIXELS, Decoder, MostPixels, Range
from unnoise.data.kept import KnownFiles
from unnoise.data.memory import Removed, TensorImages, Unreadable, stand_ins
from unnoise.data.size import Fit, ImageSize
from unnoise.data.source import Images, ImageSource, Split
from unnoise.data.splits import Arranged, arranged
from unnoise.data.walk import say, walk
from unnoise.runs.identity import Role

Share = Annotated[float, Field(gt=0, lt=1)]


@final
class FileImages(Images):
    """Images ``rows`` (N,) of ``files``, decoded each time they are read.

    ``fingerprint`` and ``contents`` read each file whose digest is not known once.
    """

    def __init__(
        self, files: KnownFiles, rows: np.ndarray, labels: Tensor, decoder: Decoder
    ) -> None:
        self.files, self.rows, self.labels, self.decoder = files, rows, labels, decoder

    def path(self, index: int) -> str:
        """Of the file of image ``index``."""
        return self.files.listing.path(self.rows[index])

    def read(self, indices: Tensor) -> Tensor:
        """Images ``indices`` (B,) as uint8 (B, C, H, W); Unreadable names one that is."""
        images = torch.empty((len(indices), *self.decoder.shape), dtype=torch.uint8)
        for row, index in enumerate(indices.tolist()):
            images[row] = self._decode(index)
        return images

    def _decode(self, index: int) -> Tensor:
        path = self.path(index)
        try:
            return self.decoder(path)
        except FileNotFoundError as error:
            raise Removed(
                f"image {index}, {path}, was removed after its folder was listed"
            ) from error
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise Unreadable(f"image {index}, {path}, is unreadable: {error}") from error

    def without_unreadable(self, most: int) -> "FileImages":
        """The same images; an unreadable one is replaced by the next readable one and its label.

        Decodes each file once that is not known to be readable. The result depends on the files
        alone.

        Raises:
            Unreadable: more than ``most`` are; names each.
        """
        n, index_of = len(self), {row: index for index, row in enumerate(self.rows.tolist())}
        found = self.files.problems(self.rows, lambda row: self._decode(index_of[row]))
        problems = {index_of[row]: problem for row, problem in found.items()}
        stand_in = stand_ins(n, problems, most)
        images = FileImages(self.files, self.rows[stand_in], self.labels[stand_in], self.decoder)
        images.quarantined = [
            f"{problems[k]}; {images.path(k)} replaces it" for k in sorted(problems)
        ]
        return images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files, their labels, and how they are decoded."""
        digest = hashlib.sha256(repr(self.decoder.deciding).encode())
        digest.update(self._digests().tobytes())
        return digest.hexdigest()

    def contents(self) -> Iterator[tuple[str, str]]:
        """(path below the root, SHA-256 of the file's digest and the label) of each image."""
        names = self.files.listing.names
        for row, digest in zip(self.rows.tolist(), self._digests(), strict=True):
            yield names[row], hashlib.sha256(digest).hexdigest()

    def _digests(self) -> np.ndarray:
        """(N, 40) uint8: each file's SHA-256, then its label in eight bytes, the highest first."""
        labels = self.labels.numpy().astype(">i8").view(np.uint8).reshape(-1, 8)
        return np.concatenate([self.files.digests(self.rows), labels], axis=1)


@final
class DecodedImages(TensorImages):
    """The images of files, decoded once."""

    def __init__(self, files: FileImages) -> None:
        super().__init__(files.read(torch.arange(len(files))), files.labels)
        self.files, self.quarantined = files, files.quarantined

    def contents(self) -> Iterator[tuple[str, str]]:
        """Those of the files."""
        return self.files.contents()


@final
class ImageFolder(ImageSource):
    """Pictures in files anywhere below ``root``, in any format that Pillow reads, upright.

    An image's class is the first folder below ``root`` on its way; images directly in ``root`` have
    none. Classes are numbered by their names, the numbers in these as numbers: 2 before 10. If
    ``root`` has a folder ``train`` (or ``training``) and one called ``validation``, ``valid``,
    ``val``, ``dev``, ``test`` or ``testing``, the first of these that is there, in any case, they
    are the splits, and the same classes lie below each. Otherwise ``validation_share`` of the
    images is held out by a hash of the path below ``root``.

    Links are followed. Hidden files and folders count as not there; ``check`` says which other
    files are left out. A folder that would be a class without pictures is an error.

    ``in_memory`` decodes all images once, when a split is opened: right for up to some 10,000
    small ones. ``classes``, where given, must be the number of classes found.

    An unreadable image ends what reads it. With ``quarantine`` above 0 every file is decoded once
    when a split is opened, and for up to that many unreadable ones of a split the next by path
    stands in, with its class; more are an error at once. ``range`` and ``most_pixels`` are the
    ``Decoder``'s.
    """

    def __init__(
        self,
        root: Annotated[str, Role.SHOWN],
        image_size: ImageSize,
        channels: Literal[1, 3] = 3,
        classes: Annotated[int, Field(ge=0)] | None = None,
        validation_share: Share = 0.1,
        in_memory: bool = False,
        quarantine: Annotated[int, Field(ge=0)] = 0,
        fit: Fit = "crop",
        range: Range | None = None,
        most_pixels: MostPixels = MOST_PIXELS,
    ) -> None:
        super().__init__(image_size, channels)
        self.range, self.most_pixels = range, most_pixels
        self.decoder = Decoder(self.shape, fit, range, most_pixels)
        self.root = root
        self.classes, self.validation_share, self.in_memory = classes, validation_share, in_memory
        self.quarantine, self.fit = quarantine, fit

    def class_names(self) -> tuple[str, ...]:
        """The class folders' names, with the numbers in them in order: 2 before 10."""
        return self._arranged.class_names

    def check(self) -> int:
        """The number of training images; raises what is wrong with the folder.

        What is left out of it is said on stderr, once.
        """
        self.prepare()
        left_out = [self._files.listing.left_out(), *self._arranged.notes]
        if any(left_out):
            say(f"data.root {self.root}: {'; '.join(filter(None, left_out))}")
        return len(self._arranged.splits["train"][0])

    def prepare(self) -> None:
        """Check that there are images, and the declared number of classes."""
        names = self.class_names()
        if self.classes is not None and self.classes != len(names):
            found = f"{len(names)} class folders" + (f" ({', '.join(names)})" if names else "")
            raise ValueError(f"classes is {self.classes}, but data.root {self.root} has {found}")

    def images(self, split: Split) -> Images:
        """The split in the order of the files' paths."""
        self.prepare()
        rows, labels = self._arranged.splits[split]
        if not len(rows):
            raise ValueError(
                f"no {split} images among the {len(self._files.listing.names)} below data.root "
                f"{self.root}: add images, or change data.validation_share"
            )
        files = FileImages(self._files, rows, torch.from_numpy(labels), self.decoder)
        if self.quarantine:
            files = files.without_unreadable(self.quarantine)
        return DecodedImages(files) if self.in_memory else files

    @cached_property
    def _files(self) -> KnownFiles:
        try:
            listing = walk(self.root)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"data.root {error}") from error
        if not listing.names:
            left_out = listing.left_out() or "there are no files at all"
            raise FileNotFoundError(f"data.root {self.root} has no images below it: {left_out}")
        versions = f"Pillow {PIL.__version__}, unnoise {version('unnoise')}"
        return KnownFiles(listing, f"{versions}, {vars(self.decoder)}")

    @cached_property
    def _arranged(self) -> Arranged:
        return arranged(self._files.listing, self.validation_share)

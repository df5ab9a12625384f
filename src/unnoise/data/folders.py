"""A user's own images: a folder of files."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from unnoise.data.decoding import MOST_PIXELS, Decoder, MostPixels, Range
from unnoise.data.memory import TensorImages, Unreadable
from unnoise.data.source import Fit, Images, ImageSize, ImageSource, Split
from unnoise.runs.identity import Role

Share = Annotated[float, Field(gt=0, lt=1)]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
_VALIDATION = ("validation", "val", "test")  # the first that is there


def held_out(key: bytes, share: float) -> bool:
    """Whether a key is one of the ``share`` for validation: it stays so when others are added."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) < share * 2**64


@final
class FileImages(Images):
    """Images decoded from their files each time they are read.

    ``fingerprint`` reads every file once, when it is first used.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, decoder: Decoder) -> None:
        self.paths, self.labels, self.decoder = paths, labels, decoder

    def read(self, indices: Tensor) -> Tensor:
        """Images ``indices`` (B,) as uint8 (B, C, H, W); Unreadable names one that is."""
        images = torch.empty((len(indices), *self.decoder.shape), dtype=torch.uint8)
        for row, index in enumerate(indices.tolist()):
            images[row] = self._decode(index)
        return images

    def _decode(self, index: int) -> Tensor:
        try:
            return self.decoder(self.paths[index])
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise Unreadable(
                f"image {index}, {self.paths[index]}, is unreadable: {error}"
            ) from error

    def without_unreadable(self, most: int) -> "FileImages":
        """The same images; an unreadable one is replaced by the next readable one and its label.

        Decodes every file once. The result depends on the files alone.

        Raises:
            Unreadable: more than ``most`` are; names each.
        """

        def problem(index: int) -> str | None:
            try:
                self._decode(index)
            except Unreadable as error:
                return str(error)
            return None

        n = len(self)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            problems = list(threads.map(problem, range(n)))
        bad = [index for index in range(n) if problems[index] is not None]
        if len(bad) > most or len(bad) == n:
            listed = "; ".join(str(problems[index]) for index in bad[:10])
            more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
            raise Unreadable(
                f"{len(bad)} images are unreadable, data.quarantine is {most}: {listed}{more}"
            )
        rows = list(range(n))
        for index in bad:
            rows[index] = next(
                k % n for k in range(index + 1, index + n) if problems[k % n] is None
            )
        images = FileImages([self.paths[row] for row in rows], self.labels[rows], self.decoder)
        images.quarantined = [f"{problems[k]}; {self.paths[rows[k]]} replaces it" for k in bad]
        return images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files, their labels, and how they are decoded."""
        digest = hashlib.sha256(repr(self.decoder.deciding).encode())
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            digest.update(hashlib.sha256(path.read_bytes()).digest() + label.to_bytes(8))
        return digest.hexdigest()


@final
class ImageFolder(ImageSource):
    """PNG, JPEG, WebP, BMP and GIF files anywhere below ``root``, upright.

    An image's class is the first folder below ``root`` on its way; images directly in ``root`` have
    none. If ``root`` has a folder ``train`` and one called ``validation``, ``val`` or ``test``,
    these are the splits, and the classes lie below them. Otherwise ``validation_share`` of the
    images is held out by a hash of the path below ``root``.

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
        """The folders' names, sorted; empty if the images lie directly in ``root``."""
        parts = {folder for folder, _, _ in self._listing}
        if "" in parts and len(parts) > 1:
            raise ValueError(
                f"data.root {self.root} has images of its own beside class folders "
                f"({', '.join(sorted(parts - {''})[:3])}, …): put them into a folder too"
            )
        return tuple(sorted(parts - {""}))

    def check(self) -> int:
        """The number of training images; raises what is wrong with the folder."""
        self.prepare()
        return sum(split == "train" for _, _, split in self._listing)

    def prepare(self) -> None:
        """Check that there are images, and the declared number of classes."""
        names = self.class_names()
        if self.classes is not None and self.classes != len(names):
            found = f"{len(names)} class folders" + (f" ({', '.join(names)})" if names else "")
            raise ValueError(f"classes is {self.classes}, but data.root {self.root} has {found}")

    def images(self, split: Split) -> Images:
        """The split in the order of the files' paths."""
        self.prepare()
        names = {name: label for label, name in enumerate(self.class_names())}
        chosen = [(path, names.get(folder, 0)) for folder, path, of in self._listing if of == split]
        if not chosen:
            raise ValueError(
                f"no {split} images among the {len(self._listing)} below data.root {self.root}: "
                "add images, or change data.validation_share"
            )
        paths, labels = zip(*chosen, strict=True)
        files = FileImages(paths, torch.tensor(labels), self.decoder)
        if self.quarantine:
            files = files.without_unreadable(self.quarantine)
        if not self.in_memory:
            return files
        images = TensorImages(files.read(torch.arange(len(files))), files.labels)
        images.quarantined = files.quarantined
        return images

    @cached_property
    def _listing(self) -> list[tuple[str, Path, Split]]:
        """(class folder or "", path, split) of every image, by path."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"data.root {self.root} is not a folder")
        held = next((root / name for name in _VALIDATION if (root / name).is_dir()), None)
        listing: list[tuple[str, Path, Split]] = []
        if held is not None and (root / "train").is_dir():
            tops: dict[Split, Path] = {"train": root / "train", "validation": held}
            for split, top in tops.items():
                listing += [(folder, path, split) for folder, path in _walk(top)]
        else:
            for folder, path in _walk(root):
                key = path.relative_to(root).as_posix().encode()
                held_back = held_out(key, self.validation_share)
                listing.append((folder, path, "validation" if held_back else "train"))
        if not listing:
            kinds = ", ".join(sorted(SUFFIXES))
            raise FileNotFoundError(f"data.root {self.root} has no images ({kinds}) below it")
        return listing


def _walk(top: Path) -> Iterator[tuple[str, Path]]:
    """(first folder below ``top`` or "", path) of every image below it, by path."""
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(top).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield parts[0] if len(parts) > 1 else "", path

"""Image data sets of the Hugging Face hub, or in its formats on disk."""

import hashlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from unnoise.data.decoding import fitted
from unnoise.data.memory import Unreadable
from unnoise.data.source import Fit, Images, ImageSize, ImageSource, Split

if TYPE_CHECKING:
    from datasets import Dataset


@final
class TableImages(Images):
    """Images decoded from a table's column each time they are read.

    ``fingerprint`` reads every image's bytes once, when it is first used.
    """

    def __init__(
        self,
        table: "Dataset",
        image_column: str,
        labels: Tensor,
        captions: list[str] | None,
        shape: tuple[int, ...],
        fit: Fit,
    ) -> None:
        self.column = table.select_columns([image_column])
        self.name = image_column
        self.labels, self.captions = labels, captions
        self.shape, self.fit = shape, fit

    def read(self, indices: Tensor) -> Tensor:
        """Images ``indices`` (B,) as uint8 (B, C, H, W); Unreadable names one that is."""
        images = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        for row, index in enumerate(indices.tolist()):
            try:
                picture = self.column[index][self.name]
                images[row] = fitted(picture, self.shape, self.fit)
            except Exception as error:  # a damaged image makes Pillow raise nearly anything
                raise Unreadable(
                    f"image {index} of column {self.name!r} is unreadable: {error}"
                ) from error
        return images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the encoded images, labels, captions, the shape and the fit."""
        from datasets import Image

        digest = hashlib.sha256(repr((self.shape, self.fit)).encode())
        encoded = self.column.cast_column(self.name, Image(decode=False))
        for row, label in zip(encoded, self.labels.tolist(), strict=True):
            image = row[self.name]
            data = Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
            digest.update(hashlib.sha256(data).digest() + label.to_bytes(8))
        for caption in self.captions or ():
            digest.update(caption.encode() + b"\0")
        return digest.hexdigest()


@final
class HuggingFaceImages(ImageSource):
    """The images of a data set on the Hugging Face hub, or in a local folder.

    ``name`` is the set's name on the hub, or a folder: one written by ``DatasetDict.save_to_disk``,
    one of parquet files, or one of images. ``train_split`` and ``validation_split`` are the names
    of its splits; on the hub and in parquet or image folders also slices like ``train[:5%]``.
    ``image_column`` None means the only column of images; ``label_column`` None means no classes.
    ``classes``, where given, must be the number of classes found. Needs the extra ``huggingface``.
    """

    def __init__(
        self,
        name: str,
        image_size: ImageSize,
        train_split: str = "train",
        validation_split: str = "validation",
        image_column: str | None = None,
        label_column: str | None = None,
        caption_column: str | None = None,
        channels: Literal[1, 3] = 3,
        classes: Annotated[int, Field(ge=0)] | None = None,
        fit: Fit = "crop",
    ) -> None:
        if label_column is None and classes:
            raise ValueError(f"classes is {classes}, but label_column is null: name the column")
        super().__init__(image_size, channels)
        self.name, self.classes, self.fit = name, classes, fit
        self.splits: dict[Split, str] = {"train": train_split, "validation": validation_split}
        self.image_column, self.label_column = image_column, label_column
        self.caption_column, self.captioned = caption_column, caption_column is not None

    def check(self) -> None:
        """Raise ModuleNotFoundError if the optional package is not installed."""
        if find_spec("datasets") is None:
            raise ModuleNotFoundError(
                f"{self.name} needs the package datasets: pip install 'unnoise[huggingface]'"
            )

    def class_names(self) -> tuple[str, ...]:
        """The names the set gives its labels, else the numbers up to the greatest label."""
        if self.label_column is None:
            return ()
        table = self._tables["train"]
        self._require(table, self.label_column)
        feature = table.features[self.label_column]
        if hasattr(feature, "names"):
            return tuple(feature.names)
        highest = max(label for split in self.splits for label in self._labels(self._tables[split]))
        return tuple(str(label) for label in range(highest + 1))

    def prepare(self) -> None:
        """Download what is missing; check columns, splits and the declared number of classes."""
        for split, name in self.splits.items():
            self._image_column(self._tables[split])
            if not len(self._tables[split]):
                raise ValueError(f"{self.name}: the split {name!r} is empty")
        names = self.class_names()
        if self.classes is not None and self.classes != len(names):
            raise ValueError(f"classes is {self.classes}, but {self.name} has {len(names)}")

    def images(self, split: Split) -> TableImages:
        """The split in the order of its table."""
        self.prepare()
        table = self._tables[split]
        labels = [0] * len(table) if self.label_column is None else self._labels(table)
        column, captions = self._image_column(table), self._captions(table)
        return TableImages(table, column, torch.tensor(labels), captions, self.shape, self.fit)

    @cached_property
    def _tables(self) -> "dict[Split, Dataset]":
        self.check()
        import datasets

        folder = Path(self.name).expanduser()
        if (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(folder))
            for wanted in self.splits.values():
                if wanted not in saved:
                    raise ValueError(f"{self.name} has no split {wanted!r}, only {sorted(saved)}")
            return {split: saved[wanted] for split, wanted in self.splits.items()}
        if (folder / "state.json").is_file():
            raise ValueError(f"{self.name} is one table: save a DatasetDict of the splits instead")
        source = str(folder) if folder.is_dir() else self.name
        try:
            return {
                split: datasets.load_dataset(source, split=wanted)
                for split, wanted in self.splits.items()
            }
        except (FileNotFoundError, ConnectionError) as error:
            raise FileNotFoundError(
                f"{self.name} is neither a folder nor a data set that can be reached on the hub "
                f"({error})"
            ) from error

    def _require(self, table: "Dataset", column: str) -> None:
        if column not in table.column_names:
            raise ValueError(f"{self.name} has no column {column!r}, only {table.column_names}")

    def _image_column(self, table: "Dataset") -> str:
        from datasets import Image

        columns = table.features.items()
        found: list[str] = [name for name, feature in columns if isinstance(feature, Image)]
        if self.image_column is None and len(found) == 1:
            return found[0]
        if self.image_column is None:
            raise ValueError(f"{self.name} has the image columns {found}: set image_column to one")
        self._require(table, self.image_column)
        if self.image_column not in found:
            raise ValueError(f"{self.name}: {self.image_column!r} holds no images; {found} do")
        return self.image_column

    def _labels(self, table: "Dataset") -> list[int]:
        column = self.label_column
        assert column is not None
        self._require(table, column)
        labels = list(table[column])
        if not all(isinstance(label, int) and label >= 0 for label in labels):
            raise ValueError(f"{self.name}: {column!r} must hold integers from 0, one an image")
        return labels

    def _captions(self, table: "Dataset") -> list[str] | None:
        if self.caption_column is None:
            return None
        self._require(table, self.caption_column)
        captions = list(table[self.caption_column])
        if not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{self.name}: {self.caption_column!r} must hold one string an image")
        return captions

"""Image data sets of the Hugging Face hub, or in its formats on disk."""

import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, final

import torch
from pydantic import Field
from torch import Tensor

from unnoise.data import columns
from unnoise.data.decoding import MOST_PIXELS, Decoder, MostPixels, Range
from unnoise.data.digests import files_stamp
from unnoise.data.size import Fit, ImageSize
from unnoise.data.source import ImageSource, Split
from unnoise.data.table import TableImages

if TYPE_CHECKING:
    from datasets import Dataset


class Columns(NamedTuple):
    """Of a split: pictures, and captions or None, as Arrow's; labels (N,) int64."""

    pictures: Any
    captions: Any | None
    labels: Tensor


@final
class HuggingFaceImages(ImageSource):
    """The images of a data set on the Hugging Face hub, or in a local folder.

    ``name`` is the set's name on the hub, or a folder: one written by ``DatasetDict.save_to_disk``,
    one of parquet files, or one of images. ``train_split`` and ``validation_split`` are the names
    of its splits; on the hub and in parquet or image folders also slices like ``train[:5%]``.
    ``image_column`` None means the only column of images; ``label_column`` None means no classes.
    ``classes``, where given, must be the number of classes found. Needs the extra ``huggingface``.

    Labels are whole numbers from 0, or texts: these are the class names, in natural order, of both
    splits together; one that is in the validation split only counts, with a warning. All captions,
    labels and missing pictures are looked at before training, all wrong rows named at once. With
    ``uncaptioned`` a picture without a caption is trained on without a condition. An unreadable or
    missing picture ends what reads it. With ``quarantine`` above 0 every picture is decoded once
    when a split is opened, and for up to that many of a split the next row stands in, with its
    label and caption. ``range`` and ``most_pixels`` are the ``Decoder``'s.

    A folder of so many files that listing them is slow is packed into a few, with the same
    pictures and its class folders as "label":

    >>> tables = datasets.load_dataset("imagefolder", data_dir="photos")
    >>> tables.save_to_disk("packed")

    Without folders ``train`` and ``validation``, save ``tables["train"].train_test_split(0.1)``,
    and set ``validation_split`` to test. The pictures are then read from disk by their row; they
    are digested once, and again when a file of the table changes (its size or its time).
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
        uncaptioned: bool = False,
        quarantine: Annotated[int, Field(ge=0)] = 0,
        range: Range | None = None,
        most_pixels: MostPixels = MOST_PIXELS,
    ) -> None:
        if label_column is None and classes:
            raise ValueError(f"classes is {classes}, but label_column is null: name the column")
        super().__init__(image_size, channels)
        self.name, self.classes, self.fit = name, classes, fit
        self.uncaptioned, self.quarantine = uncaptioned, quarantine
        self.range, self.most_pixels = range, most_pixels
        self.decoder = Decoder(self.shape, fit, range, most_pixels)
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
        """The names the set gives its labels; else the labels, if texts; else their numbers."""
        if self.label_column is None:
            return ()
        tables = self._tables
        for table in tables.values():
            self._require(table, self.label_column)
        names = getattr(tables["train"].features[self.label_column], "names", None)
        return columns.label_names([self._column(s, self.label_column) for s in tables], names)

    def prepare(self) -> None:
        """Download what is missing; check every row, and the declared number of classes."""
        names, found = self.class_names(), self._columns
        there = {split: torch.bincount(each.labels) > 0 for split, each in found.items()}
        taught = there["train"].nonzero().flatten().tolist()
        wanted = there["validation"].nonzero().flatten().tolist()
        if unseen := [names[label] for label in wanted if label not in taught]:
            which = ", ".join(unseen[:10]) + (", …" if len(unseen) > 10 else "")
            text = f"of {len(unseen)} classes only validation has pictures: {which}"
            print(f"warning: {self.name}: {text}", file=sys.stderr)

    def images(self, split: Split) -> TableImages:
        """The split in the order of its table."""
        pictures, captions, labels = self._columns[split]
        table = self._tables[split]
        name, files = self._image_column(table), [file["filename"] for file in table.cache_files]
        about = {"files": files_stamp(files), "table": table._fingerprint, "column": name}
        known = about if files else None
        images = TableImages(pictures, name, labels, captions, self.decoder, known)
        if self.quarantine:
            images.quarantine(self.quarantine)
        return images

    @cached_property
    def _columns(self) -> dict[Split, Columns]:
        """What training reads of both splits; ValueError says all that is wrong."""
        names, problems = self.class_names(), columns.Problems()
        if self.classes is not None and self.classes != len(names):
            raise ValueError(f"classes is {self.classes}, but {self.name} has {len(names)}")
        found = {split: self._read(split, names, problems) for split in self.splits}
        if problems:
            raise ValueError("\n  ".join(["these rows cannot be trained on:", *problems]))
        return found

    def _read(self, split: Split, names: Sequence[str], problems: columns.Problems) -> Columns:
        table, wanted = self._tables[split], self.splits[split]
        where = f"{self.name}, split {wanted!r}"
        if not len(table):
            raise ValueError(f"{self.name}: the split {wanted!r} is empty")
        name = self._image_column(table)
        pictures, captions = self._column(split, name), None
        if not self.quarantine:
            problems.add(f"{where}, {name!r}", columns.lacking(pictures), "no picture")
        labels = torch.zeros(len(table), dtype=torch.int64)
        if self.label_column is not None:
            place = f"{where}, {self.label_column!r}"
            labels = columns.labels(self._column(split, self.label_column), place, names, problems)
        if self.caption_column is not None:
            self._require(table, self.caption_column)
            texts = self._column(split, self.caption_column)
            place = f"{where}, {self.caption_column!r}"
            captions = columns.captions(texts, place, self.uncaptioned, problems)
        return Columns(pictures, captions, labels)

    def _column(self, split: Split, name: str) -> Any:
        """A column of a split as Arrow's, which stays on disk."""
        return self._tables[split].select_columns([name]).with_format("arrow")[:].column(name)

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
            tables = datasets.load_dataset(source, split=list(self.splits.values()))
        except (FileNotFoundError, ConnectionError) as error:
            raise FileNotFoundError(
                f"{self.name} is neither a folder nor a data set that can be reached on the hub "
                f"({error})"
            ) from error
        return dict(zip(self.splits, tables, strict=True))

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
            kind = table.features[self.image_column]
            cast = f"cast_column({self.image_column!r}, datasets.Image()) makes files or bytes so"
            raise ValueError(
                f"{self.name}: {self.image_column!r} holds no images; {found} do; it has {kind}: "
                f"{cast}"
            )
        return self.image_column

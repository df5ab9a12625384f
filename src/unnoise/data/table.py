"""Images in a table on disk, read by their place in it."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from unnoise.data.columns import Texts
from unnoise.data.decoding import Decoder
from unnoise.data.digests import picture_digests
from unnoise.data.memory import Unreadable, stand_ins
from unnoise.data.source import Images


@final
class TableImages(Images):
    """Images decoded from a column each time they are read.

    The bytes of the pictures stay on disk, and captions in Arrow's memory.

    Args:
        column: N Arrow structs of a file's bytes, or of its path.
        name: of the column.
        labels: (N,) int64.
        captions: Arrow texts (N,), or None.
        decoder: makes pixels of a file.
        about: which files hold the column, so that its digests are computed once; or None.
    """

    def __init__(
        self,
        column: Any,
        name: str,
        labels: Tensor,
        captions: Any | None,
        decoder: Decoder,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.column, self.name, self.texts = column, name, captions
        self.decoder, self.about = decoder, about
        self.labels, self.rows = labels, torch.arange(len(labels))
        self.captions = None if captions is None else Texts(captions, self.rows)

    def read(self, indices: Tensor) -> Tensor:
        """Images ``indices`` (B,) as uint8 (B, C, H, W); Unreadable names one that is."""
        images = torch.empty((len(indices), *self.decoder.shape), dtype=torch.uint8)
        for place, row in enumerate(self.rows[indices].tolist()):
            images[place] = self._decode(row)
        return images

    def _decode(self, row: int) -> Tensor:
        try:
            picture = self.column[row].as_py() or {}
            file = picture.get("path") if picture.get("bytes") is None else picture["bytes"]
            if not file:
                raise ValueError("there is none")
            return self.decoder(file)
        except Exception as error:  # a damaged image makes Pillow raise nearly anything
            raise Unreadable(
                f"image {row} of column {self.name!r} is unreadable: {error}"
            ) from error

    def quarantine(self, most: int) -> None:
        """Put the next readable image, with its label and caption, in place of an unreadable one.

        Decodes every image once. The result depends on the table alone.

        Raises:
            Unreadable: more than ``most`` are; names ten.
        """

        def problem(row: int) -> str | None:
            try:
                self._decode(row)
            except Unreadable as error:
                return str(error)
            return None

        n = len(self)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            tried = threads.map(problem, range(n))
            found = {
                row: str(why)
                for row, why in enumerate(tqdm(tried, "decoding", n, leave=False, delay=2))
                if why is not None
            }
        rows = stand_ins(n, found, most)
        self.rows.copy_(torch.from_numpy(rows))  # in place: captions go by it too
        self.labels = self.labels[self.rows]
        self.quarantined = [f"{why}; row {rows[k]} replaces it" for k, why in found.items()]

    @cached_property
    def _digests(self) -> Tensor:
        """SHA-256 of the encoded images: uint8 (N, 32)."""
        return picture_digests(self.column, self.about)[self.rows]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the encoded images, labels, captions, and how they are decoded."""
        digest = hashlib.sha256(repr(self.decoder.deciding).encode())
        labels = self.labels.numpy().astype(">i8").view("u1").reshape(-1, 8)
        digest.update(torch.cat((self._digests, torch.from_numpy(labels)), dim=1).numpy().data)
        if self.texts is not None:
            for some in torch.split(self.rows, 10_000):
                texts = self.texts.take(some.numpy()).to_pylist()
                digest.update("".join(text + "\0" for text in texts).encode())
        return digest.hexdigest()

    def contents(self) -> Iterator[tuple[str, str]]:
        """(row, hex digest) of each image in order: of its file, its label and its caption."""
        labels = self.labels.tolist()
        for index, (row, digest) in enumerate(zip(self.rows.tolist(), self._digests, strict=True)):
            caption = "" if self.captions is None else self.captions[index]
            content = bytes(digest.tolist()) + repr((labels[index], caption)).encode()
            yield f"row {row}", hashlib.sha256(content).hexdigest()

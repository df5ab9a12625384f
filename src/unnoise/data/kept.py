"""What was learnt of a folder's files, and kept, so that only new and changed ones are read again.

It lies in ``listings`` below $UNNOISE_DATA, else below ~/.cache/unnoise, and may be deleted.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from unnoise.data.downloads import data_folder
from unnoise.data.memory import Removed, Unreadable
from unnoise.data.walk import Listing, progress
from unnoise.files import write_durably
from unnoise.untrusted import load_arrays

WORTH_KEEPING = 1.0
"""Seconds of reading: what took less is learnt anew each time."""
_CHUNK = 64  # files that a thread takes at a time


class KnownFiles:
    """The N files of a listing with what is known of them: digests, and that they can be read.

    A file that is as large as before, changed when it was, and has its inode, is the same. What
    ``reader`` says stands for all else that decides whether a file can be decoded, such as a
    version. Kept knowledge that is damaged is not used, and a folder that cannot be written to is
    no error.
    """

    def __init__(self, listing: Listing, reader: str) -> None:
        self.listing, self.reader = listing, reader
        self._digests = np.zeros((len(listing.names), 32), np.uint8)  # zeros: not known
        self._readable = np.zeros(len(listing.names), np.bool_)
        name = hashlib.sha256(os.fsencode(os.path.realpath(listing.root))).hexdigest()[:16]
        self.path = data_folder() / "listings" / f"{name}.npz"
        self._is_loaded = False

    def digests(self, rows: np.ndarray) -> np.ndarray:
        """SHA-256 (n, 32) uint8 of the files ``rows`` (n,)."""
        self._load()

        def read(row: int) -> None:
            path = self.listing.path(row)
            try:
                with open(path, "rb", buffering=0) as file:
                    digest = hashlib.sha256(file.read()).digest()
            except FileNotFoundError as error:
                raise Removed(f"{path} was removed after its folder was listed") from error
            except OSError as error:
                raise Unreadable(f"{path} is unreadable: {error.strerror}") from error
            self._digests[row] = np.frombuffer(digest, np.uint8)

        unknown = rows[~self._digests[rows].any(axis=1)]
        with self._kept_if_slow():
            self._in_threads(read, np.unique(unknown), "reading")
        known: np.ndarray = self._digests[rows]
        return known

    def problems(self, rows: np.ndarray, decode: Callable[[int], object]) -> dict[int, str]:
        """Why those of ``rows`` that ``decode`` raises Unreadable of are, by row."""
        self._load()
        found: dict[int, str] = {}

        def attempt(row: int) -> None:
            try:
                decode(row)
                self._readable[row] = True
            except Unreadable as error:
                found[row] = str(error)

        with self._kept_if_slow():
            self._in_threads(attempt, rows[~self._readable[rows]], "decoding")
        return found

    def _in_threads(self, act: Callable[[int], None], rows: np.ndarray, what: str) -> None:
        def run(start: int) -> int:
            chunk = rows[start : start + _CHUNK].tolist()
            for row in chunk:
                act(row)
            return len(chunk)

        what = f"{what} {self.listing.root}"
        with progress(what, len(rows)) as bar, ThreadPoolExecutor(os.cpu_count()) as threads:
            for done in threads.map(run, range(0, len(rows), _CHUNK)):
                bar.update(done)

    def _load(self) -> None:
        """Take over what was kept of files that are the same."""
        if self._is_loaded:
            return
        self._is_loaded = True
        with suppress(OSError, ValueError, KeyError):  # none, or damaged: everything is read anew
            kept = load_arrays(self.path)
            names = _unpacked(kept["names"])
            stats, digests, readable = kept["stats"], kept["digests"], kept["readable"]
            n, stamps = len(names), self.listing.stats
            if [stats.shape, digests.shape, readable.shape] != [(n, 4), (n, 32), (n,)]:
                return
            before = {name: row for row, name in enumerate(names)}
            at = np.array([before.get(name, -1) for name in self.listing.names])
            same = (at >= 0) & (stamps[:, 0] >= 0) & (stats[at] == stamps).all(axis=1)
            self._digests[same] = digests[at[same]]
            if _unpacked(kept["reader"]) == [self.reader]:
                self._readable[same] = readable[at[same]]

    @contextmanager
    def _kept_if_slow(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        if time.monotonic() - begun > WORTH_KEEPING:

            def write(path: Path) -> None:
                with path.open("wb") as file:  # a name would be given the suffix .npz
                    np.savez(
                        file,
                        names=_packed(self.listing.names),
                        stats=self.listing.stats,
                        digests=self._digests,
                        readable=self._readable,
                        reader=_packed([self.reader]),
                    )

            with suppress(OSError):
                write_durably(self.path, write)


def _packed(names: list[str]) -> np.ndarray:
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(packed: np.ndarray) -> list[str]:
    return packed.tobytes().decode("utf-8", "surrogateescape").split("\0")

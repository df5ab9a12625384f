"""The picture files below a folder, found in one way for training, evaluation and editing."""

import os
import re
import stat
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import Image
from tqdm import tqdm

from unnoise.distributed.environment import place

_SYSTEM = {
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    *("__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}
_NO_PICTURES = {"EPS", "WMF", "MPEG", "IPTC", "BUFR", "GRIB", "HDF5"}
"""What Pillow knows by name, but hands to other programs, or does not read at all."""
_SETTLED = 2 * 10**9  # nanoseconds: more than one tick of any file system's clock


class Listing(NamedTuple):
    """What lies below a folder ``root``.

    ``names`` are the N picture files' paths below ``root`` with ``/``, in the order of their parts;
    bytes that are no UTF-8 are kept as Python's file functions keep them (surrogateescape).
    ``stats`` (N, 4) int64 holds each file's size in bytes, the times of its last change and of its
    inode's in nanoseconds, and its inode; a file that has just been changed has the size −1, since
    it can change again without a trace. ``folders`` are those below ``root``, and ``skipped``
    counts other files by (folder, kind).
    """

    root: str
    names: list[str]
    stats: np.ndarray
    folders: list[str]
    skipped: Counter[tuple[str, str]]

    def path(self, row: int) -> str:
        """Of the file ``names[row]``."""
        return os.path.join(self.root, self.names[row])

    def left_out(self, folder: str = "") -> str:
        """Which files below ``folder`` are no pictures, as "3 files skipped: .txt 2, .pdf 1"."""
        kinds: Counter[str] = Counter()
        for (place_, kind), n in self.skipped.items():
            if not folder or f"{place_}/".startswith(f"{folder}/"):
                kinds[kind] += n
        total = kinds.total()
        listed = ", ".join(f"{kind} {n:,}" for kind, n in kinds.most_common(8))
        more = f", {len(kinds) - 8} other kinds" if len(kinds) > 8 else ""
        files = "1 file" if total == 1 else f"{total:,} files"
        return f"{files} skipped: {listed}{more}" if total else ""


@cache
def suffixes() -> frozenset[str]:
    """Those of the raster pictures that this build of Pillow reads, in lower case, as ".png"."""
    Image.init()
    readable = {*Image.OPEN, "MPO"} - _NO_PICTURES  # an MPO is opened as the JPEG that it begins as
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in readable
    )


def walk(root: str | Path) -> Listing:
    """List the pictures below ``root``, known by their suffix in any case.

    Links are followed, but not to a folder that they lie in. Hidden files and folders, and those
    that systems add (``__MACOSX``, ``@eaDir``, ``Thumbs.db``, …), count as not there.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: a folder, or what a file is, cannot be read.
    """
    root = os.path.expanduser(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root} is not a folder")
    names, stats, folders = [], array("q"), []
    skipped: Counter[tuple[str, str]] = Counter()
    recent = time.time_ns() - _SETTLED
    wanted = suffixes()
    levels, above = [("", _entries(root))], [_identity(os.stat(root))]
    with progress(f"files in {root}") as bar:
        while levels:
            folder, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                levels.pop()
                above.pop()
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                about = entry.stat()
            except OSError as error:
                if entry.is_symlink():  # to nowhere, or to itself
                    skipped[folder, "broken link"] += 1
                elif not isinstance(error, FileNotFoundError):  # which it was a moment ago
                    raise _unreadable(entry.path, error) from error
                continue
            if stat.S_ISDIR(about.st_mode):
                if _identity(about) in above:
                    skipped[folder, "link to a folder above"] += 1
                    continue
                folders.append(name)
                levels.append((name, _entries(entry.path)))
                above.append(_identity(about))
                continue
            bar.update()
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix not in wanted or not stat.S_ISREG(about.st_mode):
                regular = stat.S_ISREG(about.st_mode)
                skipped[folder, (suffix or "no suffix") if regular else "no file"] += 1
                continue
            names.append(name)
            settled = max(about.st_mtime_ns, about.st_ctime_ns) < recent
            stats.extend(
                (
                    about.st_size if settled else -1,
                    about.st_mtime_ns,
                    about.st_ctime_ns,
                    about.st_ino & (2**63 - 1),
                )
            )
    return Listing(root, names, np.array(stats).reshape(-1, 4), folders, skipped)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, by name, without what is hidden or a system's own."""
    try:
        with os.scandir(folder) as entries:
            seen = [
                entry
                for entry in entries
                if entry.name[0] != "." and entry.name.lower() not in _SYSTEM
            ]
    except OSError as error:
        raise _unreadable(folder, error) from error
    return iter(sorted(seen, key=lambda entry: entry.name))


def _unreadable(path: str, error: OSError) -> ValueError:
    return ValueError(f"{path} cannot be read: {error.strerror}")


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def by_number(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names with the numbers in them as numbers: "2", "10", "a2", "a10"."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name  # "01" and "1" differ only in the name


def progress(what: str, total: int | None = None) -> "tqdm[NoReturn]":
    """A bar on a terminal's stderr, from the third second on and until it is done."""
    return tqdm(
        desc=what,
        total=total,
        unit="",
        unit_scale=True,
        delay=2,
        leave=False,
        disable=None if place().local_rank == 0 else True,
    )


@cache
def say(line: str) -> None:
    """Print a line on stderr, once a process."""
    print(line, file=sys.stderr)

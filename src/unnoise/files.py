"""Files that are complete under their name or not there at all, with digests that show damage."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SUMS = "SHA256SUMS"
"""Digests of a folder's files, as ``sha256sum -c`` reads them."""


ROOM = 2**16
"""Bytes that must be free for the least that any command writes."""
_NO_PLACE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG),
}


def folder_fault(folder: str | Path) -> str | None:
    """Why nothing can be written to a folder, which may have to be made; None if it can."""
    return _fault(Path(os.path.abspath(folder)))


def file_fault(file: str | Path, suffix: str = "") -> str | None:
    """Why a file, with this ending, cannot be written; None if it can."""
    path = Path(os.path.abspath(file))
    if suffix and path.suffix != suffix:
        return f"{file} must end in {suffix}"
    return f"{file} is a folder, not a file" if os.path.isdir(path) else _fault(path.parent, path)


def not_written(error: BaseException) -> str | None:
    """What an OSError of a place that cannot be written to, or has no room, says in one line."""
    if not isinstance(error, OSError) or error.errno not in _NO_PLACE:
        return None
    return f"{error.filename or 'a file'} was not written: {error.strerror}"


def _fault(folder: Path, file: Path | None = None) -> str | None:
    there = folder
    try:
        there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        if not there.is_dir():
            kind = "a link that leads nowhere" if there.is_symlink() else "a file"
            return f"{there} is {kind}, not a folder"
        names = [*folder.relative_to(there).parts, "" if file is None else _temporary(file).name]
        longest = max((os.fsencode(name) for name in names), key=len)
        if len(longest) > (most := os.pathconf(there, "PC_NAME_MAX")):
            start = longest[:24].decode(errors="replace")
            return f"{start}… is too long a name: {len(longest)} bytes, {most} at most"
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(ROOM))
    except OSError as error:
        return f"{there} cannot be written to: {error.strerror}"
    return None


def _temporary(path: Path) -> Path:
    """Where a file is written before it has its name."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, sync it, and put it in its place.

    Raises:
        OSError: that failed, as on a full disk; what stood at ``path``, which it names, is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter in place of the former
        reason = error if isinstance(error, OSError) else error.__context__
        if isinstance(reason, OSError) and reason.errno is not None:
            raise OSError(reason.errno, reason.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, as ``write_durably`` writes it, with its errors."""
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def folder_in_one_piece(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, which has that name at the end, and is gone on an error.

    Raises:
        OSError: there is a folder of that name already, and it is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def full_fault(folder: str | Path) -> str | None:
    """Why a new folder cannot be written there: it is one with files, or cannot be made."""
    if os.path.isdir(folder) and os.listdir(folder):
        return f"{folder} is not empty: name another folder, or remove it"
    return folder_fault(folder)


def write_with_digest(path: Path, write: Callable[[Path], object]) -> None:
    """``write_durably``, with the file's digest in ``SHA256SUMS`` before it has its name.

    Until then a name that was there already has two lines; a file is whole if one is its own.
    """
    line = "", ""

    def fill(temporary: Path) -> None:
        nonlocal line
        write(temporary)
        line = file_digest(temporary), path.name
        _write_digests(path.parent, [*_digests(path.parent), line])

    write_durably(path, fill)
    lines = _digests(path.parent)
    current = [each for each in lines if each[1] != path.name or each == line]
    if current != lines:
        _write_digests(path.parent, current)


def remove_with_digest(paths: Sequence[Path]) -> None:
    """Remove files of one folder, and then their lines in ``SHA256SUMS``."""
    for path in paths:
        path.unlink(missing_ok=True)
    if paths:
        folder, gone = paths[0].parent, {path.name for path in paths}
        _write_digests(folder, [each for each in _digests(folder) if each[1] not in gone])


def whole(path: Path) -> bool:
    """Whether a file is what was written: its digest is noted beside it.

    One without a note, such as a copy, is whole if it is a zip archive, uncompressed as torch
    writes them, whose parts have their checksums.
    """
    noted = [digest for digest, name in _digests(path.parent) if name == path.name]
    if noted:
        return file_digest(path) in noted
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
            return stored and archive.testzip() is None
    except FileNotFoundError:
        raise
    except Exception:  # zipfile has no end of errors for what is no archive any more
        return False


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(folder: Path) -> list[tuple[str, str]]:
    """The lines (digest, name) of a folder's ``SHA256SUMS``."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    parted = (line.partition("  ") for line in lines)
    return [(digest, name) for digest, _, name in parted if name]


def _write_digests(folder: Path, lines: list[tuple[str, str]]) -> None:
    text = "".join(f"{digest}  {name}\n" for digest, name in lines)
    write_text(folder / SUMS, text)

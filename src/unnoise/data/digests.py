"""Digests of a table's encoded pictures, computed once for the files that it lies in."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from unnoise.data.downloads import data_folder
from unnoise.files import write_durably
from unnoise.untrusted import UnsafeFile, load_safetensors


def picture_digests(column: Any, about: dict[str, Any] | None) -> Tensor:
    """SHA-256 of each picture of an Arrow column of bytes and paths: uint8 (N, 32).

    ``about`` says which files hold them: with it, what was computed before is read again from
    ``$UNNOISE_DATA/digests``, or ``~/.cache/unnoise/digests``, unless it is damaged or a file has
    changed.
    """
    if about is None:
        return _computed(column)
    text = json.dumps(about | {"pictures": _stamp(column)}, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = data_folder() / "digests" / f"{name}.safetensors"
    found = _read(path, text)
    if found is None:
        found = _computed(column)
        metadata = {"about": text, "digest": _sum(found)}
        with suppress(OSError):  # where nothing can be kept, it is computed each time
            write_durably(path, lambda file: save_file({"digests": found}, file, metadata))
    return found


def files_stamp(files: Sequence[str]) -> list[tuple[str, int, int]]:
    """(path, bytes, time of the last change in ns) of each file."""
    stats = [(file, os.stat(file)) for file in files]
    return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _stamp(column: Any) -> str:
    """A digest of the sizes and times of the pictures that lie in files of their own."""
    import pyarrow.compute as pc

    outside = pc.struct_field(column, "path").filter(pc.is_null(pc.struct_field(column, "bytes")))
    paths = [path for path in outside.to_pylist() if path is not None and os.path.exists(path)]
    return hashlib.sha256(json.dumps(files_stamp(paths)).encode()).hexdigest()


def _pictures(column: Any) -> Iterator[tuple[bytes | None, str | None]]:
    """Bytes and path of each picture; a bar, if it takes longer than two seconds."""
    with tqdm(total=len(column), desc="reading all pictures once", delay=2, leave=False) as bar:
        for chunk in column.chunks:
            data, paths = chunk.flatten()
            yield from zip(data.to_pylist(), paths.to_pylist(), strict=True)
            bar.update(len(chunk))


def _computed(column: Any) -> Tensor:
    found = bytearray()
    for data, path in _pictures(column):
        if data is None:
            data = b"" if path is None or not os.path.exists(path) else Path(path).read_bytes()
        found += hashlib.sha256(data).digest()
    return torch.frombuffer(found, dtype=torch.uint8).view(-1, 32)


def _read(path: Path, about: str) -> Tensor | None:
    """The digests in a file; None if it is not there, damaged, or of something else."""
    try:
        parts, metadata = load_safetensors(path)
        found = parts["digests"]
    except (OSError, UnsafeFile, KeyError):
        return None
    whole = metadata.get("about") == about and metadata.get("digest") == _sum(found)
    return found if whole else None


def _sum(digests: Tensor) -> str:
    return hashlib.sha256(digests.numpy().data).hexdigest()

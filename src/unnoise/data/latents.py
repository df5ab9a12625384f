"""What an encoder makes of the pictures of a split, kept on disk over epochs and runs.

It lies in ``latents`` below $UNNOISE_DATA, else below ~/.cache/unnoise, and may be deleted. Each
block of pictures has a digest beside it, which shows whether it is there, and whole.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.data.downloads import data_folder
from unnoise.data.walk import progress
from unnoise.files import write_durably

VERSION = 1
"""Of what is kept: to be raised where the same pictures are to be encoded anew."""
ROWS = 256  # pictures a block
_DIGEST = 16  # bytes
_ZEROS = bytes(2**20)
Encode = Callable[[Tensor], Tensor]
"""The numbers (n,) of pictures to what is kept of them, (n, K, h, w) float32."""


class Latents:
    """Of each of n pictures an array of ``shape`` (K, h, w), float32, in the folder ``name``.

    The folder is made, with room for all; OSError if the disk has none.
    """

    def __init__(self, name: str, n: int, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = home() / name, (n, *shape)
        self._file, self._digests = self.folder / "latents.float32", self.folder / "digests"
        self.folder.mkdir(parents=True, exist_ok=True)
        _allocate(self._file, size_of(n, shape))
        _allocate(self._digests, -(-n // ROWS) * _DIGEST)
        self._open()

    def __len__(self) -> int:
        return self.shape[0]

    def _open(self) -> None:
        """From here on it does not matter what becomes of the files' names."""
        self._all = np.memmap(self._file, np.float32, "r+", shape=self.shape)
        blocks = -(-len(self) // ROWS)
        self._known = np.memmap(self._digests, np.uint8, "r+", shape=(blocks, _DIGEST))

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key not in ("_all", "_known")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._open()

    def read(self, indices: Tensor) -> Tensor:
        """Those of pictures ``indices`` (B,): (B, K, h, w)."""
        return torch.from_numpy(np.asarray(self._all[indices.numpy()]))

    def blocks(
        self, encode: Encode, of: int = 0, processes: int = 1
    ) -> Iterator[tuple[int, Tensor]]:
        """Every block with its number, from disk if it is whole there, else encoded and kept.

        Of several ``processes`` that share the folder, number ``of`` takes its part of the blocks.
        """
        for number, rows in parts(len(self), of, processes):
            here = self._all[rows.numpy()]
            if not np.array_equal(_digest(here), self._known[number]):
                here = encode(rows).numpy()
                self._all[rows.numpy()] = here
                self._known[number] = _digest(here)
            yield number, torch.from_numpy(np.asarray(here))


def parts(n: int, of: int = 0, processes: int = 1) -> Iterator[tuple[int, Tensor]]:
    """The numbers of n pictures in blocks, each with its own number, with a bar."""
    with progress("encoding pictures", n) as bar:
        for number, rows in enumerate(torch.split(torch.arange(n), ROWS)):
            if number % processes == of:
                yield number, rows
            bar.update(len(rows))


def size_of(n: int, shape: tuple[int, ...]) -> int:
    """Bytes that n arrays take."""
    return 4 * n * int(np.prod(shape))


def make_room(names: dict[str, int], most: float) -> str | None:
    """Remove latents that were used longest ago, so that all take ``most`` bytes at most.

    ``names`` are folders that are to be there, with the bytes of each. Returns why there is no room
    for them, or None.
    """
    needed = sum(names.values())
    if needed > most:
        return f"they take {needed / 1e9:.1f} GB, latent_cache allows {most / 1e9:g}"
    home().mkdir(parents=True, exist_ok=True)
    others = [each for each in home().glob("*") if each.is_dir() and each.name not in names]
    sizes = {each: _taken(each) for each in others}
    oldest = iter(sorted(sizes, key=_used))
    go: list[Path] = []
    while needed + sum(sizes.values()) - sum(sizes[each] for each in go) > most:
        go.append(next(oldest))
    new = needed - sum(_taken(home() / name) for name in names)
    free = shutil.disk_usage(home()).free + sum(sizes[each] for each in go)
    if free < new:
        return f"they take {new / 1e9:.1f} GB, {home()} has {free / 1e9:.1f} GB left"
    for each in go:
        shutil.rmtree(each, ignore_errors=True)
    for name in names:
        if (home() / name).is_dir():
            os.utime(home() / name)
    return None


def home() -> Path:
    """The folder of all."""
    return data_folder() / "latents"


def _taken(folder: Path) -> int:
    """Bytes of a folder, which another process may just be removing."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _used(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _allocate(path: Path, size: int) -> None:
    """Zeros on disk, so that no byte is missing when the file is written to by address.

    A file of another size is replaced, not changed: another process may be reading it.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for start in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: size - start])

    if not path.exists() or path.stat().st_size != size:
        write_durably(path, fill)


def _digest(rows: np.ndarray) -> np.ndarray:
    content = np.ascontiguousarray(rows).view(np.uint8).data
    return np.frombuffer(hashlib.blake2b(content, digest_size=_DIGEST).digest(), np.uint8)

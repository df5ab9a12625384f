"""Fetching one published file: whole and verified under its name, or not there at all."""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from unnoise.files import write_durably

_TIMEOUT = 10.0  # seconds to connect, and to wait for each next block
_BLOCK = 1 << 18
_LEFT_BEHIND = 600.0  # seconds without a new block, after which nobody is still downloading
_ALGORITHMS = {32: "md5", 64: "sha256"}  # by the number of hex digits


def data_folder() -> Path:
    """Where data sets lie that were given no place: $UNNOISE_DATA, else ~/.cache/unnoise."""
    named = os.environ.get("UNNOISE_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "unnoise"


def fetch(urls: Sequence[str], path: Path, digest: str) -> None:
    """Download ``path`` from the first of ``urls`` that gives the bytes of ``digest``.

    ``digest`` is the hex MD5 or SHA-256 of the file. The bytes go to a temporary file in the same
    folder, which is renamed to ``path`` once they are verified and on disk. Temporary files of
    killed downloads are removed.

    Raises:
        FileNotFoundError: no URL gave the file; says what each answered and where it belongs.
        ValueError: ``digest`` is neither an MD5 nor a SHA-256.
    """
    if len(digest) not in _ALGORITHMS:
        raise ValueError(f"{digest!r} is neither an MD5 (32 hex digits) nor a SHA-256 (64)")
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(FileNotFoundError):  # another process may just have ended its download
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
                left.unlink()
    failures = []
    for url in urls:
        try:
            write_durably(path, partial(_download, url, path.name, digest.lower()))
            return
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"  {url}: {error}")
    way_out = f"Put {path.name} into {path.parent} by hand, or set data.root to its folder."
    raise FileNotFoundError("\n".join([f"cannot download {path.name}:", *failures, way_out]))


def _download(url: str, name: str, digest: str, path: Path) -> None:
    algorithm = _ALGORITHMS[len(digest)]
    seen = hashlib.new(algorithm, usedforsecurity=False)
    request = Request(url, headers={"User-Agent": "unnoise"})
    with urlopen(request, timeout=_TIMEOUT) as answer, path.open("wb") as part:
        length = answer.headers.get("Content-Length")
        with tqdm(
            total=int(length) if length else None,
            desc=f"{name} from {urlsplit(url).netloc}",
            unit="B",
            unit_scale=True,
            disable=None,  # only on a terminal
        ) as bar:
            while block := answer.read(_BLOCK):
                part.write(block)
                seen.update(block)
                bar.update(len(block))
    if seen.hexdigest() != digest:
        raise ValueError(
            f"the {path.stat().st_size:,} bytes received have the {algorithm} {seen.hexdigest()}, "
            f"not the published {digest}"
        )

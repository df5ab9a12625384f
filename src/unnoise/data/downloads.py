"""Fetching one published file: whole and verified under its name, or not there at all."""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

_TIMEOUT = 10.0  # seconds to connect, and to wait for each next block
_BLOCK = 1 << 18
_LEFT_BEHIND = 600.0  # seconds without a new block, after which nobody is still downloading
_ALGORITHMS = {32: "md5", 64: "sha256"}  # by the number of hex digits


def fetch(urls: Sequence[str], path: Path, digest: str) -> None:
    """Download ``path`` from the first of ``urls`` that gives the bytes of ``digest``.

    ``digest`` is the hex MD5 or SHA-256 of the file. The bytes go to a temporary file in the same
    folder, which takes the name ``path`` only once they are verified and on disk. What killed
    downloads of the file left behind is removed.

    Raises:
        FileNotFoundError: no URL gave the file; says what each answered and where it belongs.
        ValueError: ``digest`` is neither an MD5 nor a SHA-256.
    """
    if len(digest) not in _ALGORITHMS:
        raise ValueError(f"{digest!r} is neither an MD5 (32 hex digits) nor a SHA-256 (64)")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(FileNotFoundError):  # another process may just have ended its download
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
                left.unlink()
    failures = []
    for url in urls:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as part:
            try:
                _download(url, part, path.name, digest.lower())
                part.flush()
                os.fsync(part.fileno())
                part.close()
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
                return
            except (OSError, HTTPException, ValueError) as error:
                failures.append(f"  {url}: {error}")
            finally:
                Path(part.name).unlink(missing_ok=True)
    raise FileNotFoundError(
        "\n".join(
            [
                f"cannot download {path.name}:",
                *failures,
                f"Put {path.name} into {path.parent} by hand, "
                "or set data.root to the folder that has it.",
            ]
        )
    )


def _download(url: str, part: IO[bytes], name: str, digest: str) -> None:
    algorithm = _ALGORITHMS[len(digest)]
    seen = hashlib.new(algorithm, usedforsecurity=False)
    request = Request(url, headers={"User-Agent": "unnoise"})
    with urlopen(request, timeout=_TIMEOUT) as answer:
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
            f"the {part.tell():,} bytes received have the {algorithm} {seen.hexdigest()}, "
            f"not the published {digest}"
        )

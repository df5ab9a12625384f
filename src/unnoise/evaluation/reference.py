"""Features of the real pictures that drawn ones are compared with, computed once a machine."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from unnoise.data.source import Images, Split
from unnoise.evaluation.distances import Moments, kernel_mean, moments
from unnoise.evaluation.extractors.base import POOLED, Extractor, Features, Manifold, extract
from unnoise.evaluation.neighbours import Surroundings, surroundings
from unnoise.files import write_durably
from unnoise.untrusted import UnsafeFile, load_safetensors


@dataclass(frozen=True)
class Reference:
    """Features of N real pictures, and what they are of.

    ``about`` holds "extractor", "extractor_digest", "resize", "data" (the fingerprint of the
    pictures), "split" and "count". Neighbours are sought on the ``manifold``.
    """

    about: dict[str, Any]
    features: Features
    manifold: Manifold = POOLED

    @property
    def extractor(self) -> str:
        """The name that distances carry."""
        return str(self.about["extractor"])

    @cached_property
    def pooled(self) -> Moments:
        """Of the pooled features."""
        return moments(self.features.pooled)

    @cached_property
    def spatial(self) -> Moments:
        """Of the spatial features."""
        return moments(self.features.spatial)

    @cached_property
    def likeness(self) -> Tensor:
        """Mean of the kernel over pairs of its pictures, a scalar."""
        x = self.features.pooled.double()
        return kernel_mean(x, x.new_ones(len(x), 1))[0]

    @cached_property
    def neighbours(self) -> Tensor:
        """The features (M, D) among which neighbours are sought."""
        part: Tensor = getattr(self.features, self.manifold.part)
        if self.manifold.most is None or self.manifold.most >= len(part):
            return part
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
        return part[order[: self.manifold.most]]

    @cached_property
    def surroundings(self) -> Surroundings:
        """How far ``neighbours`` are from each other."""
        return surroundings(self.neighbours)

    @cached_property
    def whole(self) -> "Reference":
        """The same with neighbours among the pooled features of all its pictures."""
        return self if self.manifold == POOLED else replace(self, manifold=POOLED)


def cached(
    about: dict[str, Any], compute: Callable[[], Features], folder: Path | None = None
) -> Reference:
    """The reference that ``about`` describes: read if it is there and whole, else computed.

    It is kept as one safetensors file in ``folder``, whose name is a digest of ``about`` and which
    holds ``about`` itself; a file of something else, or a damaged one, is not used but written
    anew, and where that fails there is a warning. The default folder is
    ``$UNNOISE_CACHE/references``, or ``~/.cache/unnoise/references``.
    """
    text = json.dumps(about, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = (folder or cache_folder() / "references") / f"{about['extractor']}_{name}.safetensors"
    found = _read(path, text)
    if found is None:
        found = compute()
        parts = {key: part.contiguous() for key, part in found._asdict().items()}
        digest = {"about": text, "digest": _digest(found)}
        content = save(parts, digest)
        try:
            write_durably(path, lambda temporary: temporary.write_bytes(content))
        except OSError as error:
            print(f"warning: features are not kept: {path}: {error.strerror}", file=sys.stderr)
    return Reference(about, found)


def cache_folder() -> Path:
    """Where what can be computed again is kept: ``$UNNOISE_CACHE``, or ``~/.cache/unnoise``."""
    return Path(os.environ.get("UNNOISE_CACHE") or Path.home() / ".cache" / "unnoise")


def _read(path: Path, about: str) -> Features | None:
    """The features in a file; None if it is not there, damaged, or of something else."""
    try:
        parts, metadata = load_safetensors(path)
        found = Features(*(parts[key] for key in Features._fields))
    except (OSError, UnsafeFile, KeyError):
        return None
    whole = metadata.get("about") == about and metadata.get("digest") == _digest(found)
    return found if whole else None


def _digest(features: Features) -> str:
    digest = hashlib.sha256()
    for part in features:
        digest.update(repr(tuple(part.shape)).encode())
        digest.update(part.to(torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def reference(
    images: Images, split: Split, count: int, extractor: Extractor, device: torch.device
) -> Reference:
    """The features of ``count`` pictures of a split, chosen as in ``spread``, or of all if fewer.

    Computed once for these pictures and this extractor, and kept.
    """
    count = min(count, len(images))
    about = {"data": images.fingerprint, "split": split, "count": count, "choice": "random"}
    found = cached(
        extractor.about | about, lambda: extract(extractor, spread(images, count), device)
    )
    return replace(found, manifold=extractor.manifold)


def spread(images: Images, count: int, batch_size: int = 256) -> Iterator[Tensor]:
    """``count`` pictures of a split, in batches (B, C, H, W) uint8: always the same, at random.

    Every k-th would miss classes that take turns, as those of the sprites do.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = order[:count].sort().values
    for start in range(0, count, batch_size):
        yield images.read(chosen[start : start + batch_size])

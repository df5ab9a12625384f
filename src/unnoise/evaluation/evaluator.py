"""Pictures from anywhere, scored against real ones."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.data.folders import SUFFIXES
from unnoise.data.pixels import ROUNDING, from_pil, to_pixels
from unnoise.data.source import Images
from unnoise.evaluation.extractors.base import Extractor, Features, extract
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.quality import estimates
from unnoise.evaluation.reference import Reference, cached, spread
from unnoise.evaluation.results import Fingerprint, Score
from unnoise.untrusted import load_arrays


@dataclass(frozen=True)
class Scorer:
    """Metrics of pictures by an extractor against a reference; ``metrics`` None are all."""

    extractor: Extractor
    reference: Reference
    device: torch.device
    metrics: Sequence[str | Compare] | None = None

    def score(
        self, name: str, pictures: dict[str, Any], pixels: Tensor, keep: Path | None = None
    ) -> Score:
        """Of pixels (N, C, H, W) uint8; their features are kept in a folder if one is given.

        ``pictures`` says which they are, as ``Score`` wants it.
        """
        about = {
            "extractor": self.extractor.name,
            "extractor_digest": self.extractor.digest,
            "resize": self.extractor.resize,
            "pictures": _digest(pixels),
        }

        def features() -> Features:
            batches = (pixels[start : start + 256] for start in range(0, len(pixels), 256))
            return extract(self.extractor, batches, self.device)

        seen = features() if keep is None else cached(about, features, keep).features
        said = self.reference.about
        fingerprint = Fingerprint(
            count=len(pixels),
            reference=f"{said['split']} {said['count']} of {said['data'][:12]}",
            extractor=f"{self.extractor.name} {self.extractor.digest[:12]}",
            resize=self.extractor.resize,
            rounding=ROUNDING,
        )
        return Score(name, pictures, fingerprint, estimates(self.reference, seen, self.metrics))

    def controls(self, real: Images, n: int) -> Iterator[Score]:
        """Of real pictures that are not in the reference, the least that can be had, and of noise.

        Both n pictures, the real ones chosen as by ``spread``.
        """
        n = min(n, len(real))
        pixels = mixed(torch.cat(list(spread(real, n))))
        yield self.score("real pictures", {"kind": "real", "data": real.fingerprint}, pixels)
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        yield self.score("noise", {"kind": "noise", "seed": 0}, to_pixels(noise))


def mixed(pixels: Tensor) -> Tensor:
    """Pictures in an order at random, always the same, so that errors do not hang on theirs."""
    return pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))]


def _digest(pixels: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.contiguous().numpy().data)
    return digest.hexdigest()


def given_pictures(path: Path) -> Tensor:
    """Pictures (N, 1 or 3, H, W) uint8 of a folder of image files, or of an .npz or .npy file.

    An array is (N, H, W, 1 or 3) uint8; of an .npz file the first one counts.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: a file is damaged, the pictures are not all of one size, or the array is not as
            above.
    """
    if path.is_dir():
        return _folder(path)
    array = next(iter(load_arrays(path).values()), np.empty(0))
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}, not pictures: uint8 (N, H, W, 1 or 3)"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def _folder(path: Path) -> Tensor:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"there are no pictures in {path}")
    rows: list[Tensor] = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pixels = np.array(from_pil(picture, 3))
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise ValueError(f"{file} is unreadable: {error}") from error
        rows.append(torch.from_numpy(pixels).permute(2, 0, 1))
        if rows[-1].shape != rows[0].shape:
            (_, h, w), (_, height, width) = rows[-1].shape, rows[0].shape
            raise ValueError(
                f"{file} has {w} × {h} pixels, {files[0]} has {width} × {height}: "
                "pictures to be scored are all of one size"
            )
    return torch.stack(rows)

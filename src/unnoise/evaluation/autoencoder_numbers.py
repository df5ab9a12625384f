"""The numbers of an autoencoder's sheet, by what is known of its reconstructions and latents."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from unnoise.evaluation import estimates, latents
from unnoise.evaluation.estimates import metric_name
from unnoise.evaluation.extractors.base import Extractor
from unnoise.evaluation.reconstructions import TRANSFORMS, Block
from unnoise.evaluation.results import Estimate, aligned

NO_EXTRACTOR = "the data have no extractor: name a file of unnoise-extractor (extractor=…)"


class Row(NamedTuple):
    """A number of the sheet with its standard error, or in its note why it is not there.

    ``channel`` is that of the latent which it is about; None is all.
    """

    name: str
    estimate: Estimate | None
    note: str = ""
    channel: int | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The row as plain values, for CSV and JSON."""
        name = self.name if self.channel is None else f"{self.name}, channel {self.channel}"
        found = self.estimate and {"value": self.estimate.value, "error": self.estimate.error}
        return {"number": name, **(found or {"value": None, "error": None}), "note": self.note}


def numbers(of: Block, extractor: Extractor | None) -> Iterator[Row]:
    """The rows of the sheet, by what is known of all pictures."""
    yield from _of_reconstructions(of, extractor)
    yield from _of_latents(of)


def _of_reconstructions(of: Block, extractor: Extractor | None) -> Iterator[Row]:
    if extractor is None or of.features is None:
        yield Row("rFD", None, NO_EXTRACTOR)
    else:
        name = f"r{metric_name('fd', extractor.name)}"
        yield Row(name, Estimate(*latents.paired_distance(*of.features)), "less is better")
    yield Row("PSNR", mean(of.each["PSNR"]), "dB")
    if "SSIM" in of.each:
        yield Row("SSIM", mean(of.each["SSIM"]), "1 is equal")
    else:
        yield Row("SSIM", None, f"takes sides of {latents.WINDOW} pixels or more")
    if extractor is not None and "perceptual distance" in of.each:
        by = f"by {extractor.name}, 0 … 2, less is better"
        yield Row("perceptual distance", mean(of.each["perceptual distance"]), by)
    else:
        why = NO_EXTRACTOR if extractor is None else f"is not by {extractor.name}"
        yield Row("perceptual distance", None, why)
    for name in TRANSFORMS:
        note = "dB, PSNR of decode(T z) to T x"
        yield Row(f"equivariance, {name}", mean(of.each[name]), note)


def _of_latents(of: Block) -> Iterator[Row]:
    n, of_posterior = len(of.each["PSNR"]), "KL" in of.each
    center, squares, noise = of.total / n, of.squares / n, of.variance / n
    units = latents.active((squares - center.square()) * (n / (n - 1))).flatten(1)
    if of_posterior:
        yield Row("KL, bits a picture", mean(of.each["KL"]))
        yield Row("KL, bits a dimension", mean(of.each["KL"] / units.numel()))
        share = Estimate(float(units.double().mean()))
        yield Row("active units", share, f"share of {units.numel()}, Var μ > {latents.ACTIVE}")
    if of.codes is not None:
        used = latents.usage(of.codes)
        yield Row("code usage", Estimate(used.share), f"share of {len(of.codes)}")
        yield Row("perplexity", Estimate(used.perplexity), f"of {len(of.codes)}")
    for name, power in of.powers.items():
        try:
            row = Row("", Estimate(*latents.slope(power[: min(n, estimates.GROUPS)], n)))
        except ValueError as error:
            row = Row("", None, str(error))
        yield row._replace(name=f"slope of the spectrum, {name}")
    spread = squares.mean((1, 2)) - center.mean((1, 2)).square() + noise
    for channel in range(len(center)):
        yield Row("mean", Estimate(float(center[channel].mean())), "", channel)
        yield Row("std", Estimate(float(spread[channel].clamp(min=0).sqrt())), "", channel)
        if of_posterior:
            yield Row("posterior std", Estimate(float(noise[channel].sqrt())), "", channel)
            note = f"of {units.shape[1]} units"
            yield Row("active", Estimate(float(units[channel].sum())), note, channel)


def mean(x: Tensor) -> Estimate:
    """Of (N,), with its standard error s/√N."""
    return Estimate(float(x.mean()), float(x.std()) / math.sqrt(len(x)))


def text(rows: Sequence[Row]) -> str:
    """The rows for a terminal: what is of all channels, then a line for each channel."""
    cells = [
        (row.name, "–" if row.estimate is None else str(row.estimate), row.note)
        for row in rows
        if row.channel is None
    ]
    of: dict[int, list[Row]] = {}
    for row in rows:
        if row.channel is not None:
            of.setdefault(row.channel, []).append(row)
    heads = ["channel", *(row.name for row in of[0])]
    lines = [[str(k), *(str(row.estimate) for row in part)] for k, part in of.items()]
    first = aligned([("number", "value ± error", ""), *cells], left=(0, 2))
    return "\n".join([*first, "", *aligned([heads, *lines])])

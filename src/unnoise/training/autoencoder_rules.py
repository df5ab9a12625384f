"""What must hold between the parts of a run with an autoencoder; see ``unnoise.training.rules``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unnoise.config.problems import Problem, did_you_mean
from unnoise.data.source import ImageSource
from unnoise.diffusion.denoiser import Prediction
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.networks.adversarial import PatchDiscriminator
from unnoise.networks.autoencoders import (
    Autoencoder,
    ConvolutionalAutoencoder,
    Identity,
    KLAutoencoder,
    Reconstruction,
)
from unnoise.networks.autoencoders.equivariance import SMALLEST, scaled

MOST_ENLARGED = 50  # 14.6 with the schedule of Stable Diffusion, 158 with DDPM's


def encodable(data: ImageSource, network: ConvolutionalAutoencoder) -> Iterator[Problem]:
    """The pictures can be halved as often as the network does."""
    try:
        network.latent_shape(data.shape)
    except ValueError as error:
        yield Problem("network", str(error))


def seen(data: ImageSource, perceptual: float, extractor: str) -> Iterator[Problem]:
    """The perceptual distance is by a small extractor of the data's own."""
    from unnoise.evaluation.extractors.find import NAMES

    own = data.extractor if extractor == "auto" else extractor
    if perceptual == 0 or own in NAMES or (own is not None and Path(own).is_file()):
        return
    if own is None:
        message = "needs an extractor, and this data has none: name a file that unnoise-extractor "
        yield Problem("perceptual", f"{message}wrote (extractor=...), or set perceptual=0")
    elif own == "inception":
        yield Problem("extractor", f"inception is not for training: use {', '.join(NAMES)}")
    else:
        near = did_you_mean(own, NAMES)
        known = ", ".join(NAMES)
        yield Problem("extractor", f"there is no extractor {own}{near} ({known}, or a file)")


def unclipped(
    autoencoder: Autoencoder | None, schedule: NoiseSchedule, prediction: Prediction
) -> Iterator[Problem]:
    """In a latent, which has no range to clip to, x0 does not come from a vanishing share of x_t.

    An error of the network's output is one of out·F in x0; sampling starts where out is greatest.
    """
    if autoencoder is None or autoencoder.bounded:
        return
    last = schedule.grid(1, "uniform")[0]
    out = abs(float(prediction.coefficients(last.alpha, last.sigma)[1]))
    if out > MOST_ENLARGED:
        yield Problem(
            "prediction",
            f"enlarges the network's errors {out:,.0f} times at the level where sampling starts, "
            "and a latent is not clipped: use prediction=v objective=v, or schedule=quadratic",
            "warning",
        )


def of_pixels(autoencoder: Autoencoder | None, callbacks: Mapping[str, Any]) -> Iterator[Problem]:
    """What needs the pictures' own likelihood is not measured in a latent."""
    if autoencoder is None or isinstance(autoencoder, Identity):
        return
    for name, callback in callbacks.items():
        if getattr(callback, "needs_pixels", False):
            yield Problem(f"callbacks.{name}", "is for models of pixels, not of latents")


def whole_steps(accumulate: int, discriminator: Any) -> Iterator[Problem]:
    """The adversarial loss is weighed by the gradients of a whole step."""
    if accumulate > 1 and discriminator is not None:
        message = "must be 1 with a discriminator, whose weight follows from a whole step's "
        yield Problem("accumulate", f"{message}gradients; or set discriminator=null")


def differentiable_twice(compile: bool, discriminator: Any) -> Iterator[Problem]:
    """The adaptive weight goes back through the autoencoder before the loss does."""
    if compile and discriminator is not None:
        message = "cannot be with a discriminator, whose weight takes gradients of its own through "
        yield Problem("compile", f"{message}the network, which a graph gives once; or set "
                      "discriminator=null")  # fmt: skip


def large_enough(
    data: ImageSource,
    network: ConvolutionalAutoencoder,
    discriminator: PatchDiscriminator | None,
    equivariance: float,
) -> Iterator[Problem]:
    """The discriminator can see the smallest pictures that equivariance is trained on."""
    if equivariance == 0 or discriminator is None:
        return
    f = network.patch * 2**network.halvings
    least = min(f * scaled(side // f, SMALLEST) for side in data.shape[1:])
    if least < discriminator.least:
        message = f"makes pictures as small as {least} pixels, of which this discriminator needs "
        yield Problem("equivariance", f"{message}{discriminator.least}: give it fewer layers, or "
                      "set discriminator=null")  # fmt: skip


def distributed(network: ConvolutionalAutoencoder, sampler: Reconstruction) -> Iterator[Problem]:
    """Only the latent of a KL autoencoder can be drawn."""
    if sampler.drawn and not isinstance(network, KLAutoencoder):
        yield Problem("sampler.drawn", "is for latents with a distribution (network=kl_…)")


AUTOENCODER = encodable, seen, whole_steps, differentiable_twice, large_enough, distributed

"""From a model to a pipeline folder of diffusers, and the proof that it draws the same pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.data.pixels import to_signal
from unnoise.diffusion.denoiser import thresholded
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers import Sampler, Walk, sample
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.models.base import GenerativeModel, a
from unnoise.models.codec import LatentCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.hub.autoencoder import (
    autoencoder_class,
    autoencoder_config,
    autoencoder_faults,
    decoder_of,
)
from unnoise.models.hub.scheduler import scheduler_faults, scheduler_of
from unnoise.models.hub.unet import unet_config, unet_faults
from unnoise.networks.autoencoders import KLAutoencoder, VQAutoencoder, to_diffusers
from unnoise.networks.conditioning import FrozenText, TextConditioner
from unnoise.networks.pretrained import unet_to_diffusers

TOLERANCE = 1e-4
"""Of x at every step, in units of its size where that exceeds 1; of pictures in [0, 1]."""
PICTURES = 2
"""That prove it."""
CAPTIONS = ["a cat", "two dogs"]
"""Of them, where captions are read."""


class NotProven(ValueError):
    """diffusers draws something else from the folder than the run does."""


class Proof(NamedTuple):
    """How far two trajectories of the same noise are apart, at most; and the pictures."""

    steps: int
    trajectory: float
    pictures: float

    def __str__(self) -> str:
        """In a line."""
        walk = f"{self.steps} steps differ by {self.trajectory:.1e} at most, " if self.steps else ""
        return f"{walk}pictures in [0, 1] by {self.pictures:.1e}"


def faults(model: GenerativeModel, recipe: Any) -> Iterator[str]:
    """Why diffusers cannot draw as a model does with a recipe."""
    if find_spec("diffusers") is None:
        yield "the package diffusers, which proves it, is missing: pip install 'unnoise[diffusers]'"
    if isinstance(model, AutoencoderModel):
        yield from autoencoder_faults(model.autoencoder)
        return
    if not isinstance(model, DiffusionModel):
        yield f"diffusers has no pipeline for {a(model)}"
        return
    if model.conditioner is not None and not _reads_captions(model):
        kind = type(model.conditioner).__name__
        yield f"conditioning: no pipeline of diffusers hands a U-Net what {kind} gives"
        if isinstance(model.conditioner, TextConditioner):
            yield "conditioning: StableDiffusionPipeline takes the tokens of CLIP's text encoder"
    yield from unet_faults(model.denoiser.network, _unet_class(model))
    yield from scheduler_faults(model, recipe, _reads_captions(model))
    if isinstance(model.codec, LatentCodec):
        yield from autoencoder_faults(model.codec.autoencoder)
        height, width = model.codec.shape[1:]
        if height != width:
            yield f"data.image_size: these pipelines draw squares, no latent of {height} × {width}"
    elif _reads_captions(model):
        yield "autoencoder: StableDiffusionPipeline draws latents, not pixels"
    if _reads_captions(model) and (size := model.shape[-1]) % 8:
        yield f"data.image_size: StableDiffusionPipeline draws multiples of 8, not {size}"


def _reads_captions(model: DiffusionModel) -> bool:
    return isinstance(model.conditioner, FrozenText)


def _unet_class(model: DiffusionModel) -> str:
    return "UNet2DConditionModel" if _reads_captions(model) else "UNet2DModel"


def pipeline_name(model: GenerativeModel, recipe: Any) -> str:
    """The class of the folder."""
    if isinstance(model, AutoencoderModel):
        return autoencoder_class(model.autoencoder)
    assert isinstance(model, DiffusionModel)
    if _reads_captions(model):
        return "StableDiffusionPipeline"
    if isinstance(model.codec, LatentCodec):
        return "LDMPipeline"
    return scheduler_of(model, recipe).name.replace("Scheduler", "Pipeline")


def call_of(model: GenerativeModel, recipe: Any) -> dict[str, Any]:
    """The arguments with which the pipeline draws as the run does."""
    if not isinstance(model, DiffusionModel):
        return {}
    call = scheduler_of(model, recipe).call
    return call | ({"guidance_scale": recipe.guidance.scale} if _reads_captions(model) else {})


def example(model: GenerativeModel, recipe: Any) -> str:
    """Python that loads the folder and draws from it."""
    name, call = pipeline_name(model, recipe), call_of(model, recipe)
    load = f'from diffusers import {name}\n\nmodel = {name}.from_pretrained("this folder")\n'
    if not isinstance(model, DiffusionModel):
        return load
    what = f"prompt={CAPTIONS}" if _reads_captions(model) else "batch_size=4"
    said = ", ".join([what, *(f"{key}={value!r}" for key, value in call.items())])
    return f"{load}images = model({said}).images"


def write(model: GenerativeModel, recipe: Any, folder: Path) -> None:
    """A folder of safetensors and JSON, by diffusers' own writers; ``faults`` must be none."""
    diffusers = _diffusers()
    if isinstance(model, AutoencoderModel):
        network = model.autoencoder
        assert isinstance(network, KLAutoencoder | VQAutoencoder)
        config = autoencoder_config(network, model.shape) | {"scaling_factor": 1.0}
        made = _made(autoencoder_class(network), config, to_diffusers(network))
        made.save_pretrained(folder, safe_serialization=True)
        return
    assert isinstance(model, DiffusionModel)
    unet: Any = model.denoiser.network
    scheduler = scheduler_of(model, recipe)
    theirs = getattr(diffusers, scheduler.name)(**scheduler.config)
    parts = {
        "unet": _made(_unet_class(model), unet_config(unet), unet_to_diffusers(unet)),
        "scheduler": theirs,
    }
    if isinstance(model.codec, LatentCodec):
        slot = "vae" if _reads_captions(model) else "vqvae"
        parts[slot] = _made("AutoencoderKL", *decoder_of(model.codec, model.shape))
    if isinstance(model.conditioner, FrozenText):
        parts["tokenizer"], parts["text_encoder"] = model.conditioner.encoder.loaded
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    with _quiet():
        pipeline = getattr(diffusers, pipeline_name(model, recipe))(**parts)
        pipeline.save_pretrained(folder, safe_serialization=True)


def _made(name: str, config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """A network of diffusers with these weights, all of them and no others."""
    diffusers = _diffusers()
    with torch.random.fork_rng(devices=[]):  # its initial weights come from torch's generator
        network = getattr(diffusers, name)(**config)
    network.load_state_dict({key: value.cpu() for key, value in state.items()}, strict=True)
    return network.eval()


def proof(
    model: GenerativeModel, recipe: Any, folder: Path, pictures: Tensor | None = None
) -> Proof:
    """Draw by diffusers, as the folder says, and by the model, from the same noise, on the CPU.

    An autoencoder is compared on ``pictures`` (N, C, H, W) uint8: posterior, decoding, picture.

    Raises:
        NotProven: they differ by more than ``TOLERANCE``.
    """
    model.cpu()
    if isinstance(model, AutoencoderModel):
        assert pictures is not None
        found = _same_autoencoder(model, folder, pictures)
    else:
        assert isinstance(model, DiffusionModel)
        found = _same_walk(model, recipe, folder)
    if not max(found.trajectory, found.pictures) <= TOLERANCE:
        raise NotProven(f"diffusers does not draw the same from this folder: {found}")
    return found


@torch.inference_mode()
def _same_walk(model: DiffusionModel, sampler: Sampler, folder: Path) -> Proof:
    diffusers = _diffusers()
    theirs: list[Tensor] = []
    with _quiet(), torch.random.fork_rng(devices=[]):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.unet.register_forward_pre_hook(  # with guidance it is called with all x twice
            lambda _, inputs: theirs.append(inputs[0][:PICTURES].clone())
        )
        torch.manual_seed(0)
        what = {"prompt": CAPTIONS} if _reads_captions(model) else {"batch_size": PICTURES}
        images = pipeline(output_type="np", **what, **call_of(model, sampler)).images
    ours: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)

        def noise() -> Tensor:
            return torch.randn(PICTURES, *model.codec.shape)

        x, schedule = noise(), model.schedule
        levels = schedule.grid(sampler.steps, sampler.spacing)
        batch = {"caption": CAPTIONS} if _reads_captions(model) else None
        denoise = model.guided(batch, PICTURES, sampler.guidance)
        if sampler.threshold is not None and model.codec.bounded:
            denoise = thresholded(denoise, sampler.threshold)

        def watch(x: Tensor, level: NoiseLevel) -> None:
            ours.append(x)

        ours.append(x)
        sample(Walk(denoise, schedule, noise), sampler.stepper, levels, x, watch)
    if len(theirs) != len(ours) - 1:
        raise NotProven(f"diffusers takes {len(theirs)} steps, the run {len(ours) - 1}")
    apart = max(_apart(one, two) for one, two in zip(theirs, ours[:-1], strict=True))
    drawn = model.codec.decode(ours[-1])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return Proof(len(theirs), apart, _of_pixels(pixels, drawn))


@torch.inference_mode()
def _same_autoencoder(model: AutoencoderModel, folder: Path, pictures: Tensor) -> Proof:
    diffusers = _diffusers()
    with _quiet():
        theirs = getattr(diffusers, autoencoder_class(model.autoencoder)).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
    network, x = model.autoencoder, to_signal(pictures.cpu())
    if isinstance(network, KLAutoencoder):
        posterior, found = theirs.encode(x).latent_dist, network.posterior(x)
        decoded, own = theirs.decode(posterior.mean).sample, network.decode(found.mean)
        apart = [(posterior.mean, found.mean), (posterior.logvar, found.logvar), (decoded, own)]
    else:
        assert isinstance(network, VQAutoencoder)
        latents, decoded = theirs.encode(x).latents, theirs(x).sample
        own = network.decode(network.moments(x))
        apart = [(latents, network.latent(x).encoded), (decoded, own)]
    pixels = _of_pixels((decoded / 2 + 0.5).clamp(0, 1), model.codec.decode(own))
    return Proof(0, max(_apart(*pair) for pair in apart), pixels)


def _apart(one: Tensor, other: Tensor) -> float:
    """The greatest difference, in units of the size of ``other``, its RMS, where that exceeds 1."""
    size = other.square().mean().sqrt().clamp(min=1)
    return float((one - other).abs().max() / size)


def _of_pixels(theirs: Tensor, ours: Tensor) -> float:
    """How far pictures in [0, 1] are from what rounds to ours, uint8."""
    return float(((theirs - ours / 255).abs() - 0.5 / 255).clamp(min=0).max())


def _diffusers() -> Any:
    return import_module("diffusers")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' bars and warnings."""
    logging = import_module("diffusers.utils.logging")
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()

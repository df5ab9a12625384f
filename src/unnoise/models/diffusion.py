"""The diffusion model: what is trained, averaged, saved and drawn from."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Denoised, Denoiser
from unnoise.diffusion.editing import Edit
from unnoise.diffusion.guidance import Guidance, Pair, classifier_guided, extrapolated
from unnoise.diffusion.levels import NoiseLevel, Variance
from unnoise.diffusion.likelihood import Bound, bound
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Loss, Objective
from unnoise.diffusion.samplers import Sampler, Watch
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.schedules.base import check_prediction, same_path
from unnoise.diffusion.times import TimeSampler
from unnoise.models.base import Classifier, GenerativeModel, a
from unnoise.models.codec import Codec, codec_of, same_signal
from unnoise.networks.conditioning import Condition, Conditioner, read


class DiffusionModel(GenerativeModel):
    """A denoiser with its schedule, a codec and, for conditional models, a conditioner.

    Data are uint8 (B, *shape) outside; inside they are the codec's signal, float32.
    """

    networks: ClassVar[dict[str, str]] = {
        "network": "denoiser.network.",
        "conditioning": "conditioner.",
        "autoencoder": "codec.autoencoder.",
    }
    parts: ClassVar[tuple[str, ...]] = ("prediction", "schedule", "learned_variance")

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        codec: Codec,
        conditioner: Conditioner | None = None,
    ) -> None:
        super().__init__()
        check_prediction(denoiser.prediction, schedule)
        self.denoiser, self.conditioner = denoiser, conditioner
        self.schedule, self.codec = schedule, codec

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the parts; ValueError if the network is for another signal than the codec's."""
        kinds = {"learned_variance": bool, "conditioning": Conditioner | None}
        if wrong := [key for key, kind in kinds.items() if not isinstance(parts[key], kind)]:
            raise ValueError(f"{wrong[0]} is {parts[wrong[0]]!r}")
        keys = "network", "prediction", "learned_variance"
        denoiser, codec = Denoiser(*(parts[k] for k in keys)), codec_of(parts["autoencoder"], shape)
        if parts["network"].shape != codec.shape:
            raise ValueError(f"the network is for {parts['network'].shape}, not for {codec.shape}")
        return cls(denoiser, parts["schedule"], codec, parts["conditioning"])

    def check_recipe(self, recipe: Sampler) -> None:
        """ValueError for more steps than there are, or a variance that was not learned."""
        if not isinstance(recipe, Sampler):
            raise ValueError(f"a diffusion model does not draw with {type(recipe).__name__}")
        self.schedule.grid(recipe.steps, recipe.spacing)
        if getattr(recipe.stepper, "variance", None) == "learned" and self.variance != "learned":
            raise ValueError("the run did not learn a variance")

    def loss(
        self,
        objective: Objective,
        batch: Mapping[str, Any],
        noise: Noise,
        times: TimeSampler,
        drop: float = 0.0,
    ) -> Loss:
        """The objective on a batch with "image", each condition dropped with probability drop."""
        x0 = self.codec.of_batch(batch, noise)
        condition = None
        if self.conditioner is not None:
            condition = self.condition(batch, noise.uniform("drop") >= drop)
        u, weight = times.draw(noise)
        return Loss(objective(self.denoiser, self.schedule, x0, u, condition, noise), u, weight)

    @torch.no_grad()  # not in inference mode: an edit may take gradients
    def sample(
        self,
        recipe: Sampler,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
        **guides: Any,
    ) -> Tensor:
        """The data of ``sample_signal``: one uint8 (B, *shape) for each id of ``noise``."""
        data = self.codec.decode(self.sample_signal(recipe, noise, batch, watch, **guides))
        edit: Edit | None = guides.get("edit")
        return data if edit is None else edit.finished(data, noise.ids)

    @torch.no_grad()
    def sample_signal(
        self,
        sampler: Sampler,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
        *,
        edit: Edit | None = None,
        weak: "DiffusionModel | None" = None,
        classifier: Classifier | None = None,
    ) -> Tensor:
        """One signal for each id of ``noise``, (B, *codec.shape): pictures in about [−1, 1].

        ``batch`` holds what the conditioner reads; without it, its examples are drawn. ``edit``
        draws in place of the sampler. For the others see ``guided``. Of a signal without bounds
        no estimate is thresholded.

        Raises:
            ValueError: the edit's pictures have another shape than the model's; see ``guided``.
        """
        if batch is None and self.conditioner is not None:
            batch = self.conditioner.examples(noise.ids)
        if not self.codec.bounded:
            sampler = replace(sampler, threshold=None)
        denoise = self.guided(batch, len(noise.ids), sampler.guidance, weak, classifier)
        if edit is None:
            return sampler(denoise, self.schedule, self.codec.shape, noise, watch)
        if edit.shape != self.codec.shape:
            raise ValueError(
                f"the pictures to edit have the shape {edit.shape}, but the model draws "
                f"{self.codec.shape}"
            )
        return edit(sampler, denoise, self.schedule, noise, watch)

    def steps(self, recipe: Sampler) -> int:
        """From level to level."""
        return len(self.schedule.grid(recipe.steps, recipe.spacing)) - 1

    def changed(self, recipe: Sampler, steps: int | None, guidance: float | None) -> Sampler:
        """Any number of steps and any scale; ValueError if it is for another family."""
        if not isinstance(recipe, Sampler):
            raise ValueError(f"a diffusion model does not draw with {type(recipe).__name__}")
        if steps is not None:
            recipe = replace(recipe, steps=steps)
        if guidance is not None:
            recipe = replace(recipe, guidance=replace(recipe.guidance, scale=guidance))
        return recipe

    def caption(self, recipe: Sampler) -> str:
        """The kind of step, their number, and guidance where there is some."""
        scale = recipe.guidance.scale
        guidance = "" if scale == 1 else f", guidance {scale:g}"
        return f"{type(recipe.stepper).__name__}, {self.steps(recipe)} steps{guidance}"

    @property
    def variance(self) -> Variance:
        """Of the reverse steps in the variational bound: learned where it is, else β."""
        return "learned" if self.denoiser.learned_variance else "beta"

    @torch.no_grad()
    def variational_bound(
        self, batch: Mapping[str, Any], noise: Noise, steps: int | None = None
    ) -> Bound:
        """The bound on −ln p of the pictures of a batch with "image", over all levels or some.

        Raises:
            ValueError: fewer than two steps, or more than the process has; the signal is a latent.
        """
        condition = self.condition(batch, torch.ones_like(noise.ids, dtype=torch.bool))
        levels, x0 = self.schedule.grid(steps), self.codec.encode(batch["image"], noise)
        diffusion_model(self, "a likelihood of pictures", of_pixels=True)
        return bound(self.under(condition), levels, x0, noise, self.variance)

    def under(self, condition: Condition | None) -> Denoise:
        """The denoiser under one condition, as samplers want it."""
        return lambda x_t, level: self.denoiser(x_t, level, condition)

    def condition(self, batch: Mapping[str, Any] | None, keep: Tensor) -> Condition | None:
        """What the conditioner makes of a batch; null where ``keep`` (B,) bool is False.

        A spatial condition has f × f pixels at each place of a latent: these become channels.

        Raises:
            ValueError: the batch lacks something, or is not of B samples.
        """
        if self.conditioner is None:
            return None
        keys = self.conditioner.reads
        if batch is None:
            raise ValueError(f"the model is conditional: give it a batch with {' and '.join(keys)}")
        for key in (*keys, *({"negative"} & batch.keys())):
            if len(read(batch, key)) != len(keep):
                raise ValueError(f"{len(batch[key])} of {key!r} are given for {len(keep)} pictures")
        condition: Condition = self.conditioner(batch, keep)
        if condition.spatial is None:
            return condition
        places = F.pixel_unshuffle(condition.spatial, self.codec.factor)  # of a latent
        return condition._replace(spatial=places)

    def guided(
        self,
        batch: Mapping[str, Any] | None,
        n: int,
        guidance: Guidance,
        weak: "DiffusionModel | None" = None,
        classifier: Classifier | None = None,
    ) -> Denoise:
        """The denoiser of n pictures under their conditions, guided.

        Classifier-free where neither of the last two is given: away from the null condition, or
        from ``batch["negative"]`` captions, both branches in one call of the network.

        Args:
            batch: what the conditioner reads, n samples.
            n: number of pictures.
            guidance: how much.
            weak: a worse model to be guided away from, of the same schedule (autoguidance).
            classifier: to be guided by towards ``batch["label"]``; here scale 0 is off.

        Raises:
            ValueError: there is nothing to guide by, or too much; the weak model has another shape
                or schedule; the batch lacks something, or has negative captions that nothing reads.
        """
        if batch is not None and "negative" in batch:
            guidance.check_negative(weak is not None or classifier is not None)
        kept = torch.ones(n, dtype=torch.bool, device=self.device)
        condition = self.condition(batch, kept)
        strong = self.under(condition)
        if weak is not None and classifier is not None:
            raise ValueError("guidance is by a weak model or by a classifier, not by both")
        if classifier is None:
            if weak is None:
                self.check_guidance(guidance.scale)
                if condition is None:
                    return strong
            pair = self._pair(batch, condition, kept, weak)
            return extrapolated(strong, pair, guidance)
        diffusion_model(self, "guidance by a classifier of pictures", of_pixels=True)
        if batch is None or "label" not in batch:
            raise ValueError("a classifier guides towards labels: give a batch with 'label'")
        if guidance.rescale:
            raise ValueError("rescale is not for guidance by a classifier: leave it at 0")
        towards = partial(classifier.log_probability, labels=batch["label"])
        return classifier_guided(strong, towards, guidance)

    def _pair(
        self,
        batch: Mapping[str, Any] | None,
        condition: Condition | None,
        kept: Tensor,
        weak: "DiffusionModel | None",
    ) -> Pair:
        """The stronger and the weaker branch."""
        if weak is not None:
            check_weak(weak, self)
            strong, worse = self.under(condition), weak.under(weak.condition(batch, kept))
            return lambda x_t, level: (strong(x_t, level), worse(x_t, level))
        null, n = self.condition(batch, ~kept), len(kept)
        assert condition is not None
        assert null is not None
        both = self.under(condition.joined(null))

        def pair(x_t: Tensor, level: NoiseLevel) -> tuple[Denoised, Denoised]:
            together = both(torch.cat((x_t, x_t)), level)
            return together.rows(slice(None, n)), together.rows(slice(n, None))

        return pair


def diffusion_model(model: GenerativeModel, what: str, of_pixels: bool = False) -> DiffusionModel:
    """The model, if it is one of diffusion, and of pixels where only that will do for ``what``.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, DiffusionModel):
        raise ValueError(f"{what} takes a diffusion model, not {a(model)}")
    if of_pixels and not model.codec.is_pixels:
        raise ValueError(f"{what} takes a model of pixels, not of latents")
    return model


def check_weak(weak: DiffusionModel, model: DiffusionModel) -> None:
    """Whether one model can guide another.

    Raises:
        ValueError: they do not see the same pictures, as the same signal, on the same path.
    """
    weak = diffusion_model(weak, "guidance by a weak model")
    if weak.shape != model.shape:
        raise ValueError(f"the weak model draws pictures {weak.shape}, but the model {model.shape}")
    if not same_signal(weak.codec, model.codec):
        raise ValueError("the weak model works on another signal than the model")
    if not same_path(weak.schedule, model.schedule):
        raise ValueError("the weak model was trained with another schedule than the model")

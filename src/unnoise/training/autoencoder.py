"""How an autoencoder is trained and validated."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unnoise.data.source import Batch
from unnoise.diffusion.noise import Noise
from unnoise.evaluation.perceptual import PerceptualDistance, own_extractor
from unnoise.models.autoencoder import AutoencoderModel, adaptive_weight, hinge
from unnoise.networks.autoencoders import Codebook, ConvolutionalAutoencoder, Transform
from unnoise.training.module import GenerativeModule


class Scale(nn.Module):
    """s of the likelihood's scale exp(s), which is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(()))


class Errors(NamedTuple):
    """Of each reconstruction: mean |x − x̂| of its numbers, and how far apart both look; (B,)."""

    absolute: Tensor
    perceptual: Tensor


class AutoencoderModule(GenerativeModule):
    """Trains an autoencoder by the loss of VQGAN and latent diffusion; the average is its own.

    With the error e = mean |x − x̂| + ``perceptual``·d(x, x̂) of a picture of n numbers, its loss is
    n·(e/exp(s) + s) + the latent's penalty, s learned. From step ``discriminator_start`` on
    ``discriminator_weight``·λ·(−D(x̂)) is added, λ the ``adaptive_weight`` of the step, and D learns
    by the hinge loss; until then it rests as it was made. As for a GAN one optimizer holds both,
    and the one loss has for each network the gradient of its own.

    With probability ``equivariance`` a step decodes smaller and turned latents of its pictures, and
    compares with these as small and turned (see ``Transform``); n is then theirs.

    What is logged as train/loss and validation/loss is e. A codebook learns from all latents of a
    step, before the average is taken.
    """

    def __init__(self, recipe: Any, config: dict[str, Any], rollbacks: int = 0) -> None:
        model, scale = AutoencoderModel.of(vars(recipe), recipe.data.shape), Scale()
        networks = [each for each in (scale, recipe.discriminator) if each is not None]
        super().__init__(model, recipe, config, rollbacks, helpers=tuple(networks))
        self.scale, self.discriminator = scale, recipe.discriminator
        self.start, self.weight = recipe.discriminator_start, recipe.discriminator_weight
        self.perceptual, self.equivariance = recipe.perceptual, recipe.equivariance
        self.distance: PerceptualDistance | None = None
        if self.perceptual:
            self.distance = PerceptualDistance(own_extractor(recipe.extractor, recipe.data))
        self._learned: list[tuple[Tensor, Tensor]] = []  # of the step's micro-batches

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator has begun."""
        return self.discriminator is not None and self.global_step >= self.start

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss; of each sample the error."""
        noise = self.training_noise(batch, batch_idx)
        x = self.model.codec.encode(batch["image"])
        latent = self.model.autoencoder.latent(x, noise)
        z, x = self._transform().of(latent.z, x)
        y = self.model.autoencoder.decode(z)
        errors = self._errors(x, y.float())
        error = errors.absolute + self.perceptual * errors.perceptual
        nll = x[0].numel() * (error / self.scale.log.exp() + self.scale.log)
        loss = nll + latent.penalty
        self.of_step = {"scale": self.scale.log.exp().detach()}
        if self.adversarial:
            loss = loss + self._adversarial_loss(x, y.float(), nll)
        elif self.discriminator is not None:  # processes exchange the gradients of all weights
            loss = loss + 0 * sum(p.sum() for p in self.discriminator.parameters())
        if (book := codebook(self.model.autoencoder)) is not None:
            position = (batch["position"] % 2**24).to(x)  # exact; only their order matters
            candidates = torch.cat((position[:, None], book.candidates(latent, noise)), 1)
            self._learned.append((book.statistics(latent), candidates))
        mean = self.recorded(loss.mean(), error.mean())
        return {"loss": mean, "per_sample": error.detach()}

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Clip, and with a step that is taken teach the codebook; D rests until it begins."""
        super().configure_gradient_clipping(*args, **kwargs)
        if self.discriminator is not None and not self.adversarial:
            for parameter in self.discriminator.parameters():
                parameter.grad = None
        book = codebook(self.model.autoencoder)
        if book is not None and not self.skipped:
            statistics, candidates = (list(each) for each in zip(*self._learned, strict=True))
            total = self.trainer.strategy.reduce(sum(statistics), reduce_op="sum")
            gathered = self.trainer.strategy.all_gather(torch.cat(candidates))
            rows = gathered.reshape(-1, gathered.shape[-1])
            book.learn(total, rows[rows[:, 0].argsort(stable=True), 1:])  # in the stream's order
        self._learned.clear()

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        book = getattr(self.model.autoencoder, "quantizer", None)
        self._sums = torch.zeros(4, device=self.device, dtype=torch.float32)
        self._used = None if book is None else torch.zeros(book.size, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The averaged model's reconstructions, from latents that are not drawn."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        x = self.model.codec.encode(batch["image"])
        y, latent = self.ema.model.autoencoder(x)
        errors = self._errors(x, y.float())
        nats = torch.zeros_like(errors.absolute) if latent.kl is None else latent.kl
        rows = torch.stack((*errors, nats, torch.ones_like(nats)))
        self._sums += rows.sum(1)
        if self._used is not None:
            self._used += latent.codes.flatten().bincount(minlength=len(self._used))

    def on_validation_epoch_end(self) -> None:
        """Means over all processes, and how many codes are used how evenly."""
        reduced = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        *means, count = reduced
        absolute, perceptual, nats = (mean / count for mean in means)
        found = {"loss": absolute + self.perceptual * perceptual}
        if self.perceptual:
            found |= {"absolute": absolute, "perceptual": perceptual}
        if self._used is None:
            found["kl_bits"] = nats / math.log(2)
        else:
            used = self.trainer.strategy.reduce(self._used, reduce_op="sum")
            share = used / used.sum()
            found["code_usage"] = (used > 0).float().mean()
            found["perplexity"] = torch.special.entr(share).sum().exp()
        named = {f"validation/{name}": value for name, value in found.items()}
        self.log_dict(named, logger=False, sync_dist=True)  # equal on all ranks already

    def _transform(self) -> Transform:
        """That of the step: the same for all its pictures, on all ranks."""
        step = torch.tensor([self.global_step])
        return Transform.drawn(Noise(self._noise_seed, step), self.equivariance)

    def _errors(self, x: Tensor, y: Tensor) -> Errors:
        absolute = (x - y).abs().flatten(1).mean(1)
        apart = torch.zeros_like(absolute) if self.distance is None else self.distance(x, y)
        return Errors(absolute, apart)

    def _adversarial_loss(self, x: Tensor, y: Tensor, nll: Tensor) -> Tensor:
        """Of each picture: the autoencoder's loss by D, weighted, and that of D; (B,)."""
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        of_made = torch.func.functional_call(self.discriminator, weights, (y,))
        by_score = -of_made.float().flatten(1).mean(1)
        last = self.model.autoencoder.decoder.conv_out.weight
        gradients = torch.stack([
            torch.autograd.grad(each.mean(), last, retain_graph=True)[0] for each in (nll, by_score)
        ])  # fmt: skip
        weight = adaptive_weight(*self.trainer.strategy.reduce(gradients, reduce_op="mean"))
        apart = hinge(self.discriminator(x).float(), self.discriminator(y.detach()).float())
        self.of_step |= {"adversarial_weight": weight, "discriminator_loss": apart.mean().detach()}
        loss: Tensor = self.weight * weight * by_score + apart
        return loss


def codebook(autoencoder: ConvolutionalAutoencoder) -> Codebook | None:
    """Its codebook, if it has one that learns."""
    quantizer = getattr(autoencoder, "quantizer", None)
    return quantizer if isinstance(quantizer, Codebook) else None

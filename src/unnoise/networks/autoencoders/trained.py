"""The autoencoder of a run, as a part of another run."""

from typing import Annotated

from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.base import Autoencoder
from unnoise.networks.autoencoders.convolutional import ConvolutionalAutoencoder
from unnoise.runs.averaged import weights_digest
from unnoise.runs.first_stage import first_stage
from unnoise.runs.identity import Role


class Trained(Autoencoder):
    """An autoencoder with the averaged weights of ``run``.

    It is built without them: ``fetch`` loads them at the start of a run, whose own checkpoints hold
    them ever after. ``digest`` says which they are, so that no others will do.

    Args:
        network: what the run trained.
        digest: of its weights and, behind a dash, of its config.
        run: its directory, or a checkpoint.
    """

    def __init__(
        self, network: ConvolutionalAutoencoder, digest: str, run: Annotated[str, Role.MACHINE]
    ) -> None:
        super().__init__()
        self.network, self.digest, self.run = network, digest, run
        self.bounded = network.bounded

    @property
    def scaled(self) -> bool:  # type: ignore[override]
        """Whether the network's are."""
        return self.network.scaled

    def fetch(self) -> None:
        """Take the weights of the run; ValueError if they do not fit, or are not of ``digest``."""
        try:
            self.network.load_state_dict(first_stage(self.run).weights)
        except RuntimeError as error:
            raise ValueError(f"{self.run} does not fit its own config: {error}") from error
        self.check()

    def check(self) -> None:
        """ValueError unless the weights are those of ``digest``."""
        found = weights_digest(self.network.state_dict())
        if found != self.digest.partition("-")[0]:
            raise ValueError(
                f"the autoencoder's weights ({found}) are not those that the latents were made "
                f"with ({self.digest})"
            )

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The network's."""
        return self.network.latent_shape(shape)

    def moments(self, x: Tensor) -> Tensor:
        """The network's."""
        return self.network.moments(x)

    def drawn(self, moments: Tensor, noise: Noise | None = None) -> Tensor:
        """The network's."""
        return self.network.drawn(moments, noise)

    def spread(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """The network's."""
        return self.network.spread(moments)

    def decode(self, z: Tensor) -> Tensor:
        """The network's."""
        return self.network.decode(z)

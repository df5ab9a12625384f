"""A classifier of pictures at every noise level: it guides sampling and rates what was drawn.

>>> model = NoisyClassifier.load("outputs/classifiers/fashion_mnist_label_1a2b3c4d/classifier.pt")
>>> model.predict(pictures.pixels)
"""

import math
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.nodes import MODEL, instantiate
from unnoise.config.problems import ConfigError
from unnoise.data.pixels import to_signal
from unnoise.data.source import Images
from unnoise.data.stream import split_loader, training_loader
from unnoise.diffusion.levels import CLEAN, NoiseLevel, diffuse, match
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.files import write_durably
from unnoise.untrusted import UnsafeFile, check_fit, load_tensors

FOLDER = Path("outputs") / "classifiers"
"""Where unnoise-classifier writes."""
LOG_SNRS = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0)  # that accuracy is measured at, besides clean
CLEAN_SHARE = 0.5  # of a training batch, which has no noise


class NoisyClassifier(nn.Module):
    """p(y | x_t) of pictures at any level of any schedule (Dhariwal & Nichol 2021, §4.1).

    The network sees x_t/√(alpha² + sigma²) and, as its time, the angle 1000·(2/π)·atan(sigma/alpha)
    (Salimans & Ho 2022, appendix D): 0 for a clean picture, 1000 for noise. These say the same
    whatever the schedule, so that a classifier serves models of all of them.

    Args:
        network: (B, C, H, W) and times (B,) to logits (B, K).
        names: of the K classes.
        target: what the classes are of: "label", or an attribute such as "kind".
        about: plain values that are saved with it: config, fingerprint of the data, accuracy.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        target: str = "label",
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.names, self.target = network, tuple(names), target
        self.about = about or {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def logits(self, x_t: Tensor, level: NoiseLevel) -> Tensor:
        """(B, K) of pictures (B, C, H, W), each at its own level or all at one."""
        scale = (level.alpha**2 + level.sigma**2).rsqrt()
        angle = torch.atan2(level.sigma, level.alpha) * (2000 / math.pi)
        out: Tensor = self.network(x_t * match(scale, x_t), angle.to(x_t))
        return out.float()

    def log_probability(self, x_t: Tensor, level: NoiseLevel, labels: Tensor) -> Tensor:
        """ln p(y | x_t) of each picture's own label (B,): (B,)."""
        labels = labels.clone()  # differentiable where they stem from inference mode
        return self.logits(x_t, level).log_softmax(1).gather(1, labels[:, None])[:, 0]

    def loss(self, image: Tensor, labels: Tensor, schedule: NoiseSchedule, noise: Noise) -> Tensor:
        """Mean cross-entropy on pictures uint8, half clean, the others at training times."""
        x0 = to_signal(image)
        level = schedule.level(schedule.sample_times(noise.uniform("time")))
        clean = noise.uniform("clean") < CLEAN_SHARE
        alpha, sigma = level.alpha.masked_fill(clean, 1), level.sigma.masked_fill(clean, 0)
        level = NoiseLevel(level.t, alpha, sigma)
        x_t = diffuse(x0, noise.normal("eps", x0.shape[1:]), level)
        return F.cross_entropy(self.logits(x_t, level), labels)

    @torch.inference_mode()
    def predict(
        self, image: Tensor, level: NoiseLevel = CLEAN, seed: int = 0, batch_size: int = 256
    ) -> Tensor:
        """The likeliest class (N,) of pictures uint8 (N, C, H, W), noise of ``level`` added."""
        found = []
        for start in range(0, len(image), batch_size):
            x0 = to_signal(image[start : start + batch_size].to(self.device))
            ids = torch.arange(start, start + len(x0), device=self.device)
            x_t = diffuse(x0, Noise(seed, ids).normal("eps", x0.shape[1:]), level)
            found.append(self.logits(x_t, level).argmax(1).cpu())
        return torch.cat(found)

    def save(self, path: Path) -> None:
        """Write to a temporary file, then rename: what stands at ``path`` is always whole."""
        content = {
            "classifier": {"names": list(self.names), "target": self.target, "about": self.about},
            "state_dict": self.state_dict(),
        }

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:  # torch hides the errors of files that it opens
                torch.save(content, file)

        write_durably(path, write)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "NoisyClassifier":
        """Read what ``save`` wrote; nothing that the file brings is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no classifier of unnoise.
        """
        content = load_tensors(path)
        try:
            what, state = content["classifier"], content["state_dict"]

            def build() -> NoisyClassifier:
                network = instantiate(what["about"]["network"], MODEL)
                return cls(network, what["names"], what["target"], what["about"])

            check_fit(Path(path), build, state)
            classifier = build()
            classifier.load_state_dict(state)
        except UnsafeFile:
            raise
        except (
            *(RuntimeError, KeyError, TypeError, AttributeError, ValueError),
            ConfigError,
        ) as error:
            raise UnsafeFile(path, f"is not a whole classifier of unnoise: {error}") from error
        return classifier.eval().requires_grad_(False).to(device)


def train(
    classifier: NoisyClassifier,
    images: Images,
    schedule: NoiseSchedule,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int = 0,
    bf16: bool = False,
    watch: Callable[[float], object] = lambda loss: None,
) -> None:
    """AdamW with the learning rate falling to 0 as a cosine.

    Batches and their noise are a function of data and seed. Dropout, where the network has any,
    follows torch's own generator. ``watch`` gets each step's loss. The classifier is left ready to
    be used.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    device = classifier.device
    classifier.train()
    for batch in islice(training_loader(images, batch_size=batch_size, seed=seed), steps):
        image, labels, ids = (batch[key].to(device) for key in ("image", "label", "position"))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = classifier.loss(image, labels, schedule, Noise(seed, ids))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        decay.step()
        watch(loss.item())
    classifier.eval().requires_grad_(False)


def accuracy(classifier: NoisyClassifier, images: Images, level: NoiseLevel = CLEAN) -> float:
    """The share of pictures whose class it finds when they are at ``level``."""
    right = sum(
        int((classifier.predict(batch["image"], level, seed=number) == batch["label"]).sum())
        for number, batch in enumerate(split_loader(images, batch_size=256))
    )
    return right / len(images)


def by_noise_level(
    classifier: NoisyClassifier, real: dict[str, Images]
) -> list[dict[str, float | str | None]]:
    """The accuracy on each set of real pictures, clean and then at each level of LOG_SNRS."""
    rows: list[dict[str, float | str | None]] = []
    for log_snr in (None, *LOG_SNRS):
        level = CLEAN if log_snr is None else _at(log_snr)
        noise = float(level.sigma / level.alpha)
        shares = {name: accuracy(classifier, images, level) for name, images in real.items()}
        rows.append({"log_snr": log_snr, "sigma/alpha": noise, **shares})
    return rows


def _at(log_snr: float) -> NoiseLevel:
    """The variance-preserving level of this ln SNR."""
    value = torch.tensor(log_snr, dtype=torch.float64)
    return NoiseLevel(torch.tensor(0.0), value.sigmoid().sqrt(), (-value).sigmoid().sqrt())


def classifier_file(path: str) -> Path:
    """The file of a classifier: itself, or that in a folder of unnoise-classifier."""
    return Path(path) / "classifier.pt" if Path(path).is_dir() else Path(path)


def classifier_fault(path: str) -> str | None:
    """Whether the file of a classifier is there."""
    file = classifier_file(path)
    return None if file.is_file() else f"there is no file {file}"

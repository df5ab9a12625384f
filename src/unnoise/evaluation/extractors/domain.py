"""Small extractors of a data set's own: a classifier of its clean pictures, without the noise.

Inception was trained on photographs of 299 × 299 pixels and sees little of digits, garments and
pixel art; a network that has learned to tell these apart does. Three of them come along, the others
are trained once from their data.

Shapes: B pictures, C channels, h × w pixels that the network reads (``size``), K classes.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save as serialized
from torch import Tensor, nn
from tqdm import tqdm

from unnoise.data.size import ImageSize, sides
from unnoise.evaluation.extractors.base import Extractor, Features, Manifold, in_channels, read
from unnoise.files import file_digest, write_durably
from unnoise.untrusted import UnsafeFile, check_fit, load_safetensors

SHIPPED = {
    "garments": "44bc137af8b80cacf98594661608fd67481d8848af1d9482ea7f9ed47888f8ca",
    "sprites": "3dcedd0deb63bbd9cac3324a98d1045cf57bc9e0b046ae3d0e34f83c80d9bd9b",
    "scenes": "bfef2fb3d763a6880ac5173d28e3e5ba0cf224665ded06196988b20e383112d6",
}
"""SHA-256 of the files of weights that come along, by the extractor's name."""

WEIGHTS = Path(__file__).parent / "weights"
WIDTH = 64  # pooled features
MIDDLE = 8  # channels of the middle layer that are kept with their places
LR = 5e-3  # the largest of training
LARGEST = 1024  # pixels that a network may say it reads


class DomainNetwork(nn.Module):
    """Pictures (B, C, h, w) in [−1, 1] to their features and the logits of K classes.

    Five convolutions, the first and third of stride 2, each with batch normalisation and ReLU. The
    middle layer is the third's output: its first 8 channels at h/4 × w/4 places are the spatial
    features. The means of the fifth's 64 channels over the picture are the pooled ones.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(
            *_layer(channels, 32, 5, 2), *_layer(32, 32, 3, 1), *_layer(32, WIDTH, 3, 2)
        )
        self.deep = nn.Sequential(*_layer(WIDTH, WIDTH, 3, 1), *_layer(WIDTH, WIDTH, 3, 1))
        self.classify = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Features:
        """Features of a batch."""
        middle = self.shallow(x)
        pooled = self.deep(middle).mean((2, 3))
        return Features(pooled, middle[:, :MIDDLE].flatten(1), self.classify(pooled))


def _layer(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class Learned(NamedTuple):
    """What an extractor was trained on and how, and how well it does.

    ``data`` is the fingerprint of the training pictures, ``accuracy`` the share of real held-out
    pictures whose class it finds, or of the classes of a picture where there are several.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    size: ImageSize
    data: str
    seed: int
    steps: int
    accuracy: float | None = None


class DomainExtractor(Extractor):
    """Features by a classifier of one data set's pictures.

    Pictures of another size become h × w: where theirs is a whole multiple (pixel art with each
    pixel made a square), every pixel is the mean of its square, else by antialiased bilinear
    interpolation. For colours see ``read``. ``digest`` is empty as long as there is no file.

    Neighbours are sought by the spatial features: the pooled ones of a classifier collapse to a
    point a class, and hardly tell a picture from halves of two. They are sought among 1000: in
    pixel art, of ten thousand each has twins that differ by a tint, and nothing drawn is as near.
    """

    manifold = Manifold("spatial", 1000)

    def __init__(self, network: DomainNetwork, learned: Learned, digest: str = "") -> None:
        super().__init__()
        self.network, self.learned, self.digest = network, learned, digest
        self.name = learned.name
        self.resize = f"squares' means or antialiased bilinear to {learned.size}"
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Features:
        """As the base's: pooled (B, 64), spatial (B, 8·h/4·w/4)."""
        with torch.autocast(pictures.device.type, enabled=False):
            features: Features = self.network(self.seen(pictures))
        return features

    def seen(self, pictures: Tensor) -> Tensor:
        """What the network sees of pictures (B, 1 or 3, H, W) uint8: (B, C, h, w)."""
        return self._resized(read(pictures, self.learned.channels)) / 127.5 - 1

    def seen_of(self, signal: Tensor) -> Tensor:
        """The same of pictures in [−1, 1], differentiable."""
        return self._resized(in_channels(signal, self.learned.channels))

    def _resized(self, x: Tensor) -> Tensor:
        h, w = size = sides(self.learned.size)
        H, W = x.shape[2:]
        if H % h == 0 and W % w == 0 and H // h == W // w:
            return F.avg_pool2d(x, H // h)
        return F.interpolate(x, size, mode="bilinear", antialias=True)

    def save(self, path: Path) -> str:
        """Write 16-bit weights and what was learned as one safetensors file; its digest."""
        weights = {
            key: value.half() if value.is_floating_point() else value
            for key, value in self.network.state_dict().items()
        }
        said = {"unnoise extractor": json.dumps(self.learned._asdict(), sort_keys=True)}
        content = serialized(weights, said)
        write_durably(path, lambda temporary: temporary.write_bytes(content))
        self.digest = file_digest(path)
        return self.digest

    @classmethod
    def load(cls, path: Path) -> "DomainExtractor":
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no extractor of unnoise.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no extractor {path}")
        weights, about = load_safetensors(path)
        try:
            said = json.loads(about["unnoise extractor"])
            size = said["size"] if isinstance(said["size"], int) else tuple(said["size"])
            learned = Learned(**{**said, "classes": tuple(said["classes"]), "size": size})
            if not all(1 <= side <= LARGEST for side in sides(learned.size)):
                raise ValueError(f"it reads {learned.size} pixels; {LARGEST} are the most")

            def build() -> DomainNetwork:
                return DomainNetwork(learned.channels, len(learned.classes))

            check_fit(path, build, weights)
            network = build()
            network.load_state_dict(weights)
        except UnsafeFile:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UnsafeFile(path, f"is no whole extractor of unnoise: {error}") from error
        return cls(network, learned, file_digest(path))


def shipped(name: str) -> DomainExtractor:
    """The extractor of this name that comes along.

    Raises:
        ValueError: its file is not the one that belongs to this version.
    """
    digest = SHIPPED[name]
    path = WEIGHTS / f"{name}_{digest[:8]}.safetensors"
    if not path.is_file() or (found := file_digest(path)) != digest:
        wrong = f"has the SHA-256 {found}, not {digest}" if path.is_file() else "is not there"
        raise ValueError(f"{path} {wrong}: install unnoise anew")
    return DomainExtractor.load(path)


def fit(learned: Learned, batches: Iterable[tuple[Tensor, Tensor]]) -> DomainExtractor:
    """Train a classifier on batches of pictures uint8 and labels: cross-entropy, AdamW, one cycle.

    A picture of several classes has shares (K,) for a label, which its probabilities are to be.

    All pictures of a batch are shifted alike by up to 1/16 of their shorter side, the edge
    repeated. The result is a function of the seed and the batches: it is computed in float32 on the
    CPU by one thread, whatever number there is.
    """
    with torch.random.fork_rng(devices=[]), ExitStack() as after:
        after.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        torch.manual_seed(learned.seed)
        extractor = DomainExtractor(DomainNetwork(learned.channels, len(learned.classes)), learned)
        network = extractor.network.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), LR)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, learned.steps)
        taken = islice(batches, learned.steps)
        for pictures, labels in tqdm(taken, learned.name, learned.steps, leave=False, disable=None):
            x = _shifted(extractor.seen(pictures), min(sides(learned.size)) // 16)
            loss = F.cross_entropy(network(x).logits, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            cycle.step()
    network.half().float()  # what a file of 16-bit weights holds
    extractor.eval().requires_grad_(False)
    return extractor


def _shifted(x: Tensor, most: int) -> Tensor:
    top, left = torch.randint(2 * most + 1, (2,)).tolist()
    padded = F.pad(x, (most,) * 4, mode="replicate")
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]

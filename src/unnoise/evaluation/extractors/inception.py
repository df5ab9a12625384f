"""The Inception network that FID, KID and the Inception score are defined by.

torch-fidelity is imported where it is needed, since it takes seconds.
"""

import io
import pickle
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.evaluation.extractors.base import Extractor, Features, read
from unnoise.files import file_digest
from unnoise.untrusted import load_tensors

Resize = Literal["original", "antialias"]

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 299
MIDDLE = 7  # channels of the middle layer that are kept with their places
RESIZES = {"original": "TensorFlow 1's bilinear to 299", "antialias": "antialiased bilinear to 299"}


class InceptionExtractor(Extractor):
    """Inception V3 as of 2015-12-05, in torch-fidelity's port.

    ``pooled`` (B, 2048) are those of pool_3 (Heusel et al. 2017); ``logits`` (B, 1008) are without
    the bias of the last layer, as the Inception score of Salimans et al. (2016) has them in
    practice; ``spatial`` (B, 2023) are the first 7 channels of the layer mixed_6/conv at its
    17 × 17 places (Nash et al. 2021). By torch-fidelity's table of names mixed_6 is Mixed_6d, and
    mixed_6/conv its branch of one 1 × 1 convolution with normalisation and ReLU.

    ``resize="original"`` is the bilinear interpolation of TensorFlow 1, which does not look at the
    pixels between when it shrinks a picture: that of the numbers in most papers. "antialias" is
    right as a picture goes (Parmar, Zhang & Zhu 2022), and gives other numbers. Grey is repeated.

    Args:
        weights: a file of torch-fidelity's state dict. Nothing that it brings is executed.
        resize: how pictures become 299 × 299.

    Raises:
        ValueError: the file does not hold the weights of this network.
    """

    name = "inception"

    def __init__(self, weights: Path, resize: Resize = "original") -> None:
        super().__init__()
        network = _network(weights)
        self.digest, self.resize = file_digest(weights), RESIZES[resize]
        self.interpolate = _original if resize == "original" else _antialiased
        layers = dict(network.named_children())  # in the order in which a picture passes them
        names = [name for name in layers if name != "fc"]
        middle = names.index("Mixed_6d")
        self.lower = nn.Sequential(*(layers[name] for name in names[:middle]))
        self.upper = nn.Sequential(*(layers[name] for name in names[middle:]))
        self.places = network.get_submodule("Mixed_6d.branch1x1")
        self.register_buffer("classes", network.get_parameter("fc.weight").detach())
        self.classes: Tensor
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Features:
        """As the base's."""
        with torch.autocast(pictures.device.type, enabled=False):
            x = self.interpolate(read(pictures, channels=3))
            middle = self.lower((x - 128) / 128)
            pooled = self.upper(middle).flatten(1)
            spatial = self.places(middle)[:, :MIDDLE].flatten(1)
            return Features(pooled, spatial, pooled @ self.classes.T)


def _network(weights: Path) -> nn.Module:
    """The network with its weights, which torch-fidelity itself would read as any pickle."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # type: ignore[import-untyped]

    try:
        if file_digest(weights) == SHA256:  # published as a plain pickle
            state = torch.load(weights, map_location="cpu", weights_only=True)
        else:
            state = load_tensors(weights)
        plain = io.BytesIO()
        torch.save(state, plain)
        plain.seek(0)
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=plain
        )
    except FileNotFoundError as error:
        raise ValueError(f"there is no file of weights {weights}") from error
    except (
        *(OSError, EOFError, RuntimeError, AttributeError, TypeError, KeyError, ValueError),
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"{weights} does not hold the weights of Inception, as {FILE} does: {error}"
        ) from error
    return network


def _original(x: Tensor) -> Tensor:
    from torch_fidelity import interpolate_compat_tensorflow as compat  # type: ignore[import-untyped]

    resize = compat.interpolate_bilinear_2d_like_tensorflow1x
    resized: Tensor = resize(x, (SIZE, SIZE), align_corners=False)
    return resized


def _antialiased(x: Tensor) -> Tensor:
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)

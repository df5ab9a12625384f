"""Pictures as the extractors' networks take them."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)


def read(pictures: Tensor, channels: int) -> Tensor:
    """Pictures (B, 1 or 3, H, W) uint8 as floats (B, channels, H, W) in [0, 255].

    Grey is repeated; of colour one channel is the luma, 0.299 R + 0.587 G + 0.114 B.

    Raises:
        ValueError: the pictures are not uint8, or have neither 1 nor 3 channels.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise ValueError(
            "an extractor reads pictures (B, 1 or 3, H, W) uint8, "
            f"not {tuple(pictures.shape)} {pictures.dtype}"
        )
    x = pictures.float()
    if x.shape[1] > channels:
        return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return x.expand(-1, channels, -1, -1)

"""What the three systems' processes share: the command line, the pictures, the results."""

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from budget import Budget
from torch import Tensor, nn

from unnoise.data.classics import FashionMNIST
from unnoise.distributed.devices import lightning_precision

SIZE = 32  # the 28×28 pictures with a border of two pixels, so that every U-Net can halve them
DDIM_STEPS = 50
WARMUP = 100  # steps, where settings are tuned
AT_ONCE = 50  # pictures drawn in a batch
BF16 = lightning_precision("auto", "cpu") == "bf16-mixed"  # where the processor is fast at it


def arguments() -> argparse.Namespace:
    """Of a system's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True, help="of training")
    parser.add_argument("--n", type=int, required=True, help="pictures to draw")
    parser.add_argument("--out", type=Path, required=True, help="folder for what it leaves")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--shared", action="store_true", help="processor time instead of a clock's")
    parser.add_argument("--tuned", action="store_true", help="a peer by TUNED, not as documented")
    parser.add_argument("--lr", type=float, help="of a tuned peer, instead of that of TUNED")
    parser.add_argument("--batch", type=int, help="of a tuned peer, instead of that of TUNED")
    parser.add_argument("--prediction", help="of a tuned peer, instead of that of TUNED")
    parser.add_argument("overrides", nargs="*", help="of our config")
    given = parser.parse_args()
    torch.manual_seed(0)
    return given


def budget(given: argparse.Namespace) -> Budget:
    """By the clock on the wall; or, on a shared machine, by the processor time of one thread."""
    return Budget(given.seconds, process_time if given.shared else perf_counter)


def source(root: str) -> FashionMNIST:
    """The pictures as all three systems see them."""
    return FashionMNIST(root, image_size=SIZE)


def batches(root: str, batch_size: int) -> Iterator[Tensor]:
    """The peers' data: shuffled epochs without end, float (B, 1, 32, 32) in [0, 1], in memory."""
    images = source(root).images("train")
    pixels = images.read(torch.arange(len(images)))
    while True:
        for rows in torch.randperm(len(pixels)).split(batch_size):
            if len(rows) == batch_size:
                yield pixels[rows].float() / 255


def finish(
    out: Path,
    spent: Budget,
    network: nn.Module,
    images_a_step: int,
    packages: tuple[str, ...],
    settings: dict[str, Any],
    draw: Callable[[int, int], Tensor],
    n: int,
) -> None:
    """Draw ``n`` pictures and write them, N × 28 × 28 × 1, beside what was done.

    ``draw(first, count)`` gives uint8 (count, 1, 32, 32).
    """
    start = perf_counter()
    drawn = [draw(first, min(AT_ONCE, n - first)) for first in range(0, n, AT_ONCE)]
    drawing = perf_counter() - start
    border = (SIZE - 28) // 2
    pixels = torch.cat(drawn)[..., border:-border, border:-border].permute(0, 2, 3, 1)
    np.savez_compressed(out / "images.npz", pixels.contiguous().numpy())
    about = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": spent.steps,
        "images": spent.steps * images_a_step,
        "seconds": spent.used,
        "images_per_second": spent.steps * images_a_step / spent.used,
        "drawing_seconds_a_picture": drawing / n,
        "settings": settings | {"precision": "bf16 autocast" if BF16 else "fp32"},
        "versions": {name: version(name) for name in packages},
    }
    (out / "about.json").write_text(json.dumps(about, indent=2) + "\n")

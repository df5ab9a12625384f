"""Training speed of our U-Net beside diffusers' UNet2DModel: same architecture, same weights.

Both train in one process, step about step (A B A B …), so that whatever else the machine does
meets both alike. The ratio is the median over the pairs of neighbouring steps. After each pair
comes a large convolution, whose speed stands for what the machine can do: our step's share of it
counts the floating-point operations of all convolutions, linear layers and attention.

    python tests/benchmarks/unet_speed.py [--cifar] [--out outputs/bench/unet_speed.json]
"""

import argparse
import json
import sys
from collections.abc import Callable
from os import environ
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unnoise.distributed.devices import lightning_precision
from unnoise.distributed.memory import keep_memory

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "networks"))
from diffusers_unet import same_networks


class Case(NamedTuple):
    network: dict[str, Any]
    batch: int
    seconds: float  # to spend on each precision


LAPTOP = {
    "shape": (3, 16, 16),
    "outputs": 3,
    "channels": 32,
    "multipliers": (1, 2, 2),
    "attention_resolutions": (8,),
    "head_size": 32,
    "norm_groups": 8,
}
GREY = LAPTOP | {
    "shape": (1, 32, 32),
    "outputs": 1,
    "attention_resolutions": (16,),
}
CIFAR = {"shape": (3, 32, 32), "outputs": 3}
CASES = {
    "laptop 16x16x3": Case(LAPTOP, 64, 20.0),
    "laptop 16x16x3, batch 128": Case(LAPTOP, 128, 20.0),
    "grey 32x32x1": Case(GREY, 64, 40.0),
}
MOST_PAIRS = 100


def training_step(
    forward: Callable[[Tensor, Tensor], Tensor],
    network: nn.Module,
    x: Tensor,
    t: Tensor,
    bf16: bool,
) -> Callable[[], float]:
    """A training step on noise x (B, C, S, S); calling it gives its seconds."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)
    target = torch.randn_like(x)

    def step() -> float:
        start = perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            out = forward(x, t)
        nn.functional.mse_loss(out.float(), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if x.is_cuda:
            torch.cuda.synchronize()
        return perf_counter() - start

    return step


def convolution_speed(device: torch.device, bf16: bool) -> Callable[[], float]:
    """A large channels-last 3 × 3 convolution; calling it gives its FLOP/s."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    x, w = (
        torch.randn(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        for shape in ((16, 128, 32, 32), (128, 128, 3, 3))
    )
    operations = 2 * x.numel() * w[0].numel()

    def speed() -> float:
        start = perf_counter()
        nn.functional.conv2d(x, w, padding=1)
        if x.is_cuda:
            torch.cuda.synchronize()
        return operations / (perf_counter() - start)

    return speed


def instructions(device: torch.device) -> str:
    """What the processor computes with; of a GPU its name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    fast = lightning_precision("auto", "cpu") == "bf16-mixed"
    limit = environ.get("ONEDNN_MAX_CPU_ISA")
    return (
        torch.backends.cpu.get_cpu_capability()
        + (" with bf16" if fast and not limit else "")
        + (f", convolutions limited to {limit}" if limit else "")
    )


def measure(case: Case, bf16: bool, device: torch.device) -> dict[str, float]:
    """Images a second of both, after checking that they compute the same."""
    torch.manual_seed(0)
    ours, theirs = same_networks(**case.network)
    ours, theirs = ours.to(device), theirs.to(device)
    x = torch.randn(case.batch, *case.network["shape"], device=device)
    t = torch.randint(0, 1000, (case.batch,), device=device)

    def reference(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = theirs(x, t, return_dict=False)[0]
        return out

    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        expected, actual = reference(x, t).float(), ours(x, t).float()
    error = ((actual - expected).norm() / expected.norm()).item()
    assert error < (0.03 if bf16 else 1e-4), f"the outputs differ by {error:.1e}"

    steps = [
        training_step(ours, ours, x, t, bf16),
        training_step(reference, theirs, x, t, bf16),
    ]
    warm_up = [step() for _ in range(2) for step in steps]
    pairs = min(MOST_PAIRS, max(3, int(case.seconds / sum(warm_up[2:]))))
    with FlopCounterMode(display=False) as counter:
        steps[0]()
    operations, peak = counter.get_total_flops(), convolution_speed(device, bf16)
    peak()
    rows = [(steps[0](), steps[1](), peak()) for _ in range(pairs)]
    seconds = [row[:2] for row in rows]
    return {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "batch": case.batch,
        "pairs": pairs,
        "ours_images_per_s": case.batch / median(a for a, _ in seconds),
        "diffusers_images_per_s": case.batch / median(b for _, b in seconds),
        "ratio": median(b / a for a, b in seconds),
        "gflops": operations / median(a for a, _ in seconds) / 1e9,
        "peak_gflops": median(row[2] for row in rows) / 1e9,
        "share_of_peak": median(operations / a / speed for a, _, speed in rows),
        "relative_output_difference": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench" / "unet_speed.json")
    parser.add_argument("--cifar", action="store_true", help="also DDPM's CIFAR-10 network")
    arguments = parser.parse_args()
    keep_memory()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = CASES | ({"DDPM CIFAR-10": Case(CIFAR, 16, 60.0)} if arguments.cifar else {})
    print(f"{instructions(device)}, {torch.get_num_threads()} threads; images/s")
    print(f"{'network':27}{'precision':>10}{'ours':>10}{'diffusers':>11}{'ratio':>7}"
          f"{'GFLOP/s':>9}{'of peak':>9}")  # fmt: skip
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, case in cases.items():
        results[name] = {}
        for precision in ("float32", "bfloat16"):
            row = measure(case, precision == "bfloat16", device)
            results[name][precision] = row
            print(
                f"{name:27}{precision:>10}{row['ours_images_per_s']:10.1f}"
                f"{row['diffusers_images_per_s']:11.1f}{row['ratio']:7.2f}"
                f"{row['gflops']:9.0f}{row['share_of_peak']:9.0%}",
                flush=True,
            )

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "device": device.type,
        "instructions": instructions(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "results": results,
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()

"""What a GPU makes of experiment=cifar10_ddpm, in ten minutes: one table, and one signal.

Training steps (forward, backward, Adam) of its network on noise, in each precision, layout and
kind of compilation; the share is that of a large bf16 matrix product, by the step's operations.
Then an Inception network with and without TF32, and a run on all GPUs that is told to end.

    python tests/benchmarks/gpu.py [--seconds 15] [--out outputs/bench/gpu.json]
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.evaluation.extractors.find import inception_weights
from unnoise.evaluation.extractors.inception import InceptionExtractor

ROOT = Path(__file__).parents[2]


class Way(NamedTuple):
    """How a step is computed."""

    name: str
    bf16: bool = False
    tf32: bool = False
    channels_last: bool = False
    compiled: str | None = None  # torch.compile's mode


WAYS = [
    Way("fp32"),
    Way("fp32, TF32", tf32=True),
    Way("bf16", bf16=True),
    Way("bf16, channels-last", bf16=True, channels_last=True),
    Way("bf16, compiled", bf16=True, compiled="default"),
    Way("bf16, compiled, channels-last", bf16=True, channels_last=True, compiled="default"),
    Way("bf16, CUDA graphs", bf16=True, compiled="reduce-overhead"),
]


def products(on: bool) -> None:
    """TF32 in matrix products and convolutions, or none."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def timed(call: Any, seconds: float, device: torch.device) -> float:
    """The median seconds of a call, after three."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 6 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
        if len(taken) == 3:  # compiling may have used up the time
            until = time.perf_counter() + seconds
    return median(taken[3:])


def peak(device: torch.device, n: int) -> float:
    """FLOP/s of a bf16 product of n × n matrices."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    return 2 * n**3 / timed(lambda: a @ a, 2.0, device)


def step_of(network: nn.Module, shape: tuple[int, ...], batch: int, way: Way) -> Any:
    """A training step on noise."""
    device = next(network.parameters()).device
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    x, target = (torch.randn(batch, *shape, device=device) for _ in range(2))
    x, t = x.contiguous(memory_format=layout), torch.rand(batch, device=device) * 1000
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)
    trial: dict[str, Any] = {"backend": "eager"}  # inductor takes minutes on a CPU
    how = trial if device.type == "cpu" else {"mode": way.compiled}
    forward = network if way.compiled is None else torch.compile(network, **how)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=way.bf16):
            out: Tensor = forward(x, t)
        nn.functional.mse_loss(out.float(), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def training(device: torch.device, seconds: float, tiny: bool) -> list[dict[str, Any]]:
    """A row for each way, printed as it comes."""
    config, problems = check_command_line("train", ["experiment=cifar10_ddpm"])
    assert config is not None, problems
    shape, batch = (3, 32, 32), config["batch_size"]
    node = config["network"] | {"shape": shape, "outputs": 3}
    if tiny:
        batch, node = 2, node | {"channels": 32, "multipliers": [1, 2], "blocks": 1}
    best, rows = peak(device, 256 if tiny else 8192), []
    print(f"bf16 products: {best / 1e12:.1f} TFLOP/s; batch {batch}")
    print(f"{'training step':32}{'images/s':>10}{'TFLOP/s':>9}{'of peak':>9}{'GB':>7}")
    with FlopCounterMode(display=False) as counter:
        step_of(instantiate(node).to(device), shape, batch, Way("to count"))()
    operations = counter.get_total_flops()
    for way in WAYS:
        products(way.tf32)
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = timed(step_of(instantiate(node).to(device), shape, batch, way), seconds, device)
        held = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
        row = {"way": way.name, "images_per_s": batch / took, "flops": operations / took,
               "share_of_peak": operations / took / best, "gigabytes": held}  # fmt: skip
        rows.append(row)
        print(f"{way.name:32}{row['images_per_s']:10.1f}{row['flops'] / 1e12:9.2f}"
              f"{row['share_of_peak']:9.1%}{held:7.1f}", flush=True)  # fmt: skip
    products(False)
    return rows


def extraction(device: torch.device, seconds: float, tiny: bool) -> dict[str, Any]:
    """Inception's features with TF32 beside those without: images/s, and how far they differ."""
    try:
        extractor = InceptionExtractor(inception_weights()).to(device)
    except (OSError, ValueError) as error:
        print(f"extractor: left out, {error}")
        return {}
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (2 if tiny else 250, 3, 32, 32), generator=generator)
    pictures, found = pictures.to(torch.uint8).to(device), {}
    for tf32 in (False, True):
        products(tf32)
        with torch.inference_mode():
            took = timed(lambda: extractor(pictures), seconds, device)
            found[tf32] = len(pictures) / took, extractor(pictures)[0].double()
    products(False)
    (exact, expected), (fast, got) = found[False], found[True]
    error = float((got - expected).norm() / expected.norm())
    print(f"Inception: {exact:.0f} images/s, with TF32 {fast:.0f}; features differ by {error:.1e}")
    return {"fp32": exact, "tf32": fast, "relative_difference": error}


def told_to_end(trainer: list[str], patience: float = 180.0) -> dict[str, Any]:
    """A run gets SIGTERM in the middle of training: its exit status, and whether it saved."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-c", "from unnoise.cli.train import main; main()",
                   "experiment=sprites", "logger=none", "max_steps=1000000", "lr_decay=constant",
                   f"hydra.run.dir={run}", *trainer]  # fmt: skip
        process = subprocess.Popen(command)
        try:
            until = time.monotonic() + patience
            while time.monotonic() < until and process.poll() is None:
                if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size:
                    break
                time.sleep(0.5)
            time.sleep(2)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status: int | None = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            status = None  # it hangs: what was measured before is not lost for that
        finally:
            process.kill()
        saved = sorted(str(p.relative_to(run)) for p in run.rglob("*.ckpt"))
    seconds = time.monotonic() - start
    print(f"SIGTERM, {' '.join(trainer)}: status {status} after {seconds:.1f} s (143 is right), "
          f"checkpoints {', '.join(saved) or 'none'}")  # fmt: skip
    return {"status": status, "seconds": seconds, "saved": saved}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each row, when compiled")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/gpu.json")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # on a CPU: tries it
    given = parser.parse_args()
    if not (torch.cuda.is_available() or given.tiny):
        sys.exit("there is no GPU here that PyTorch can use: on a CPU run unet_speed.py")
    device = torch.device("cpu" if given.tiny else "cuda")
    gpus = torch.cuda.device_count()
    print("a trial on the CPU" if given.tiny else f"{gpus} × {torch.cuda.get_device_name()}")
    name = str(device) if given.tiny else torch.cuda.get_device_name()
    report: dict[str, Any] = {"device": name, "torch": torch.__version__}
    parts: dict[str, Callable[[], Any]] = {
        "training": lambda: training(device, given.seconds, given.tiny),
        "extraction": lambda: extraction(device, given.seconds, given.tiny),
        "signal": lambda: told_to_end(["trainer=ddp_cpu" if given.tiny else "trainer=ddp"]),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for part, measured in parts.items():
        report[part] = measured()
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    if gpus == 1:
        print("one GPU: the signal met one process, which needs no NCCL")
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()

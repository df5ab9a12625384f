"""Quality of samples beside two other systems that train for the same time: ours and two peers.

denoising-diffusion-pytorch trains by its own Trainer with its README's settings, diffusers by the
settings of its unconditional example, unnoise by experiment=fashion_mnist in batches of 16. All
three see the same pictures, Fashion-MNIST with a border to 32×32, have about 1.6M parameters, and
compute with one thread, in bf16 where the processor is fast at it. They train at the same time, so
that whatever else the machine does meets them alike, each for the same processor time, of which
setting up takes nothing. Then each draws with its averaged weights by its own DDIM sampler in 50
steps. With --tuned each runs once more with what suits a short training better: the peers at a
learning rate of 1e-3, ours with v-prediction on the cosine schedule.

    make bench-peers
    python tests/benchmarks/peers.py --data-root /where/the/idx/files/are --minutes 10
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from os import cpu_count, environ
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise.data.classics import FashionMNIST
from unnoise.evaluation.evaluator import Evaluator
from unnoise.evaluation.reference import spread
from unnoise.evaluation.results import Samples, Score, save
from unnoise.report.sheets import grid

ROOT = Path(__file__).parents[2]
WORKERS = Path(__file__).parent / "peers"
REFERENCE = 10_000  # training pictures
CPU = torch.device("cpu")

Described = tuple[Tensor, dict[str, Any]]
"""Pictures (N, 1, 28, 28) uint8, and what is to be said of them."""


class System(NamedTuple):
    name: str
    script: str
    options: tuple[str, ...] = ()


SYSTEMS = [
    System("unnoise", "ours.py"),
    System("denoising-diffusion-pytorch", "trainer.py"),
    System("diffusers", "example.py"),
]
TUNED = [
    System("unnoise, v and cosine", "ours.py", ("prediction=v", "objective=v", "schedule=cosine")),
    System("denoising-diffusion-pytorch, lr 1e-3", "trainer.py", ("--lr", "1e-3")),
    System("diffusers, lr 1e-3", "example.py", ("--lr", "1e-3")),
]


def start(system: System, out: Path, given: argparse.Namespace) -> subprocess.Popen[bytes]:
    """The system's process: sets up, trains, draws, writes to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(WORKERS / system.script), "--out", str(out),
               "--seconds", str(60 * given.minutes), "--n", str(given.n),
               "--data-root", given.data_root, *system.options]  # fmt: skip
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (out / "log.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**environ, **one})


def wait(processes: dict[Path, subprocess.Popen[bytes]]) -> None:
    """Until the processes, by their folders, have ended.

    Raises:
        RuntimeError: one of them failed.
    """
    try:
        while any(status is None for status in (p.poll() for p in processes.values())):
            if failed := [folder for folder, process in processes.items() if process.poll()]:
                raise RuntimeError(f"{failed[0].name} failed: see {failed[0] / 'log.txt'}")
            time.sleep(1)
    finally:
        for process in processes.values():
            process.kill()


def score(pictures: dict[str, Described], source: FashionMNIST) -> list[Score]:
    """unnoise's evaluation of pictures, by name, against training pictures."""
    evaluator = Evaluator(
        source=source,
        device=CPU,
        batch_size=250,
        extractor_name="garments",
        reference_count=REFERENCE,
    )
    return [
        evaluator.score(name, Samples(kind=about["kind"], source=name), pixels)
        for name, (pixels, about) in pictures.items()
    ]


def controls(source: FashionMNIST, n: int) -> dict[str, Described]:
    """The best and the worst there is to expect: real test pictures, and noise."""
    test = source.images("validation")
    noise = torch.randint(
        256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return {
        "real test pictures": (torch.cat(list(spread(test, n))), {"kind": "real"}),
        "noise": (noise, {"kind": "noise"}),
    }


def drawn(folder: Path) -> Described:
    """What a system left: its pictures, and what it did."""
    with np.load(folder / "images.npz") as file:
        pixels = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2)
    return pixels, {"kind": "drawn", **json.loads((folder / "about.json").read_text())}


def table(scores: list[Score], pictures: dict[str, Described]) -> str:
    """A line for each score."""
    metrics = list(scores[0].metrics)
    lines = [["", "steps", "images", "images/s", "parameters", *metrics]]
    for each in scores:
        about = pictures[each.name][1]
        done = [f"{about[key]:,.0f}" if key in about else "" for key in
                ("steps", "images", "images_per_second", "parameters")]  # fmt: skip
        lines.append([each.name, *done, *(str(each.metrics[metric]) for metric in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", help="folder of the IDX files; default: they are downloaded")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each system")
    parser.add_argument("--n", type=int, default=1000, help="pictures that each draws")
    parser.add_argument("--tuned", action="store_true", help="each once more, see above")
    parser.add_argument(
        "--folder", type=Path, help="of an earlier run: what is there is only scored"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/peers.json")
    given = parser.parse_args()
    source = FashionMNIST(given.data_root, image_size=28)
    source.prepare()
    given.data_root = str(source.home)

    systems = SYSTEMS + (TUNED if given.tuned else [])
    stamped = given.out.with_suffix("") / time.strftime("%Y-%m-%d_%H-%M-%S")
    folders = {s.name: (given.folder or stamped) / _plain(s.name) for s in systems}
    todo = [s for s in systems if not _done(folders[s.name])]
    wait({folders[s.name]: start(s, folders[s.name], given) for s in todo})
    pictures = {name: drawn(folder) for name, folder in folders.items()}
    for name, (pixels, _) in pictures.items():
        grid(pixels[:64]).save(folders[name] / "grid.png")
    pictures |= controls(source, given.n)
    scores = score(pictures, source)
    save(
        given.out,
        scores,
        systems={name: about for name, (_, about) in pictures.items()},
        machine=platform.processor() or platform.machine(),
        cores=cpu_count(),
        time="processor time of one thread; setting up and drawing are not in it",
        sampler="each system's DDIM, 50 steps, averaged weights",
    )
    print(table(scores, pictures))
    print(f"written to {given.out}; pictures in {folders[systems[0].name].parent}")


def _done(folder: Path) -> bool:
    """Whether a system has trained and drawn."""
    return (folder / "about.json").exists()


def _plain(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


if __name__ == "__main__":
    main()

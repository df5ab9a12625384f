"""Quality of samples against training time, beside two other systems: ours and two peers.

denoising-diffusion-pytorch trains by its own Trainer with its README's settings, diffusers by the
settings of its unconditional example, unnoise by experiment=fashion_mnist. All three see the same
pictures, Fashion-MNIST with a border to 32×32, have about as many parameters, and compute in bf16
where the processor is fast at it. Each trains for each of --minutes, from the start, alone on the
machine and by the clock on the wall; setting up takes nothing of it. Then it draws with its
averaged weights: the peers by their DDIM in 50 steps, unnoise by the experiment's sampler. With
--tuned the peers also train with the learning rate, batch and average of our recipe.

With --shared each has one thread and its processor time counts, so that whatever else the machine
does costs it little; as many train at once as there are cores.

    make bench-peers
    python tests/benchmarks/peers.py --data-root /where/the/idx/files/are --minutes 1 2 5
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
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
DISTANCE = "fd_garments"

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
    System("denoising-diffusion-pytorch, tuned", "trainer.py", ("--tuned",)),
    System("diffusers, tuned", "example.py", ("--tuned",)),
]


def run(system: System, minutes: float, out: Path, given: argparse.Namespace) -> None:
    """The system in a process of its own: sets up, trains, draws, writes to ``out``.

    Raises:
        RuntimeError: it failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(WORKERS / system.script), "--out", str(out),
               "--seconds", str(60 * minutes), "--n", str(given.n),
               "--data-root", given.data_root, *system.options]  # fmt: skip
    command += ["--shared"] if given.shared else []
    threads = "1" if given.shared else str(os.cpu_count())
    one = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    print(f"{out.name}: training", file=sys.stderr, flush=True)
    with (out / "log.txt").open("w") as log:
        ended = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **one})
    if ended.returncode:
        raise RuntimeError(f"{out.name} failed: see {out / 'log.txt'}")


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


def plot(scores: list[Score], pictures: dict[str, Described], out: Path) -> None:
    """The distance of each system against its minutes of training."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(
        about["system"] for _, about in pictures.values() if "system" in about
    ):
        line = [(pictures[each.name][1]["minutes"], each.metrics[DISTANCE]) for each in scores
                if pictures[each.name][1].get("system") == name]  # fmt: skip
        minutes, distances = zip(*line, strict=True)
        axes.errorbar(minutes, [d.value for d in distances], [d.error or 0 for d in distances],
                      marker="o", capsize=3, label=name)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel=DISTANCE)
    axes.set_xticks(ticks := sorted({about["minutes"] for about in trained}))
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", help="folder of the IDX files; default: they are downloaded")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 5, 10, 20],
                        help="of training: each system trains once for each")  # fmt: skip
    parser.add_argument("--n", type=int, default=1000, help="pictures that each draws")
    parser.add_argument("--tuned", action="store_true", help="the peers once more, see above")
    parser.add_argument("--shared", action="store_true", help="by processor time, see above")
    parser.add_argument("--folder", type=Path, help="of an earlier run: what is there is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/peers.json")
    given = parser.parse_args()
    source = FashionMNIST(given.data_root, image_size=28)
    source.prepare()
    given.data_root = str(source.home)

    folder = given.folder or given.out.with_suffix("") / time.strftime("%Y-%m-%d_%H-%M-%S")
    jobs = {f"{system.name}, {minutes:g} min": (system, minutes)
            for minutes in sorted(given.minutes)
            for system in SYSTEMS + (TUNED if given.tuned else [])}  # fmt: skip
    folders = {name: folder / _plain(name) for name in jobs}
    with ThreadPoolExecutor(os.cpu_count() if given.shared else 1) as pool:
        todo = [name for name, each in folders.items() if not (each / "about.json").exists()]
        list(pool.map(lambda name: run(*jobs[name], folders[name], given), todo))
    pictures: dict[str, Described] = {}
    for name, (system, minutes) in jobs.items():
        pixels, about = drawn(folders[name])
        pictures[name] = pixels, about | {"system": system.name, "minutes": minutes}
        grid(pixels[:64]).save(folders[name] / "grid.png")
    pictures |= controls(source, given.n)
    scores = score(pictures, source)
    save(
        given.out,
        scores,
        systems={name: about for name, (_, about) in pictures.items()},
        machine=platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        time="processor time of one thread" if given.shared else "wall clock, alone",
        sampler="DDIM of the peers, 50 steps; the sampler of our experiment; averaged weights",
    )
    plot(scores, pictures, given.out.with_suffix(".png"))
    print(table(scores, pictures))
    print(f"written to {given.out} and its .png; pictures in {folder}")


def _plain(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


if __name__ == "__main__":
    main()

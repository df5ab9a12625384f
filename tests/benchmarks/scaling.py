"""What each part costs as its work grows: seconds, memory, and the exponent of their growth.

Each size is measured in a process of its own, with one thread, in processor seconds; that of
several processes in seconds. The exponent is the slope of log seconds over log work between the
two largest sizes: 1 is a cost in proportion to the work.

    python tests/benchmarks/scaling.py [--out outputs/bench/scaling.json] [--only batch runs]
"""

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import torch
import torch.distributed
from evaluation_speed import made_up, summarised
from matplotlib import pyplot

from unnoise.data.memory import TensorImages
from unnoise.data.stream import training_loader
from unnoise.evaluation.gallery import Gallery, SampleSet
from unnoise.evaluation.neighbours import surroundings
from unnoise.networks.unet import UNet
from unnoise.report.page import write

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


class Axis(NamedTuple):
    """A measurement at several sizes; ``work`` is what its cost should be in proportion to."""

    what: str
    sizes: tuple[int, ...]
    run: Callable[[int], Callable[[], object]]
    work: Callable[[int], float] = float
    clock: Callable[[], float] = lambda: processor()


def step(batch: int, size: int, channels: int) -> tuple[UNet, Callable[[], object]]:
    torch.manual_seed(0)
    x, t = torch.randn(batch, 3, size, size), torch.rand(batch)
    network = UNet(x.shape[1:], 3, channels=channels, multipliers=(1, 2, 2), blocks=1,
                   attention_resolutions=(), head_size=32)  # fmt: skip
    return network, lambda: network(x, t).square().mean().backward()


def pictures(n: int) -> TensorImages:
    return TensorImages(torch.zeros(n, 3, 16, 16, dtype=torch.uint8), torch.zeros(n).long())


def batch_of(n: int) -> Callable[[], object]:
    batches = iter(training_loader(pictures(n), batch_size=64, seed=0))
    next(batches)
    return lambda: next(batches)


def epoch(n: int) -> None:
    """The fingerprint of n pictures, their order, and the first batch."""
    images = pictures(n)
    assert images.fingerprint
    next(iter(training_loader(images, batch_size=64, seed=0)))


def gallery_of(n: int) -> Callable[[], object]:
    """Find, read and cost n drawn samples, in files of a hundred."""
    folder = Path(tempfile.mkdtemp(dir=PLACE.name))
    (folder / "a.ckpt").write_bytes(b"weights")
    samples = SampleSet(checkpoint=folder / "a.ckpt", recipe={})
    for first in range(0, n, 100):
        Gallery(folder, samples).add(first, torch.zeros(100, 3, 16, 16, dtype=torch.uint8), 1, 1)
    return lambda: (Gallery(folder, samples).read(n), Gallery(folder, samples).cost)


def runs(n: int) -> list[Path]:
    """Finished runs with logs of a hundred rows."""
    one = Path(tempfile.mkdtemp(dir=PLACE.name))
    (one / "config.yaml").write_text("name: scaling\nseed: 0\nmax_steps: 100\n")
    told = {"name": "scaling", "finished": "yes", "seconds": 1}
    (one / "manifest.json").write_text(json.dumps(told))
    return made_up(one, one / "runs", n, 100)


def neighbours(n: int) -> Callable[[], object]:
    return partial(surroundings, torch.randn(n, 64))


def page_of(folders: list[Path]) -> Callable[[], object]:
    return lambda: write(folders[0].parent / "report.html", folders)


def worker(store: str, rank: int, processes: int) -> None:
    group = {"init_method": f"file://{store}", "rank": rank, "world_size": processes}
    torch.distributed.init_process_group("gloo", **group)
    network, run = step(64 // processes, 16, 32)
    for _ in range(5):
        run()
        for weight in network.parameters():
            torch.distributed.all_reduce(weight.grad)


def together(n: int) -> None:
    """Five steps of 64 pictures by n processes, each with its share; gradients are summed."""
    store = tempfile.mktemp(dir=PLACE.name)
    started = [FORK.Process(target=worker, args=(store, rank, n)) for rank in range(n)]
    for each in started:
        each.start()
    for each in started:
        each.join()


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + below.ru_utime + below.ru_stime


POWERS, RUNS = (1000, 10_000, 100_000, 1_000_000), (1, 10, 100, 1000)
AXES = {
    "batch": Axis("step of n pictures", (1, 4, 16, 64, 256, 1024), lambda n: step(n, 16, 32)[1]),
    "size": Axis(
        "step of n × n pixels", (16, 32, 64, 128), lambda n: step(4, n, 32)[1], lambda n: n * n
    ),
    "channels": Axis(
        "step of n channels", (32, 64, 128, 256), lambda n: step(4, 16, n)[1], lambda n: n * n
    ),
    "data": Axis("begin an epoch of n pictures", POWERS, lambda n: partial(epoch, n)),
    "stream": Axis("a further batch of n pictures", POWERS, batch_of, lambda n: 1),
    "gallery": Axis("read n drawn pictures", (100, 1000, 10_000, 50_000), gallery_of),
    "neighbours": Axis("neighbours of n", (1000, 2000, 4000, 8000), neighbours, lambda n: n * n),
    "runs": Axis("page of n runs", RUNS, lambda n: page_of(runs(n))),
    "jobs": Axis("summary of n jobs", RUNS, lambda n: partial(summarised, runs(n))),
    "processes": Axis(
        "5 steps by n processes",
        (1, 2),
        lambda n: partial(together, n),
        lambda n: 1 / n,
        perf_counter,
    ),
}


def measured(axis: Axis, size: int) -> tuple[float, float]:
    """Seconds, the least of several if they are short, and megabytes above those at the start."""

    def child() -> None:
        torch.set_num_threads(1)
        before, taken = memory(), []
        run = axis.run(size)
        while not taken or (sum(taken) < 0.5 and len(taken) < 50):
            begun = axis.clock()
            run()
            taken.append(axis.clock() - begun)
        answers.put((min(taken), memory() - before))

    answers = FORK.SimpleQueue()
    process = FORK.Process(target=child)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{axis.what}, {size}: exit status {process.exitcode}")
    found: tuple[float, float] = answers.get()
    return found


def draw(results: dict[str, list[dict[str, float]]], path: Path) -> None:
    figure, axes = pyplot.subplots(2, 5, figsize=(15, 6), layout="constrained")
    for plot, (name, rows) in zip(axes.flat, results.items(), strict=False):
        sizes = [row["size"] for row in rows]
        ideal = [rows[-1]["seconds"] * row["work"] / rows[-1]["work"] for row in rows]
        plot.loglog(sizes, ideal, ":", color="grey", label="in proportion to the work")
        plot.loglog(sizes, [row["seconds"] for row in rows], "o-", label="measured")
        low, high = plot.get_ylim()
        plot.set_ylim(min(low, high / 10), high * 1.5)
        plot.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=7)
        plot.minorticks_off()
        plot.set_title(f"{AXES[name].what}, s", fontsize=9)
    axes.flat[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/scaling.json")
    parser.add_argument("--only", nargs="*", choices=AXES, default=list(AXES))
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for name in arguments.only:
        axis, rows = AXES[name], []
        print(f"\n{axis.what}\n         n     seconds  a unit of work  memory MB", flush=True)
        for size in axis.sizes:
            seconds, mb = measured(axis, size)
            work = axis.work(size)
            rows.append({"size": size, "seconds": seconds, "work": work, "mb": mb})
            unit = seconds / work / (rows[0]["seconds"] / rows[0]["work"])
            print(f"{size:10,}{seconds:12.5f}{unit:16.3f}{mb:11.0f}", flush=True)
        first, last = rows[-2:]
        growth, of = (math.log(last[key] / first[key]) for key in ("seconds", "work"))
        if of:
            print(f"exponent {growth / of:.2f}")
        results[name] = rows
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    draw(results, arguments.out.with_suffix(".png"))


PLACE = tempfile.TemporaryDirectory()
if __name__ == "__main__":
    with PLACE:
        main()

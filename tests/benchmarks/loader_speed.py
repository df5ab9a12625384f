"""Images a second that our loader delivers, beside the usual torchvision pipeline.

Both deliver shuffled, randomly mirrored batches of the same 28×28 grey images padded to 32×32, as
float32 in [−1, 1]: ours from uint8 tensors in memory, torchvision's from a Dataset of PIL images
through Pad, RandomHorizontalFlip, ToTensor and Normalize with torch's DataLoader. The two take
turns in one run.

    python tests/benchmarks/loader_speed.py [--out outputs/bench/loader_speed.json]
"""

import argparse
import itertools
import json
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from unnoise.data.memory import TensorImages
from unnoise.data.pixels import pad, to_signal
from unnoise.data.stream import training_loader

ROOT = Path(__file__).parents[2]
BATCH, N = 128, 60_000


class PilDigits(Dataset):
    """What torchvision.datasets.MNIST does for an item."""

    def __init__(self, images):
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.Pad(2),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,), (0.5,)),
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index], mode="L")), 0


def rate(batches, count):
    """Images a second over ``count`` batches of a running iterator."""
    start = perf_counter()
    images = sum(len(batch) for batch in itertools.islice(batches, count))
    return images / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/loader_speed.json")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    raw = np.random.default_rng(0).integers(0, 256, (N, 28, 28), dtype=np.uint8)
    images = TensorImages(pad(torch.from_numpy(raw)[:, None], 32), torch.zeros(N, dtype=torch.long))
    loader = training_loader(images, batch_size=BATCH, seed=0, flip=True)
    ours = (to_signal(batch["image"]) for batch in loader)
    theirs = {
        workers: itertools.chain.from_iterable(
            (x for x, _ in DataLoader(PilDigits(raw), BATCH, shuffle=True, num_workers=workers))
            for _ in itertools.count()
        )
        for workers in (0, 2)
    }
    next(ours)
    for batches in theirs.values():
        next(batches)
    rows = [
        (rate(ours, 2000), *(rate(batches, 60) for batches in theirs.values()))
        for _ in range(arguments.repeats)
    ]
    mine, zero, two = (median(row[i] for row in rows) for i in range(3))
    result = {
        "batch": BATCH,
        "ours_images_per_s": mine,
        "torchvision_0_workers_images_per_s": zero,
        "torchvision_2_workers_images_per_s": two,
        "ratio_to_0_workers": median(row[0] / row[1] for row in rows),
        "ratio_to_2_workers": median(row[0] / row[2] for row in rows),
    }
    print("loader                       images/s   ours is faster by   (target: 40)")
    print(f"  unnoise                  {mine:11,.0f}")
    for name, value, key in (("0", zero, "ratio_to_0_workers"), ("2", two, "ratio_to_2_workers")):
        print(f"  torchvision, {name} workers   {value:11,.0f}   {result[key]:17.1f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

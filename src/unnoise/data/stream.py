"""Pictures by number, and the order in which training reads them.

Training reads one endless stream. Position p = 0, 1, 2, … of the stream is picture
``order(epoch)[p mod N]`` of epoch ``p div N``, so a position decides everything: which picture,
whether it is mirrored, and (as the sample's id) which noise it meets. Nothing else is state:
a run that has taken k steps of B samples resumes at position k·B.

Shapes: B batch, C channels, H × W pixels, N pictures in the split.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unnoise.data.latents import Latents
from unnoise.data.source import Batch, Images


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class _Stream(Dataset[Batch]):
    """Stream positions (B,) to batches: epochs shuffled and mirrored afresh, without end."""

    def __init__(self, kept: "Kept", seed: int, flip: bool) -> None:
        self.kept, self.seed, self.flip = kept, seed, flip
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order (N,) and who is mirrored (N,), both by place in the epoch."""
        if epoch not in self._epochs:
            if len(self._epochs) > 1:  # a batch spans at most two epochs
                self._epochs.pop(min(self._epochs))
            rng, n = _generator(self.seed, epoch), len(self.kept.images)
            order = rng.permutation(n)
            mirrored = rng.random(n) < 0.5 if self.flip else np.zeros(n, dtype=bool)
            self._epochs[epoch] = order, mirrored
        return self._epochs[epoch]

    def __getitem__(self, positions: np.ndarray) -> Batch:
        epochs, places = np.divmod(positions, len(self.kept.images))
        indices = np.empty_like(places)
        mirrored = np.empty(len(places), dtype=bool)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order, flips = self._epoch(int(epoch))
            indices[here], mirrored[here] = order[places[here]], flips[places[here]]
        rows = torch.from_numpy(indices), torch.from_numpy(positions), torch.from_numpy(mirrored)
        return self.kept.read(*rows)


class _Split(Dataset[Batch]):
    """Picture numbers (B,) to batches, in the given order."""

    def __init__(self, kept: "Kept") -> None:
        self.kept = kept

    def __getitem__(self, indices: np.ndarray) -> Batch:
        rows = torch.from_numpy(indices)
        return self.kept.read(rows, rows, torch.zeros_like(rows, dtype=torch.bool))


@dataclass(frozen=True)
class Kept:
    """What is read of pictures: themselves, and where they were encoded, their latents.

    Args:
        images: the split.
        latents: of its first pictures, as they are and, if there are two, mirrored; or none.
        with_images: whether the pictures are wanted beside their latents.
    """

    images: Images
    latents: Sequence[Latents] = ()
    with_images: bool = True

    def read(self, indices: Tensor, positions: Tensor, mirrored: Tensor) -> Batch:
        """Pictures ``indices`` (B,), from left to right where ``mirrored`` (B,) bool."""
        batch = Batch(
            label=self.images.labels.index_select(0, indices), position=positions, index=indices
        )
        if self.with_images or not self.latents:
            batch["image"] = pixels = self.images.read(indices)
            pixels[mirrored] = pixels[mirrored].flip(-1)
        if self.latents:
            batch["moments"] = moments = self.latents[0].read(indices)
            if mirrored.any():
                moments[mirrored] = self.latents[1].read(indices[mirrored])
        if self.images.captions is not None:
            batch["caption"] = [self.images.captions[i] for i in indices.tolist()]
        return batch


class _Share:
    """This rank's rows of every global batch, from global batch ``start`` on."""

    def __init__(
        self, total: int | None, global_batch: int, start: int, rank: int, ranks: int
    ) -> None:
        self.total, self.global_batch, self.start = total, global_batch, start
        self.rows = np.array_split(np.arange(global_batch), ranks)[rank]

    def __len__(self) -> int:
        if self.total is None:
            raise TypeError("the training stream has no end")
        return -(-self.total // self.global_batch)

    def __iter__(self) -> Iterator[np.ndarray]:
        step = self.start
        while self.total is None or step * self.global_batch < self.total:
            positions = step * self.global_batch + self.rows
            yield positions if self.total is None else positions[positions < self.total]
            step += 1


def training_loader(
    images: Images | Kept,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    flip: bool = False,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
) -> DataLoader[Batch]:
    """The endless training stream from global batch ``start`` on: this rank's rows of each batch.

    ``batch_size`` is global. Batches follow each other without gap or remainder, so that in every
    run of N positions each picture comes exactly once. The same seed gives the same stream
    whatever ``ranks``, ``workers`` and ``start``.

    Raises:
        ValueError: ranks do not divide batch_size, or a batch is larger than the data.
    """
    if batch_size % ranks:
        raise ValueError(f"batch_size {batch_size} does not divide among {ranks} processes")
    kept = images if isinstance(images, Kept) else Kept(images)
    if batch_size > (n := len(kept.images)):
        raise ValueError(f"batch_size {batch_size} is larger than the data ({n} images)")
    return _loader(_Stream(kept, seed, flip), _Share(None, batch_size, start, rank, ranks), workers)


def split_loader(
    images: Images | Kept,
    *,
    batch_size: int,
    limit: int | None = None,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
) -> DataLoader[Batch]:
    """The first ``limit`` pictures of a split once, in order: this rank's rows of each batch."""
    kept = images if isinstance(images, Kept) else Kept(images)
    n = len(kept.images)
    total = n if limit is None else min(limit, n)
    return _loader(_Split(kept), _Share(total, batch_size, 0, rank, ranks), workers)


def _loader(dataset: Dataset[Batch], share: _Share, workers: int) -> DataLoader[Batch]:
    return DataLoader(
        dataset,
        sampler=share,  # yields arrays of positions, one a batch
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else each pass would draw from torch's own
    )


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; a run needs its workers to end its last step.

    Ten seconds after SIGTERM they do end, if nothing else ended them.
    """
    signal.set_wakeup_fd(-1)  # this process is a fork of one that hears signals
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(10))

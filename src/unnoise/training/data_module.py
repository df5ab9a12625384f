"""The LightningDataModule: an image source as training stream and validation split."""

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from unnoise.data.source import Batch, ImageSource
from unnoise.data.stream import split_loader, training_loader


class ImageDataModule(LightningDataModule):
    """Serves both splits of an image source, which it opens.

    The training stream starts at the trainer's optimizer step, so a resumed run continues with the
    next sample. An optimizer step sees ``batch_size`` samples in all: each process takes its share,
    in ``accumulate`` parts.

    Args:
        source: the data set.
        batch_size: samples of an optimizer step, over all processes.
        accumulate: forward passes an optimizer step.
        seed: of order and flips.
        flip: mirror half of the training images, left to right.
        workers: processes that read images; 0 reads them in the training process.
        validation_images: how many of the validation split to use.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        flip: bool = False,
        workers: int = 0,
        validation_images: int = 1000,
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.accumulate = source, batch_size, accumulate
        self.seed, self.flip, self.workers = seed, flip, workers
        self.validation_images = validation_images
        self.train_images = source.images("train")
        self.validation_split = source.images("validation")

    def train_dataloader(self) -> DataLoader[Batch]:
        """The endless training stream, from the trainer's step on."""
        trainer = self.trainer
        return training_loader(
            self.train_images,
            batch_size=self.batch_size // self.accumulate,
            seed=self.seed,
            start=trainer.global_step * self.accumulate if trainer else 0,
            flip=self.flip,
            rank=trainer.global_rank if trainer else 0,
            ranks=trainer.world_size if trainer else 1,
            workers=self.workers,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The first ``validation_images`` of the validation split."""
        trainer = self.trainer
        return split_loader(
            self.validation_split,
            batch_size=self.batch_size // self.accumulate,
            limit=self.validation_images,
            rank=trainer.global_rank if trainer else 0,
            ranks=trainer.world_size if trainer else 1,
        )

"""The LightningDataModule: an image source as training stream and validation split."""

from collections.abc import Iterator

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from unnoise.data.content import Facts, Splits
from unnoise.data.latents import Latents
from unnoise.data.pixels import narrow
from unnoise.data.source import Batch, Split
from unnoise.data.stream import Kept, split_loader, training_loader
from unnoise.networks.conditioning import TextConditioner
from unnoise.training.recipe import Recipe


class ImageDataModule(LightningDataModule):
    """Serves both splits of a recipe's image source, which it opens.

    The training stream starts at the trainer's optimizer step, so a resumed run continues with the
    next sample. An optimizer step sees ``batch_size`` samples in all: each process takes its share,
    in ``accumulate`` parts.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, self.source = recipe, recipe.data
        self.train_images = self.source.images("train")
        self.validation_split = self.source.images("validation")
        self.facts: Facts = {}  # of rank 0, which writes them down
        self.latents: dict[Split, list[Latents]] = {}  # in place of pictures, where there are some

    @property
    def splits(self) -> Splits:
        """Both, by name."""
        return {"train": self.train_images, "validation": self.validation_split}

    def warnings(self) -> Iterator[str]:
        """What of each split a model will not see as its owner does."""
        conditioning = self.recipe.conditioning
        for split, images in self.splits.items():
            if (line := narrow(images)) is not None:
                yield f"data, {split}: {line}"
            if images.captions is None or conditioning is None:
                continue
            for part in conditioning.modules():
                if isinstance(part, TextConditioner):
                    line = part.cut_off(images.captions, f"{len(images):,} captions")
                    if line is not None:
                        yield f"data, {split}: {line}"

    def train_dataloader(self) -> DataLoader[Batch]:
        """The endless training stream, from the trainer's step on."""
        recipe, trainer = self.recipe, self.trainer
        assert trainer is not None
        return training_loader(
            self._kept("train"),
            batch_size=recipe.batch_size // recipe.accumulate,
            seed=recipe.seed,
            start=trainer.global_step * recipe.accumulate,
            flip=recipe.flip,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            workers=recipe.workers,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The first ``validation_images`` of the validation split."""
        assert self.trainer is not None
        return split_loader(
            self._kept("validation"),
            batch_size=self.recipe.batch_size // self.recipe.accumulate,
            limit=self.recipe.validation_images,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )

    def _kept(self, split: Split) -> Kept:
        """Pictures that no condition reads are left out where their latents are there."""
        conditioning = self.recipe.conditioning
        reads = conditioning is not None and "image" in conditioning.reads
        return Kept(self.splits[split], self.latents.get(split, ()), reads)

"""A user's own sprites: a sheet, or the course's arrays. Repeats are left out before the split."""

from pathlib import Path
from typing import Annotated, Literal, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.data.decoding import from_pil
from unnoise.data.folders import Share
from unnoise.data.memory import TensorImages
from unnoise.data.pixels import check_multiple, enlarge, to_channels
from unnoise.data.size import ImageSize, sides
from unnoise.data.source import ImageSource, Split
from unnoise.data.splits import held_out
from unnoise.runs.identity import Role
from unnoise.untrusted import load_arrays


def _open_distinct(
    pixels: Tensor, labels: Tensor, shape: tuple[int, ...], split: Split, share: float
) -> TensorImages:
    """The split of sprites (N, C, h, h): the first of identical ones, held out by their pixels."""
    first: dict[bytes, int] = {}
    for index, sprite in enumerate(pixels.numpy()):
        first.setdefault(sprite.tobytes(), index)
    chosen = [i for key, i in first.items() if held_out(key, share) == (split == "validation")]
    if not chosen:
        raise ValueError(
            f"no {split} images among the {len(first)} distinct sprites: "
            "add some, or change data.validation_share"
        )
    sprites = to_channels(enlarge(pixels[chosen], shape[1:]), shape[0])
    return TensorImages(sprites, labels[chosen])


@final
class SpriteSheet(ImageSource):
    """The cells of one image file, each ``cell`` high and wide or [high, wide], without classes.

    Cells of a single colour are dropped, and so are repeats. ``image_size`` must be a multiple of
    ``cell``: each pixel becomes a square of pixels. Transparency becomes white.
    ``validation_share`` of the pictures is held out by a hash of their pixels.

    Raises:
        ValueError: image_size is not a multiple of cell.
    """

    def __init__(
        self,
        root: Annotated[str, Role.SHOWN],
        image_size: ImageSize,
        cell: ImageSize,
        channels: Literal[1, 3] = 3,
        classes: Literal[0] = 0,
        validation_share: Share = 0.1,
    ) -> None:
        check_multiple(image_size, cell, "cell")
        super().__init__(image_size, channels)
        self.root, self.cell, self.validation_share = root, cell, validation_share

    def check(self) -> None:
        """Raise FileNotFoundError if ``root`` is no file."""
        if not Path(self.root).expanduser().is_file():
            raise FileNotFoundError(f"data.root {self.root} is not a file: name the sheet itself")

    def prepare(self) -> None:
        """Check that the sheet can be cut."""
        self._cut()

    def images(self, split: Split) -> TensorImages:
        """The split's sprites, row by row."""
        cells = self._cut()
        drawn = cells[(cells != cells[:, :, :1, :1]).flatten(1).any(1)]
        labels = torch.zeros(len(drawn), dtype=torch.int64)
        return _open_distinct(drawn, labels, self.shape, split, self.validation_share)

    def _cut(self) -> Tensor:
        """All cells, row by row: (N, 3, h, w)."""
        self.check()
        try:
            with Image.open(Path(self.root).expanduser()) as picture:
                sheet = torch.from_numpy(np.array(from_pil(picture, channels=3)))
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise ValueError(f"data.root {self.root} is unreadable: {error}") from error
        (height, width), (h, w) = sheet.shape[:2], sides(self.cell)
        if height % h or width % w:
            raise ValueError(
                f"data.root {self.root} of {height}×{width} pixels does not divide into cells of "
                f"{h}×{w}"
            )
        grid = sheet.reshape(height // h, h, width // w, w, 3).permute(0, 2, 4, 1, 3)
        return grid.reshape(-1, 3, h, w)


@final
class SpritesFile(ImageSource):
    """The 16×16 sprites of the course "How Diffusion Models Work" (DeepLearning.AI, 2023).

    ``root`` is the folder of sprites_1788_16x16.npy, uint8 (N, 16, 16, 3), and
    sprite_labels_nc_1788_16x16.npy, one-hot (N, 5); the published files have N = 89,400 and many
    repeats. The first of identical sprites is kept, before ``validation_share`` of them is held
    out by a hash of their pixels. ``image_size`` must be a multiple of 16.

    Raises:
        ValueError: image_size is not a multiple of 16, or classes is not 5.
    """

    pixels_name = "sprites_1788_16x16.npy"
    labels_name = "sprite_labels_nc_1788_16x16.npy"
    names = ("hero", "non-hero", "food", "spell", "side-facing")

    def __init__(
        self,
        root: Annotated[str, Role.SHOWN],
        image_size: ImageSize = 16,
        channels: Literal[1, 3] = 3,
        classes: int = 5,
        validation_share: Share = 0.1,
    ) -> None:
        check_multiple(image_size, 16, "the sprites'")
        if classes != len(self.names):
            raise ValueError(f"classes is {classes}, but the sprites have {len(self.names)}")
        super().__init__(image_size, channels)
        self.root, self.validation_share = root, validation_share

    def class_names(self) -> tuple[str, ...]:
        """The course's names for the five one-hot columns."""
        return self.names

    def check(self) -> None:
        """Raise FileNotFoundError if one of the two files is not in ``root``."""
        for name in (self.pixels_name, self.labels_name):
            if not (Path(self.root).expanduser() / name).is_file():
                raise FileNotFoundError(f"data.root {self.root} has no {name}: put it there")

    def prepare(self) -> None:
        """Check both files."""
        self._load()

    def images(self, split: Split) -> TensorImages:
        """The split's distinct sprites in the order of the file."""
        pixels, labels = self._load()
        sprites = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        numbers = torch.from_numpy(labels.argmax(1))
        return _open_distinct(sprites, numbers, self.shape, split, self.validation_share)

    def _load(self) -> tuple[np.ndarray, np.ndarray]:
        self.check()
        folder = Path(self.root).expanduser()
        pixels = _load_npy(folder / self.pixels_name)
        labels = _load_npy(folder / self.labels_name)
        if pixels.shape[1:] != (16, 16, 3) or pixels.dtype != np.uint8:
            raise ValueError(
                f"{folder / self.pixels_name} holds {pixels.dtype} {pixels.shape}, "
                "not uint8 (N, 16, 16, 3)"
            )
        one_hot = labels.shape == (len(pixels), 5) and bool(
            (((labels == 0) | (labels == 1)).all(1) & (labels.sum(1) == 1)).all()
        )
        if not one_hot:
            raise ValueError(
                f"{folder / self.labels_name} holds {labels.dtype} {labels.shape}, "
                f"not one-hot rows ({len(pixels)}, 5)"
            )
        return pixels, labels


def _load_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start.startswith(b"\x93NUMPY"):
        what = "a web page saved under that name" if start.startswith(b"<") else "something else"
        raise ValueError(f"{path} is not a NumPy array but {what}: fetch the raw file")
    return load_arrays(path)[""]

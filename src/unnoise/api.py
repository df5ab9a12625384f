"""For notebooks and scripts: load a trained model and draw from it.

>>> model = unnoise.load("outputs/sprites/2026-01-31_12-00-00_1a2b3c4d")
>>> model.sample(16, steps=50).grid()
"""

import io
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.files import write_durably
from unnoise.models.drawn import Drawn
from unnoise.models.hub.bundle import difference
from unnoise.models.hub.remote import fetched
from unnoise.models.trained import TrainedModel
from unnoise.report.sheets import sheet


class Pictures(Drawn):
    """Drawn pictures: ``pixels`` (N, C, H, W) uint8, with their prompts."""

    def nhwc(self) -> np.ndarray:
        """uint8 (N, H, W, 3), grey repeated: what FID tools read."""
        pixels = self.pixels.expand(-1, 3, -1, -1)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def images(self) -> list[Image.Image]:
        """Each as a PIL image, grey or RGB."""
        arrays = self.pixels.permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]

    def save(self, folder: Path, first: int = 0) -> None:
        """Each as a PNG, numbered from ``first``; replaces those that are in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("[0-9]" * 6 + ".png"):
            earlier.unlink()
        for number, image in enumerate(self.images(), first):
            write_durably(folder / f"{number:06d}.png", partial(image.save, format="PNG"))

    def write(self, folder: Path, **sheets: Image.Image) -> dict[str, str]:
        """Into a folder: grid.png, further sheets and images.npz; returns what stands in which."""
        shown = {"grid": self.grid(), **sheets}
        for name, picture in shown.items():
            write_durably(folder / f"{name}.png", partial(picture.save, format="PNG"))
        np.savez_compressed(array := io.BytesIO(), arr_0=self.nhwc())
        write_durably(folder / "images.npz", lambda path: path.write_bytes(array.getbuffer()))
        return {name: f"{name}.png" for name in shown} | {"array": "images.npz"}

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures on one sheet, with their prompts beside and below them."""
        return sheet(self, columns)


class Model(TrainedModel):
    """A trained model to draw from."""

    def sample(self, n: int, **options: Any) -> Pictures:
        """Draw n pictures. The options are those of ``draw``, such as steps, guidance, labels."""
        return Pictures(**vars(self.draw(n, **options)))


def load(run: str | Path, **options: Any) -> Model:
    """``Model.load``, also of a bundle, and of one on the Hugging Face hub: hf://user/name.

    A bundle draws its picture 0; a line on stderr says if it is another than the one it holds.
    """
    model = Model.load(fetched(run), **options)
    if (line := difference(model)) is not None:
        print(f"warning: {line}", file=sys.stderr)
    return model

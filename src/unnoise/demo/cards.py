"""The HTML of what is drawn: a card for each run."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image
from torch import Tensor

from unnoise.api import Pictures

WIDE = 384  # pixels of a screen that the pictures of a card may fill, about


@dataclass(frozen=True)
class Card:
    """What is known of the drawing by one run.

    Args:
        title: of the run.
        note: how it draws, or how far it is.
        first: number of the first picture.
        pictures: those drawn, or as they are so far.
        shown: how many of them.
        command: draws the same.
        refusal: why nothing is drawn.
    """

    title: str
    note: str = ""
    first: int = 0
    pictures: Pictures | None = None
    shown: int = 0
    command: str | None = None
    refusal: str | None = None

    def html(self) -> str:
        """A section."""
        parts = [f"<h3>{escape(self.title)}</h3>", f'<p class="how">{escape(self.note)}</p>']
        if self.refusal is not None:
            parts.append(f'<p class="refusal" role="alert">{_lines(self.refusal)}</p>')
        if self.pictures is not None:
            parts.append(_figures(self.pictures[: self.shown], self.first))
        if self.command is not None:
            code = f"<code>{escape(self.command)}</code>"
            parts.append(f"<details><summary>the same by command</summary>{code}</details>")
        return f'<section class="run">{"".join(parts)}</section>'


def page(cards: Sequence[Card]) -> str:
    """All cards side by side."""
    return f'<div class="runs">{"".join(card.html() for card in cards)}</div>'


def message(text: str) -> str:
    """A refusal that is of no run."""
    return f'<p class="refusal" role="alert">{_lines(text)}</p>'


def png(picture: Image.Image) -> bytes:
    """As ``unnoise-sample`` writes it."""
    picture.save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def enlarged(width: int, columns: int = 1) -> int:
    """Pixels of the screen that a picture is wide: a whole factor, so pixels stay square."""
    return width * max(1, WIDE // (columns * width))


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _figures(pictures: Pictures, first: int) -> str:
    columns = 1 if len(pictures) == 1 else 2 if len(pictures) <= 4 else 4
    prompts = None if pictures.prompts is None else [*map(_image, pictures.prompts)]
    figures = []
    for row, picture in enumerate(pictures.images()):
        words = None if pictures.captions is None else pictures.captions[row]
        number, wide = first + row, enlarged(picture.width, columns * (1 + (prompts is not None)))
        name = f"picture {number}" if words is None else f"picture {number}: {words}"
        shown = _img(picture, name, wide, number)
        if prompts is not None:
            shown = _img(prompts[row], f"prompt of picture {number}", wide) + shown
        below = "" if words is None else f" {escape(words)}"
        caption = f"<figcaption><b>{number}</b>{below}</figcaption>"
        figures.append(f"<figure>{shown}{caption}</figure>")
    style = f"grid-template-columns:repeat({columns},max-content)"
    return f'<div class="pictures" style="{style}">{"".join(figures)}</div>'


def _image(pixels: Tensor) -> Image.Image:
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _img(picture: Image.Image, name: str, wide: int, number: int | None = None) -> str:
    data = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
    image = f'<img src="{data}" alt="{escape(name)}" title="{escape(name)}" style="width:{wide}px">'
    if number is None:
        return image
    return f'<a href="{data}" download="{number:06d}.png">{image}</a>'

"""What the page does, without the page: keys, jobs and cards of one press of a button."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.api import Model, Pictures
from unnoise.config.problems import ConfigError
from unnoise.data.decoding import Decoder
from unnoise.demo import cards, photos
from unnoise.demo.cards import Card
from unnoise.demo.drawing import Job, Prepare, Stopped, drawn
from unnoise.demo.inputs import Inputs

MOST = 16  # pictures at once
MOST_STEPS = 1000
MOST_LETTERS = 1000  # of a caption
PLAIN, IMAGE_TO_IMAGE, INPAINT = "noise", "image_to_image", "inpaint"
REFUSED = ConfigError, ValueError, FileNotFoundError


class Desk:
    """Draws from models for any number of browsers, one after the other.

    Args:
        models: of pictures of one size.
        titles: of the models.
        samplers: all there are, by name.
        prepare: checks keys for a model.
        folder: for pictures that come from the browser.

    Raises:
        ValueError: the models draw pictures of several sizes.
    """

    def __init__(
        self,
        models: Sequence[Model],
        titles: Sequence[str],
        samplers: Mapping[str, Any],
        prepare: Prepare,
        folder: Path,
    ) -> None:
        sizes = {title: model.model.shape for title, model in zip(titles, models, strict=True)}
        if len({*sizes.values()}) > 1:
            each = ", ".join(f"{title} {_size(shape)}" for title, shape in sizes.items())
            raise ValueError(
                f"runs side by side draw pictures of one size on one noise, not {each}"
            )
        self.models, self.titles, self.prepare, self.folder = models, titles, prepare, folder
        self.each = [Inputs.of(model, samplers) for model in models]
        self.inputs = Inputs.of_all(self.each)
        self.decoder = Decoder.of(models[0].model.shape, models[0].config["data"])
        self._stops: dict[str, threading.Event] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)."""
        _, height, width = self.decoder.shape
        return width, height

    def photo(self, file: str) -> Path:
        """A picture from the browser, of the models' size; ValueError says why not."""
        return photos.fitted(file, self.decoder, self.folder)

    def keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What was set, as keys of ``unnoise-sample``.

        Raises:
            ValueError: too much is wanted, or a picture or a mask is missing.
        """
        if (n := values.get("n") or 1) > MOST:
            raise ValueError(f"{MOST} pictures at once, at most")
        steps = values.get("steps") or None  # an empty field of gradio's is 0
        if steps is not None and steps > MOST_STEPS:
            raise ValueError(f"{MOST_STEPS} steps at most")
        texts = {key: (values.get(key) or "").strip() for key in ("captions", "negative")}
        if long := [key for key, text in texts.items() if len(text) > MOST_LETTERS]:
            raise ValueError(f"{long[0]}: {MOST_LETTERS} letters at most")
        label, sampler = values.get("labels"), values.get("sampler")
        sketch = photos.sketched(values.get("sketch"), self.size, self.folder)
        prompt = sketch or values.get("prompt")
        own = values.get("sampler") in (None, "") and values.get("guidance") == self.inputs.guidance
        return {
            "seed": values.get("seed"),
            "first": values.get("first"),
            "n": n,
            "labels": None if label in (None, "") else [label],
            **{key: [text] if text else None for key, text in texts.items()},
            "images": None if prompt is None else [str(prompt)],
            "sampler": sampler or None,
            "steps": steps,
            "guidance": None if own else values.get("guidance"),
            **self._edit(values),
        }

    def _edit(self, values: Mapping[str, Any]) -> dict[str, Any]:
        edit = values.get("edit", PLAIN)
        if edit == PLAIN:
            return {}
        if (photo := values.get("photo")) is None:
            raise ValueError("upload a picture to start from")
        if edit == IMAGE_TO_IMAGE:
            return {"edit": edit, "image": str(photo), "strength": values.get("strength")}
        mask = photos.marked(values.get("mask"), self.size, self.folder)
        resample = values.get("resample")
        return {"edit": edit, "image": str(photo), "mask": str(mask), "resample": resample}

    def draw(self, values: Mapping[str, Any], session: str = "") -> Iterator[str]:
        """HTML of the cards, as they change; a refusal stands on the card of its run."""
        self.stop(session)
        stop = self._stops[session] = threading.Event()
        try:
            keys = self.keys(values)
        except ValueError as error:
            yield cards.message(str(error))
            return
        first, shown = keys["first"] or 0, keys["n"]
        board = [Card(title, "waits", first, None, shown) for title in self.titles]
        jobs = [self._job(row, keys, board) for row, _ in enumerate(self.models)]
        for row, job in enumerate(jobs):
            if job is not None:
                for card in self._drawn(row, job, board[row], stop):
                    board[row] = card
                    yield cards.page(board)
        yield cards.page(board)

    def stop(self, session: str = "") -> None:
        """End what a browser has begun, after the step that is being taken."""
        if (stop := self._stops.pop(session, None)) is not None:
            stop.set()

    def _job(self, row: int, keys: Mapping[str, Any], board: list[Card]) -> Job | None:
        try:
            return self.prepare(self.models[row], self.each[row].taken(keys))
        except REFUSED as error:
            board[row] = replace(board[row], note="nothing is drawn", refusal=str(error))
            return None

    def _drawn(self, row: int, job: Job, card: Card, stop: threading.Event) -> Iterator[Card]:
        """The card as the drawing goes on."""
        card = replace(card, note=f"{job.how}: step 0 of {job.steps}")
        yield card
        try:
            for item in drawn(job, self.models[row], stop):
                if isinstance(item, Pictures):
                    card = replace(card, note=job.how, pictures=item, command=job.command)
                else:
                    note = f"{job.how}: step {item.step} of {job.steps}"
                    card = replace(card, note=note, pictures=Pictures(item.pixels))
                yield card
        except Stopped:
            yield replace(card, note=f"{card.note}, stopped")
        except REFUSED as error:
            yield replace(card, note="nothing is drawn", pictures=None, refusal=str(error))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]}×{shape[-2]}"

"""The page, by gradio: the inputs that fit the runs at the left, what is drawn at the right."""

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from unnoise.demo import cards, photos
from unnoise.demo.desk import (
    IMAGE_TO_IMAGE,
    INPAINT,
    MOST,
    MOST_LETTERS,
    MOST_STEPS,
    PLAIN,
    Desk,
)

WAITING = 8  # drawings that may wait for their turn
INK = "#ff2d95"  # of masks: seen on any picture
CSS = """
.runs { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
.run h3 { margin: 0; font-size: 1.1em; }
.run p.how { margin: 2px 0 10px; color: var(--body-text-color-subdued); min-height: 1.5em; }
.run .pictures { display: grid; gap: 12px; }
.run figure { margin: 0; width: min-content; }
.run figure img { display: inline-block; margin: 0; max-width: none; image-rendering: pixelated;
  border-radius: 3px; background: var(--background-fill-secondary); }
.run figure a, .run figure { white-space: nowrap; }
.run figcaption { white-space: normal; margin-top: 3px; font-size: 0.85em; }
.run details { margin-top: 12px; font-size: 0.85em; max-width: 460px; }
.run code { display: block; padding: 8px; margin-top: 4px; overflow-wrap: anywhere;
  white-space: pre-wrap; background: var(--background-fill-secondary); }
p.refusal { color: var(--error-text-color); background: var(--error-background-fill);
  border: 1px solid var(--error-border-color); border-radius: 6px; padding: 10px 14px;
  max-width: 520px; overflow-wrap: anywhere; }
.empty { color: var(--body-text-color-subdued); }
footer { display: none !important; }
"""
EMPTY = '<p class="empty">Press Draw: the pictures come here, from noise.</p>'
STARTS = [("noise", PLAIN), ("a picture", IMAGE_TO_IMAGE), ("a picture, part of it", INPAINT)]


class Page:
    """The page of a desk; ``blocks`` is what gradio serves."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.fields, self.refused = dict[str, Any](), dict[str, Any]()
        with gr.Blocks(title="unnoise", analytics_enabled=False) as self.blocks:
            names = ", ".join(dict.fromkeys(desk.titles))
            gr.HTML(f"<h2>unnoise</h2><p>{cards.escape(names)}</p>")
            with gr.Row():
                with gr.Column(scale=1, min_width=360):
                    self._what()
                    self._how()
                    if desk.inputs.edits:
                        self._start()
                    with gr.Row():
                        draw = gr.Button("Draw", variant="primary", elem_id="draw")
                        stop = gr.Button("Stop", elem_id="stop")
                with gr.Column(scale=2, min_width=400):
                    shown = gr.HTML(EMPTY, elem_id="shown")
            gr.on(
                [draw.click, self.fields["first"].submit, self.fields["seed"].submit],
                self._draw, {*self.fields.values()}, shown, show_progress="hidden",
                concurrency_limit=1, api_visibility="private",
            )  # fmt: skip
            stop.click(self._stop, queue=False, api_visibility="private")
            self.blocks.unload(self._stop)
        self.blocks.queue(max_size=WAITING, api_open=False)

    def _what(self) -> None:
        """Which pictures."""
        inputs, seed = self.desk.inputs, self.desk.models[0].config.get("seed", 0)
        with gr.Row():
            self._add(
                "first", gr.Number(17, label="Picture number", precision=0, minimum=0, min_width=90)
            )
            self._add("seed", gr.Number(seed, label="Seed", precision=0, minimum=0, min_width=90))
            self._add(
                "n",
                gr.Number(4, label="How many", precision=0, minimum=1, maximum=MOST, min_width=90),
            )
        if inputs.classes:
            choices: list[Any] = [("all in turn, as unnoise-sample", "")]
            choices += [(str(label), label) for label in inputs.classes]
            self._add("labels", gr.Dropdown(choices, value="", label="Class"))
        if inputs.captions:
            self._add(
                "captions",
                gr.Textbox(
                    label="Caption",
                    max_length=MOST_LETTERS,
                    lines=2,
                    placeholder="empty: captions of the run's validation pictures",
                ),
            )
        if inputs.captions and inputs.guidance is not None:
            self._add(
                "negative",
                gr.Textbox(
                    label="Away from (negative caption)",
                    max_length=MOST_LETTERS,
                    placeholder="empty: away from no caption",
                ),
            )
        if inputs.sketch:
            width, height = self.desk.size
            wide = photos.on_pad(width)
            brush = gr.Brush(default_size=wide // width, colors=["#000000"], color_mode="fixed")
            self._add(
                "sketch",
                gr.Sketchpad(
                    label="Sketch (empty: edges of validation pictures)",
                    type="pil",
                    brush=brush,
                    canvas_size=(wide, wide // width * height),
                    fixed_canvas=True,
                    layers=False,
                    transforms=(),
                    buttons=[],
                    elem_id="sketch",
                ),
            )
        if inputs.picture:
            image = self._upload("prompt", "Picture prompt (empty: validation pictures)")
            outputs = [self.fields["prompt"], self.refused["prompt"]]
            image.change(lambda file: self._read(file)[:2], image, outputs, queue=False,
                         api_visibility="private", show_progress="hidden")  # fmt: skip

    def _how(self) -> None:
        """By which sampler."""
        inputs, models = self.desk.inputs, self.desk.models
        if inputs.guidance is not None:
            self._add(
                "guidance",
                gr.Slider(
                    0,
                    10,
                    inputs.guidance,
                    step=0.1,
                    label="Guidance",
                    info="1 is off; more follows the prompt louder",
                ),
            )
        if not inputs.steps:
            return
        own = "its own" if len(models) == 1 else "each run's own"
        with gr.Row():
            if inputs.samplers:
                choices = [(own, ""), *((name, name) for name in inputs.samplers)]
                self._add("sampler", gr.Dropdown(choices, value="", label="Sampler", min_width=160))
            self._add(
                "steps",
                gr.Number(
                    0,
                    label="Steps (0: its own)",
                    precision=0,
                    minimum=0,
                    maximum=MOST_STEPS,
                    min_width=110,
                ),
            )

    def _start(self) -> None:
        """From which picture."""
        edit = self._add("edit", gr.Radio(STARTS, value=PLAIN, label="Start from", elem_id="edit"))
        with gr.Column(visible=False) as box:
            photo = self._upload("photo", "Picture: its middle, brought to the model's size")
            strength = self._add(
                "strength",
                gr.Slider(
                    0.05,
                    1,
                    0.6,
                    step=0.05,
                    label="Strength",
                    info="share of the steps; 1 forgets the picture",
                ),
            )
            with gr.Column(visible=False) as painting:
                brush = gr.Brush(default_size=40, colors=[INK], color_mode="fixed")
                wide = photos.on_pad(self.desk.size[0])
                size = wide, wide // self.desk.size[0] * self.desk.size[1]
                mask = self._add(
                    "mask",
                    gr.ImageEditor(
                        label="Paint over what is to be drawn anew",
                        type="pil",
                        sources=(),
                        image_mode="RGBA",
                        brush=brush,
                        layers=False,
                        transforms=(),
                        buttons=[],
                        canvas_size=size,
                        fixed_canvas=True,
                        elem_id="mask",
                    ),
                )
                self._add(
                    "resample",
                    gr.Slider(
                        1,
                        20,
                        10,
                        step=1,
                        label="Each step so often",
                        info="more: the new part fits the rest better, and it takes longer",
                    ),
                )

        def chosen(start: str) -> list[Any]:
            is_mask = start == INPAINT
            shown = start != PLAIN, start == IMAGE_TO_IMAGE, is_mask
            return [gr.update(visible=each) for each in shown]

        quiet = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        edit.change(chosen, edit, [box, strength, painting], **quiet)
        photo.change(
            self._read, photo, [self.fields["photo"], self.refused["photo"], mask], **quiet
        )

    def _upload(self, name: str, label: str) -> Any:
        """A picture from the browser; the field holds the name of its file at the model's size."""
        self.refused[name] = gr.HTML(visible=False)
        image = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=220,
                         buttons=[], elem_id=name)  # fmt: skip
        image.preprocess = lambda data: None if data is None else data.path  # is read in _read
        self._add(name, gr.State(None))
        return image

    def _read(self, file: str | None) -> tuple[Any, Any, Any]:
        """The file at the model's size, a refusal in words, and what the mask is painted on."""
        if file is None:
            return None, gr.update(visible=False), None
        try:
            kept = self.desk.photo(file)
        except ValueError as error:
            return None, gr.update(value=cards.message(str(error)), visible=True), None
        canvas = {"background": photos.on_screen(kept), "layers": [], "composite": None}
        return kept.name, gr.update(visible=False), canvas

    def _add(self, name: str, field: Any) -> Any:
        self.fields[name] = field
        return field

    def _draw(self, data: Mapping[Any, Any], request: gr.Request) -> Iterator[str]:
        values = {name: data[field] for name, field in self.fields.items()}
        for name in ("photo", "prompt"):
            if values.get(name) is not None:
                values[name] = self.desk.folder / values[name]
        yield from self.desk.draw(values, str(request.session_hash))

    def _stop(self, request: gr.Request) -> None:
        self.desk.stop(str(request.session_hash))

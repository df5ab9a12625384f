"""The pictures that runs drew while they were trained, as data URIs."""

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from unnoise.data.size import one_side
from unnoise.report.page.comparison import at
from unnoise.report.reader import Run
from unnoise.runs.layout import RunDirectory

BUDGET = 4_000_000  # bytes of all sample grids on a page of many runs, and of all sheets
WIDE, NARROW = 720, 90
"""Largest and approximately smallest width, in pixels, of a picture that is compressed again."""
LEAST = 1 / 8
"""What lossy compression may leave of a file that has none; of pixel art it leaves all."""
FRAMES = 16  # most frames of an animation
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for damaged pictures."""
STEPS = 12  # most grids of a run on a page of its own


class Picture(NamedTuple):
    """A picture as a data URI, and the file that it links to."""

    source: str
    file: Path
    caption: str
    alt: str
    step: int | None = None


def samples(run: Run) -> dict[str, Any] | None:
    """Of one run: the grids, the "steps" to choose from, and further pictures."""
    steps, files = _spread(sorted(run.grids), STEPS), RunDirectory(run.folder)
    others = [
        *picture(run, files.denoising, "Denoising, from noise to pictures", animation),
        *picture(run, files.training, "Training, from the first grid to the last", animation),
        *picture(run, files.forward_process, "The forward process, from data to noise", still),
    ]
    if not steps and not others:
        return None
    return {"steps": steps, "grids": _grids(run, steps, 250_000), "others": others}


def side_by_side(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any] | None:
    """Of many runs: the grids as cards, and whether they started from the same noise."""
    shown = [(run, label) for run, label in zip(runs, labels, strict=True) if run.grids]
    if not shown:
        return None
    each = max(1, min(4, 48 // len(shown)))
    steps = [_spread(sorted(run.grids), each) for run, _ in shown]
    large = BUDGET // (each * len(shown))

    def grids(run: Run, chosen: Sequence[int]) -> list[Picture]:
        return _grids(run, chosen, large)

    with ThreadPoolExecutor() as pool:  # Pillow lets others run while it works
        cards = list(pool.map(grids, (run for run, _ in shown), steps))
    return {
        "note": noise([run for run, _ in shown]),
        "steps": sorted({step for chosen in steps for step in chosen}),
        "cards": [(label, card) for (_, label), card in zip(shown, cards, strict=True)],
    }


def noise(runs: Sequence[Run]) -> str:
    """Whether picture k of each grid started from the same noise."""
    seeds = sorted({str(run.config.get("seed")) for run in runs})
    data = [run.config.get("data") for run in runs]
    sizes = {str([one_side(at(each, "image_size")), at(each, "channels")]) for each in data}
    if len(seeds) > 1:
        several = ", ".join(seeds)
        return f"The seeds differ ({several}), so the grids began from different noise."
    if len(sizes) > 1:
        return "The pictures differ in size, so the grids began from different noise."
    return f"Picture by picture, the grids began from the same noise (seed {seeds[0]})."


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the steps, evenly spaced; always the last."""
    if most == 1 or len(steps) <= most:
        return list(steps[-most:])
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _grids(run: Run, steps: Sequence[int], large: int) -> list[Picture]:
    files, read = run.grids, partial(still, large=large)
    return [p for k in steps for p in picture(run, files[k], f"step {k:,}", read, k)]


def picture(
    run: Run, file: Path, caption: str, read: Callable[[Path], str], step: int | None = None
) -> list[Picture]:
    """The picture in a file; none if there is no file, or (a problem) it cannot be read."""
    if not file.exists():
        return []
    try:
        source = read(file)
    except BROKEN as error:
        run.problems.append(f"{file.relative_to(run.folder)} is unreadable: {error}")
        return []
    return [Picture(source, file, caption, f"{run.name}: {caption}", step)]


def still(path: Path, large: int = 250_000) -> str:
    """A picture as a data URI; a file of more than ``large`` bytes is compressed with loss.

    Its width is halved until it takes no more than ``large`` bytes. A width is not tried where
    even ``LEAST`` of the file's bytes, by area, were too many.

    Raises:
        OSError: the file is missing, or is not a picture.
        DecompressionBombError: the picture has too many pixels.
    """
    with Image.open(path) as picture:
        picture.load()
        if path.stat().st_size <= large and picture.format == "PNG":
            return _uri("png", path.read_bytes())
        width, own = WIDE, LEAST * path.stat().st_size / picture.width**2  # bytes a square pixel
        while width // 2 >= NARROW and own * min(width, picture.width) ** 2 > large:
            width //= 2
        while True:
            content = _webp([_narrow(picture, width)], [0], quality=85)
            if len(content) <= large or width <= NARROW:
                return _uri("webp", content)
            width //= 2


def animation(path: Path, large: int = 500_000) -> str:
    """A GIF as a data URI; above ``large`` bytes ``FRAMES`` of its frames, with the same duration.

    Raises what ``still`` raises.
    """
    with Image.open(path) as picture:
        if path.stat().st_size <= large:
            return _uri("gif", path.read_bytes())
        count = getattr(picture, "n_frames", 1)
        shown = sorted({round(i * (count - 1) / (FRAMES - 1)) for i in range(FRAMES)})
        frames: list[Image.Image] = []
        durations = [0] * len(shown)
        for number in range(count):
            picture.seek(number)
            if number == shown[len(frames)]:
                frames.append(_narrow(picture, WIDE))
            durations[len(frames) - 1] += int(picture.info.get("duration", 100))
        return _uri("webp", _webp(frames, durations, quality=None))


def _narrow(picture: Image.Image, width: int) -> Image.Image:
    """The picture in RGB, at most ``width`` wide."""
    picture = picture.convert("RGB")
    if picture.width <= width:
        return picture
    size = width, round(picture.height * width / picture.width)
    return picture.resize(size, Image.Resampling.BOX)


def _webp(frames: Sequence[Image.Image], durations: Sequence[int], quality: int | None) -> bytes:
    """WebP; lossless if ``quality`` is None, which suits enlarged pixels."""
    content, (first, *rest) = io.BytesIO(), frames
    options = {"lossless": quality is None, "quality": quality or 0, "method": 0}
    moving = {"save_all": bool(rest), "append_images": rest, "duration": list(durations), "loop": 0}
    first.save(content, "WEBP", **options, **moving)
    return content.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

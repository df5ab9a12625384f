"""grid=families, garments, latents: several runs, trained for equal times, in one table."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from unnoise.config.nodes import DATA, instantiate
from unnoise.config.problems import UNKNOWN, Problem
from unnoise.config.schema import arguments
from unnoise.data.source import HasCombinations, ImageSource
from unnoise.data.stream import split_loader
from unnoise.diffusion.noise import Noise
from unnoise.distributed.devices import lightning_precision, slow_bf16
from unnoise.evaluation.estimates import metric_problems
from unnoise.evaluation.evaluator import Evaluator, drawn_samples
from unnoise.evaluation.frontier import plot
from unnoise.evaluation.gallery import SampleSet, prompts_digest
from unnoise.evaluation.grid import sampler_name
from unnoise.evaluation.likelihood import of_diffusion, terms
from unnoise.evaluation.measure import Keys, Result
from unnoise.evaluation.modes import modes
from unnoise.evaluation.quality import ELSEWHERE, LOCAL, Quality
from unnoise.evaluation.results import Estimate, Score, folded, save
from unnoise.files import write_durably
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.latent import LikelihoodModel
from unnoise.models.trained import TrainedModel
from unnoise.runs.checkpoints import find_checkpoint, read_checkpoint
from unnoise.runs.identity import differences, digest
from unnoise.runs.layout import RunDirectory, telling
from unnoise.runs.wanted import Wanted, spent_in_all

SHOWN = 16  # pictures of each run on the sheet
OWN: dict[str, Any] = {"samplers": {}, "baselines": {}, "checkpoints": "newest", "averaged": [True]}
OWN |= dict.fromkeys(("run", "images", "sampler", "steps", "evaluations", "guidance"))
"""Keys of quality.yaml that are each run's own here, with the values that leave them so."""
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class Comparison(Quality):
    """The keys of a grid of several runs, as conf/grid/families.yaml, beside quality.yaml.

    Args:
        runs: what is compared, by name; each a ``Wanted``, in plain containers.
        minutes: of training, of each of them.
        trained_runs: the runs, run by run for each number of minutes; null: to be found or trained.
        likelihood: validation pictures for bits/dim, where a model has any; 0: none.
    """

    runs: dict[str, dict[str, Any]]
    minutes: list[Minutes]
    trained_runs: list[str] | None
    likelihood: Annotated[int, Field(ge=0)]

    name, shared = "comparison", False

    def conflicts(self) -> Iterator[Problem]:
        """What is wrong between the keys."""
        for key, own in OWN.items():
            if getattr(self, key) not in (own, UNKNOWN):
                yield Problem(key, "a comparison has runs of its own: leave it out")
        for key in ("runs", "minutes"):
            if not getattr(self, key):
                yield Problem(key, "is empty: give at least one")
        for message in () if self.metrics is None else metric_problems(self.metrics):
            yield Problem("metrics", message)
        if len(self.seeds) != 1:
            yield Problem("seeds", f"a comparison draws by one, not by {len(self.seeds)}")
        if self.likelihood == 1:
            yield Problem("likelihood", "1 has no error: take 2 or more, or 0 for none")
        try:
            count = len(wanted_runs(self.runs)) * len(self.minutes)
        except ValueError as error:
            yield Problem("runs", str(error))
            return
        if self.trained_runs is not None and len(self.trained_runs) != count:
            yield Problem(
                "trained_runs", f"{count} runs are compared, not {len(self.trained_runs)}"
            )

    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong with the runs that are there."""
        if slow := slow_bf16(self.precision, self.torch_device.type):
            yield Problem("precision", slow, "warning")
        data = {}
        for run in self.trained_runs or ():
            try:
                data[run] = read_checkpoint(find_checkpoint(Path(run)))["config"]["data"]
            except (FileNotFoundError, ValueError) as error:
                yield Problem("trained_runs", str(error))
            except KeyError:
                yield Problem("trained_runs", f"{run} is not a run")
        yield from (Problem("trained_runs", each) for each in other_data(data))

    def unmeasurable(self, data: Mapping[str, Any]) -> Iterator[Problem]:
        """Why runs of some data, nodes by the names of the runs, could not be measured."""
        if other := [*other_data(data)]:
            yield from (Problem("runs", each) for each in other)
            return
        source: ImageSource = instantiate(next(iter(data.values())), DATA)
        try:
            _ = self.evaluator(source, source.images).extractor
        except ValueError as error:
            yield Problem("extractor", str(error))

    def rows(self) -> Iterator[tuple[str, float, Path]]:
        """Name, minutes and run of each row."""
        names = [(name, minutes) for minutes in self.minutes for name in self.runs]
        for (name, minutes), run in zip(names, self.trained_runs or (), strict=True):
            yield name, minutes, Path(run)

    def measure(self, keys: Keys) -> Result:
        """Draw what is not drawn yet, measure, and write table, plot and sheet."""
        if self.trained_runs is None:
            raise ValueError("trained_runs: none of the runs is trained")
        rows = list(self.rows())
        first = self.load(rows[0][2])
        evaluator = self.evaluator(first.source, first.images)
        scores, shown = [], {}
        for name, minutes, run in rows:
            title = f"{name}, {minutes:g} min"
            score, pixels = self._score(evaluator, title, run)
            scores.append(score)
            shown[title] = pixels[:SHOWN]
        controls = list(self._controls(evaluator)) if self.controls else []
        request = self.beside({key: value for key, value in keys.items() if key not in LOCAL})
        path = telling(ELSEWHERE, [self.name, f"n-{self.n}"], digest(request, 8), ".json")
        about = {"measure": self.name, "unnoise": version("unnoise"), "request": request}
        files = save(path, [*scores, *controls], **about)
        metric = next(iter(scores[0].metrics))
        drawing = path.with_suffix(".png")
        files.append(plot(drawing, [*scores, *controls], metric, "seconds", _family))
        real = evaluator.real("validation")
        shown["real"] = real.read(torch.arange(min(SHOWN, len(real))))
        files.append(sheet(path.with_name(f"{path.stem}_pictures.png"), shown))
        every = self.columns == "all" or self.metrics is not None
        return Result(table([*scores, *controls], every), files)

    def load(self, run: Path) -> TrainedModel:
        """The averaged model of a run."""
        return TrainedModel.load(
            run, device=self.device, data_root=self.data_root, data_changed=self.data_changed
        )

    def _score(self, evaluator: Evaluator, title: str, run: Path) -> tuple[Score, Tensor]:
        """A row: its metrics with costs, and its pictures."""
        trained, device = self.load(run), self.torch_device
        fast = lightning_precision(self.precision, device.type) == "bf16-mixed"
        samples = SampleSet(
            checkpoint=find_checkpoint(run),
            recipe=trained.config["sampler"],
            seed=self.seeds[0],
            precision="bf16" if fast else "fp32",
            prompts=prompts_digest(trained),
        )
        files = RunDirectory.of(samples.checkpoint)
        folder = files.evaluation / "drawn"
        gallery = evaluator.draw(folder, samples, self.n, lambda: trained, title)
        pixels = gallery.read(self.n)
        name = sampler_name(trained.config["sampler"])
        score = evaluator.score(title, drawn_samples(str(run), name, gallery), pixels)
        metrics = score.metrics | self._more(evaluator, pixels)
        if self.likelihood and (bits := self._bits(trained)) is not None:
            metrics["bits_per_dim"] = bits
        costs = replace(
            score.samples,
            seconds=self._seconds(trained, fast),
            parameters=sum(p.numel() for p in trained.model.network.parameters()),
            training=spent_in_all(files.path, trained.config),
        )
        return replace(score, samples=costs, metrics=metrics), pixels

    def _controls(self, evaluator: Evaluator) -> Iterator[Score]:
        """Real pictures and noise, with what the data set recognises in the real ones."""
        for score in evaluator.controls(self.n):
            more = {}
            if score.samples.kind == "real":
                real = evaluator.real("validation" if self.reference == "train" else "train")
                more = self._more(evaluator, real.read(torch.arange(min(self.n, len(real)))))
            yield replace(score, metrics=score.metrics | more)

    def _more(self, evaluator: Evaluator, pixels: Tensor) -> dict[str, Estimate]:
        source = evaluator.source
        return modes(source, pixels) if isinstance(source, HasCombinations) else {}

    def _seconds(self, trained: TrainedModel, bf16: bool) -> float:
        """Of a picture, in a batch; of the processor on a CPU, where other work does not count."""
        kind = self.torch_device.type
        clock = time.process_time if kind == "cpu" else time.perf_counter
        count = min(self.n, self.batch_size)
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            trained.draw(1, seed=1, batch_size=1)  # makes things ready
            begun = clock()
            trained.draw(count, seed=1, batch_size=count)
        return (clock() - begun) / count

    def _bits(self, trained: TrainedModel) -> Estimate | None:
        """Bits/dim of validation pictures: exact or a bound, by the ODE of a diffusion model.

        None where a model has no likelihood, as a GAN and a consistency model.
        """
        model, found = trained.model, []
        of_pixels = isinstance(model, DiffusionModel) and model.codec.is_pixels
        one_step = "consistency" in sampler_name(trained.config["sampler"])
        if not (isinstance(model, LikelihoodModel) or (of_pixels and not one_step)):
            return None
        loader = split_loader(trained.validation, batch_size=self.batch_size, limit=self.likelihood)
        for batch in loader:
            here: dict[str, Any] = dict(batch)
            here = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in here.items()}
            noise = Noise(0, here["position"])
            if isinstance(model, DiffusionModel):
                found.append(of_diffusion(model, here, noise, 2)["ODE"])
            else:
                with torch.no_grad():
                    found.append(torch.stack([*model.bits(here, noise).values()]).sum(0))
        (term,) = terms({"bits": torch.cat([each.cpu() for each in found])})
        return Estimate(term.mean, term.error)


def wanted_runs(runs: Mapping[str, Any]) -> dict[str, Wanted]:
    """Runs of a config as objects; ValueError says which key of which is wrong."""
    try:
        return TypeAdapter(dict[str, Wanted]).validate_python(dict(runs))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg'].lower()}") from error


def other_data(nodes: Mapping[str, Any]) -> Iterator[str]:
    """Which runs, of the nodes of their data by name, are of others than the first."""
    first, *others = nodes or [""]
    for name in others:
        found = differences({"data": nodes[first]}, {"data": nodes[name]}, arguments)
        for key, (its, own) in [*found.items()][:1]:
            yield f"{key} is {own!r} in {name}, but {its!r} in {first}: all are to have the same"


def _family(score: Score) -> str | None:
    return score.name.rpartition(", ")[0] or None


def table(scores: Sequence[Score], every: bool = False) -> str:
    """The rows for a terminal, with the costs first; without ``every`` metric, but for three."""
    left = () if every else ("sfd", "kid", "is")
    found = dict.fromkeys(name for score in scores for name in score.metrics)
    names = [name for name in found if name.partition("_")[0] not in left]
    costs = ("evaluations", "seconds", "training", "parameters")
    heads = ["", *("s/picture" if c == "seconds" else c for c in costs)]
    cells = [[*heads, *(name.partition("_")[0] for name in names)]]
    cells += [["", "", "", "s", "", *("".join(name.partition("_")[1:]) for name in names)]]
    for score in scores:
        values = [getattr(score.samples, cost) for cost in costs]
        texts = [
            "" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:.3g}" for v in values
        ]
        cells.append([score.name, *texts, *(str(score.metrics.get(k, "")) for k in names)])
    about = scores[0].fingerprint
    heading = f"{about.count} pictures against {about.reference}, features by {about.extractor}"
    return "\n".join([heading, *folded(cells, fixed=1)])


def sheet(path: Path, pictures: Mapping[str, Tensor]) -> Path:
    """A PNG with a row of pictures (k, C, H, W) uint8 for each name."""
    from matplotlib.figure import Figure  # slow to import

    k = max(map(len, pictures.values()))
    figure = Figure(figsize=(2.2 + 0.62 * k, 0.66 * len(pictures)), dpi=120)
    grid = figure.subplots(len(pictures), k, squeeze=False)
    figure.subplots_adjust(2.2 / (2.2 + 0.62 * k), 0.01, 0.995, 0.99, 0.05, 0.05)
    for axes, (name, some) in zip(grid, pictures.items(), strict=True):
        axes[0].text(-0.2, 0.5, name, transform=axes[0].transAxes, ha="right", va="center")
        for place, picture in zip(axes, some.permute(0, 2, 3, 1).numpy(), strict=False):
            grey = picture.shape[-1] == 1
            way = {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
            place.imshow(picture[..., 0] if grey else picture, interpolation="nearest", **way)
        for place in axes:
            place.axis("off")
    write_durably(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path

"""measure=adherence: the share of samples that show what their prompt says.

By classifiers, or by the data set itself where it can tell (``Recognises``).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unnoise.config.faults import Run
from unnoise.config.numbers import Count, Number
from unnoise.config.problems import Problem
from unnoise.data.source import Recognises
from unnoise.diffusion.samplers import Sampler
from unnoise.distributed.group import broadcast, join
from unnoise.evaluation import classifiers
from unnoise.evaluation.evaluator import Evaluator
from unnoise.evaluation.gallery import SampleSet
from unnoise.evaluation.grid import recipe
from unnoise.evaluation.measure import Keys, Measure, Result, Scale
from unnoise.evaluation.results import aligned
from unnoise.files import file_digest
from unnoise.models.averages import Averaged
from unnoise.models.classifier import classifier_file
from unnoise.models.codec import Codec
from unnoise.models.diffusion import diffusion_model
from unnoise.models.trained import TrainedModel
from unnoise.runs.identity import digest

Z = 1.959963984540054  # Φ(Z) − Φ(−Z) = 0.95


@dataclass(frozen=True)
class Agreement:
    """``agreed`` of ``n`` samples show what their prompt says, by a classifier."""

    agreed: int
    n: int

    @property
    def share(self) -> float:
        """p̂ = agreed/n."""
        return self.agreed / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the share (Wilson 1927).

        (p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), z = 1.96: it never leaves [0, 1] and
        holds its level where nearly all samples agree.
        """
        n, p = self.n, self.share
        middle = p + Z**2 / (2 * n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Args:
        pictures: "real", "reconstructed" by the autoencoder of a latent model, or "drawn".
        prompts: the name of the set of prompts.
        guidance: the scale; None for real pictures.
        label: what was recognised: "label", "kind", "kind and colour", …
        agreement: how many agree.
    """

    pictures: str
    prompts: str
    guidance: float | None
    label: str
    agreement: Agreement

    @property
    def values(self) -> dict[str, Any]:
        """The row as plain values, for CSV and JSON."""
        about = {"pictures": self.pictures, "prompts": self.prompts, "guidance": self.guidance}
        agreed, (low, high) = self.agreement, self.agreement.interval
        counts = {"judged": self.label, "n": agreed.n, "agreed": agreed.agreed}
        return {**about, **counts, "share": agreed.share, "low": low, "high": high}


def agreements(
    predicted: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Iterator[tuple[str, Agreement]]:
    """For each kind of label, how many of the predicted classes (N,) are the expected ones (N,).

    Of several kinds also how many samples agree in all of them, as "a and b".

    Raises:
        ValueError: there are no samples, or not one class for each.
    """
    hits: dict[str, Tensor] = {}
    for label, classes in predicted.items():
        if classes.shape != expected[label].shape or not len(classes):
            raise ValueError(
                f"{label}: {len(classes)} samples were judged, but {len(expected[label])} expected"
            )
        hits[label] = classes == expected[label]
    if len(hits) > 1:
        hits[" and ".join(hits)] = torch.stack([*hits.values()]).all(0)
    for label, hit in hits.items():
        yield label, Agreement(int(hit.sum()), len(hit))


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    cells = [("pictures", "prompts", "guidance", "judged by", "agree", "95 % interval", "n")]
    for row in rows:
        low, high = row.agreement.interval
        guidance = "" if row.guidance is None else f"{row.guidance:g}"
        numbers = f"{row.agreement.share:.1%}", f"{low:.1%} … {high:.1%}", str(row.agreement.n)
        cells.append((row.pictures, row.prompts, guidance, row.label, *numbers))
    return "\n".join(aligned(cells, left=(0, 1, 3)))


@dataclass(frozen=True, kw_only=True)
class Adherence(Measure):
    """The keys of ``conf/measure/adherence.yaml``."""

    run: Run
    seed: Number
    averaged: Averaged
    n: Count
    guidance: list[Scale]
    judge: str | list[str] | None
    classifier: str | None
    sampler: Sampler | None
    steps: Count | None

    name = "adherence"

    @property
    def judges(self) -> list[str] | None:
        """Those given, as a list."""
        return [self.judge] if isinstance(self.judge, str) else self.judge

    def by_data(self, trained: TrainedModel, labels: Sequence[str]) -> bool:
        """Whether the data set itself judges captions: it can, and no judge is given."""
        return isinstance(trained.source, Recognises) and "label" not in labels and not self.judges

    def conflicts(self) -> Iterator[Problem]:
        """What is wrong between the keys, whatever the run is."""
        if not self.guidance:
            yield Problem("guidance", "is empty: give scales, as guidance=[1,2]")

    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong between the keys, the run and the classifiers."""
        wrong = list(self.model_problems(self.averaged))
        yield from wrong
        if wrong:
            return
        trained, by_classifier = self.trained(self.averaged), self.classifier is not None
        sampler = self.sampler or trained.sampler
        try:
            trained.model.check_recipe(trained.model.changed(sampler, self.steps, None))
        except ValueError as error:
            yield Problem("steps", str(error))
        try:
            if by_classifier:
                what = "guidance by a classifier of pictures"
                diffusion_model(trained.model, what, of_pixels=True)
            labels = classifiers.needed_labels(trained, by_classifier)
            if "label" not in labels:
                classifiers.prompt_sets(trained.source, labels, self.n)
        except ValueError as error:
            yield Problem("n" if str(error).startswith("n ") else "run", str(error))
            return
        try:
            for scale in () if by_classifier else self.guidance:
                trained.check_guidance(scale)
        except ValueError as error:
            yield Problem("guidance", str(error))
        if self.by_data(trained, labels):
            return
        judges, found = classifiers.find(self.judges, labels, trained)
        yield from found
        if self.classifier is not None:
            _, found = classifiers.find([self.classifier], labels, trained)
            yield from (replace(problem, key="classifier") for problem in found)
            if classifier_file(self.classifier) in judges.values():
                reason = "also guides, and so judges itself: train another with another seed"
                yield Problem("judge", reason, "warning")

    def real(self, prompts: classifiers.PromptSet, by_data: bool) -> Tensor:
        """The real pictures of some prompts; as many as samples where judging them takes long."""
        every = len(prompts.real)
        return prompts.real.read(torch.arange(min(self.n, every) if by_data else every))

    def measure(self, keys: Keys) -> Result | None:
        """Draw what is not drawn yet, classify it and real pictures, and write."""
        place, device = join(), self.torch_device
        trained, checkpoint = self.trained(self.averaged), self.checkpoint
        labels = classifiers.needed_labels(trained, self.classifier is not None)
        by_data = self.by_data(trained, labels)
        files = {} if by_data else classifiers.find(self.judges, labels, trained)[0]
        if place.rank == 0:
            _ = trained.validation  # first, so that others than the run's are refused
        broadcast(None)  # the other ranks wait for the data
        judges = {label: classifiers.load(path).to(device) for label, path in files.items()}
        sets = classifiers.prompt_sets(trained.source, labels, self.n)
        guide = None if self.classifier is None else classifier_file(self.classifier)
        guiding = {} if guide is None else {"classifier": classifiers.load(guide).to(device)}
        evaluator = Evaluator(
            source=trained.source, device=device, batch_size=self.batch_size, place=place
        )
        rows: list[Row] = []
        judge = trained.source if isinstance(trained.source, Recognises) and by_data else judges
        for prompts in sets if place.rank == 0 else ():
            real = self.real(prompts, by_data)
            rows += compared("real", prompts, None, judge, real)
            if not trained.model.codec.is_pixels:
                again = through(trained.model.codec, real, self.batch_size, device)
                rows += compared("reconstructed", prompts, None, judge, again)
        sampler = keys["sampler"] or trained.config["sampler"]
        for prompts in sets:
            for scale in self.guidance:
                guided = scale if "guidance" in sampler else None  # then it is 1, which is off
                samples = SampleSet(
                    checkpoint=checkpoint,
                    recipe=recipe(sampler, self.steps, guided),
                    seed=self.seed,
                    averaged=self.averaged,
                    prompts=digest(prompts.options(judges), 12),
                    classifier=None if guide is None else file_digest(guide),
                )
                title = f"{prompts.name}, guidance {scale:g}"
                options = prompts.options(judges) | guiding
                gallery = evaluator.draw(
                    self.folder / "drawn", samples, self.n, lambda: trained, title, **options
                )
                if place.rank == 0:
                    rows += compared("drawn", prompts, scale, judge, gallery.read(self.n))
        if place.rank > 0:
            return None
        about: dict[str, Any] = {
            "sampler": sampler,
            **{key: keys[key] for key in ("n", "steps", "guidance", "seed", "averaged")},
            "classifier": None if guide is None else file_digest(guide),
            "judges": {label: file_digest(path) for label, path in files.items()} or "data",
        }
        return Result(table(rows), self.write_rows(about, [row.values for row in rows]))


def through(codec: Codec, pictures: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Pictures (N, C, H, W) as a codec gives them back: no sample can show more."""
    with torch.inference_mode():
        return torch.cat([
            codec.decode(codec.encode(part.to(device))).cpu()
            for part in torch.split(pictures, batch_size)
        ])  # fmt: skip


def compared(
    kind: Literal["real", "reconstructed", "drawn"],
    prompts: classifiers.PromptSet,
    guidance: float | None,
    judges: classifiers.Classifiers | Recognises,
    shown: Tensor,
) -> Iterator[Row]:
    """A row for each attribute of samples that are to show the first of some prompts, and for all.

    Those that a data set recognises are as many as there are samples that were to show something.
    """
    if isinstance(judges, Recognises):
        assert prompts.real.attributes is not None
        agreed = judges.agreement(shown, prompts.real.attributes[: len(shown)]).items()
        counted = [(label, Agreement(int(hit.sum()), len(hit))) for label, hit in agreed]
    else:
        predicted = {label: judge.predict(shown) for label, judge in judges.items()}
        expected = prompts.labels(judges, len(shown) if kind == "drawn" else None)
        counted = list(agreements(predicted, expected))
    for label, agreement in counted:
        yield Row(kind, prompts.name, guidance, label, agreement)

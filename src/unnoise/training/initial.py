"""Runs that start from the weights of another run, and consistency models, which often do."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from unnoise.config.nodes import MODEL, instantiate
from unnoise.config.problems import Problem
from unnoise.config.schema import arguments
from unnoise.diffusion.consistency import ConsistencyLoss, check_consistency
from unnoise.diffusion.denoiser import Prediction
from unnoise.diffusion.objectives import Objective
from unnoise.diffusion.samplers import Consistency, Sampler
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.schedules.base import same_path
from unnoise.runs.averaged import Averaged, averaged
from unnoise.runs.identity import Role, differences
from unnoise.runs.layout import shown

SAME = ("network", "conditioning", "autoencoder", "prediction", "learned_variance")
"""Keys that say what the weights mean."""
FREE = "network.dropout"
"""A key in there that does not."""


class Initial:
    """The averaged weights of ``run``, for another run to start from.

    ``digest`` says which they are, so that no others will do.

    Args:
        digest: of the weights.
        run: its directory, or a checkpoint.
    """

    def __init__(self, digest: str, run: Annotated[str, Role.MACHINE]) -> None:
        self.digest, self.run = digest, run

    @property
    def name(self) -> str:
        """The run, for a message."""
        return shown(Path(self.run))

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the whole model, by name."""
        return self.content.weights

    @property
    def content(self) -> Averaged:
        """What the run holds; ValueError if its weights are not those of ``digest``."""
        found = averaged(self.run)
        if found.digest != self.digest:
            raise ValueError(
                f"the weights of {self.name} ({found.digest}) are not those that the run started "
                f"from ({self.digest})"
            )
        return found

    def check(self) -> None:
        """ValueError or FileNotFoundError if they are not there."""
        _ = self.content


def misfits(
    initial: Initial, config: Mapping[str, Any], handed: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    """Where the weights would mean something else in a run of ``config``.

    What its networks are ``handed`` follows from the data, and is in the config of the other run.
    """
    try:
        content = initial.content
    except (ValueError, FileNotFoundError) as error:
        yield Problem("from", str(error))
        return
    given = tuple(f"{k}.{name}" for k in handed for name in handed[k])
    if not content.model["family"].endswith(".DiffusionModel"):
        yield Problem("from", f"{initial.name} is not the run of a diffusion model")
        return
    for key, (then, now) in differences(content.config, config, arguments).items():
        if key.partition(".")[0] in SAME and not key.startswith((*given, FREE)):
            message = f"is {now!r}, but the weights of {initial.name} (from=) were trained with "
            yield Problem(key, f"{message}{then!r}")


def same_levels(initial: Initial | None, schedule: NoiseSchedule, data: Any) -> Iterator[Problem]:
    """The run to start from knows the pictures' shape and the levels; where it trained is free."""
    if initial is None:
        return
    try:
        content = initial.content
    except (ValueError, FileNotFoundError):  # ``misfits`` says so
        return
    if (shape := tuple(content.model["shape"])) != tuple(data.shape):
        message = f"was trained on data of the shape {shape}, not {tuple(data.shape)}"
        yield Problem("from", f"{initial.name} {message}")
    if "schedule" in content.config:
        other = instantiate(content.config["schedule"], MODEL)
        if not same_path(schedule, other):
            message = f"has other noise levels than {initial.name} (from=): choose its schedule"
            yield Problem("schedule", message)


def consistency(
    objective: Objective, prediction: Prediction, schedule: NoiseSchedule, sampler: Sampler
) -> Iterator[Problem]:
    """A consistency model fits its prediction, and is drawn from as such; no other model is."""
    is_one, drawn = isinstance(objective, ConsistencyLoss), isinstance(sampler.stepper, Consistency)
    if is_one:
        try:
            check_consistency(prediction, schedule)
        except ValueError as error:
            yield Problem("prediction", str(error))
    if is_one and not drawn:
        message = "goes step by step, but a consistency model says where the path ends: "
        yield Problem("sampler", f"{message}use consistency", "warning")
    if drawn and not is_one:
        message = "takes means for samples, as the objective trains no consistency model: "
        yield Problem("sampler", f"{message}use another, or objective=consistency", "warning")


def stages(objective: Objective, initial: Initial | None, max_steps: int) -> Iterator[Problem]:
    """Consistency tuning starts from a diffusion model, and gets to its last stage."""
    if not isinstance(objective, ConsistencyLoss):
        return
    if initial is None and not objective.diffusion_steps:
        message = "0, so that what is tuned are random weights: from=RUN takes those of a "
        message += "diffusion model, and some steps here train one first"
        yield Problem("objective.diffusion_steps", message, "warning")
    last = objective.diffusion_steps + (objective.stages - 1) * objective.every
    if last >= max_steps:
        message = f"the last of {objective.stages} stages would begin after {last} steps, but "
        message += f"there are {max_steps}: fewer steps a stage, fewer stages, or more max_steps"
        yield Problem("objective.every", message, "warning")

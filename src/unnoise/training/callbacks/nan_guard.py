"""Losses, gradients and weights that are not finite, and spikes of the loss."""

import json
import math
from collections import deque
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

from lightning import Callback, LightningModule, Trainer
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count, Number
from unnoise.distributed import group as ranks
from unnoise.files import remove_with_digest, write_text
from unnoise.runs.checkpoints import before_step, checkpoints
from unnoise.runs.layout import RunDirectory, shown, step_of
from unnoise.training.callbacks.checkpoints import NotFinite
from unnoise.training.logging.record import alert, log_metrics, say

WINDOW = 100  # latest steps with which a loss is compared
SEEN = 50  # fewest of these


class RollBack(BaseException):
    """Training continues from ``checkpoint`` with other noise. Like an exit, it is no failure."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"going on from {checkpoint}")
        self.checkpoint = checkpoint


class Step(NamedTuple):
    """A step: its number, means over all ranks, and this rank's samples, by micro-batch (B,).

    "position" is in the stream, "index" in the split, "u", if there is one, the time's quantile.
    """

    number: int
    loss: float
    gradient_norm: float
    samples: list[dict[str, Tensor]]

    @property
    def not_finite(self) -> str:
        """The first quantity of the step that is not finite."""
        if not math.isfinite(self.loss):
            return "loss"
        return "weight" if math.isfinite(self.gradient_norm) else "gradient"


class BadNumbers(Callback):
    """Counts steps that are not finite, which GenerativeModule skips, and ends hopeless training.

    If more than ``tolerated`` of the last ``within`` steps were bad, or a weight that would be
    saved is not finite, the run goes back to its last checkpoint before the bad steps and continues
    with other noise. It does so at most ``rollbacks`` times; then it ends, and
    ``<run>/bad_batch.json`` names the pictures of the last bad step. Under fp16 gradients overflow
    until their scale is found: while it is above 1, only the loss decides whether a step is bad.

    The number of bad steps is logged as ``train/skipped_steps``. A loss ``spike`` or more
    deviations above the last 100 (see ``leap``) is logged as ``train/loss_spike``, in deviations.
    Must come before Checkpoints, which save its counts.

    Raises:
        NotFinite: too many steps were bad; see ``way_on``.
    """

    def __init__(
        self,
        tolerated: Number = 10,
        within: Count = 100,
        rollbacks: Number = 2,
        spike: Annotated[float, Field(gt=0)] = 6.0,
    ) -> None:
        self.tolerated, self.within = tolerated, within
        self.rollbacks, self.spike = rollbacks, spike

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Start all counts at zero; ``load_state_dict`` restores them."""
        self._losses: deque[float] = deque(maxlen=WINDOW)  # those with a finite logarithm
        self._bad: list[int] = []  # steps, of the last ``within``
        self._skipped = self._reported = 0
        self._samples: list[dict[str, Tensor]] = []  # of the step under way
        self._last = Step(trainer.global_step, 0.0, 0.0, [])
        self._last_bad: Step | None = None

    def state_dict(self) -> dict[str, Any]:
        """The counts, with which a resumed run logs what an uninterrupted run would."""
        counts = {"bad": self._bad, "skipped": self._skipped, "rollbacks": self._reported}
        return {"losses": list(self._losses)} | counts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self._losses.extend(state_dict["losses"])
        self._bad, self._skipped = list(state_dict["bad"]), state_dict["skipped"]
        self._reported = state_dict["rollbacks"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Log that the run went back to this step."""
        if module.rollbacks > self._reported:
            log_metrics(trainer, {"train/rollbacks": module.rollbacks})
        self._reported = module.rollbacks

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the step that was taken or skipped."""
        part = {key: batch[key] for key in ("position", "index")}
        part |= {"u": outputs["u"]} if "u" in outputs else {}
        self._samples.append(part | {"loss": outputs["per_sample"]})
        if not module.stepped:
            return
        loss = ranks.sum_over_ranks([module.loss])[0] / trainer.world_size
        step = Step(trainer.global_step, loss, module.gradient_norm, self._samples)
        self._last, self._samples = step, []
        self._bad = [number for number in self._bad if number > step.number - self.within]
        if 0 < loss < math.inf:
            above = leap(loss, self._losses) if len(self._losses) >= SEEN else 0.0
            if above >= self.spike:
                log_metrics(trainer, {"train/loss_spike": above})
            self._losses.append(loss)
        if module.skipped:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scaled = scaler is not None and scaler.get_scale() > 1  # an overflow lowers it
            if not (math.isfinite(loss) and scaled):
                self._count(trainer, step)

    def way_on(self, trainer: Trainer, rollbacks: int, error: NotFinite) -> RollBack | NotFinite:
        """What to raise instead of ``error``; every rank calls it.

        Before a rollback rank 0 removes the checkpoints after the one that the run goes back to.
        """
        run_dir = Path(trainer.default_root_dir)
        before = min(self._bad, default=trainer.global_step + 1)
        first = trainer.is_global_zero
        checkpoint = ranks.broadcast(before_step(run_dir, before) if first else None)
        if checkpoint is not None and rollbacks < self.rollbacks:
            then = f"going on from step {step_of(checkpoint)} with other noise"
            count = f"rollback {rollbacks + 1} of {self.rollbacks}"
            alert(trainer, "bad numbers", f"{error}; {then} ({count})")
            if first:
                later = [p for p in checkpoints(run_dir) if step_of(p) > step_of(checkpoint)]
                remove_with_digest(later)
            return RollBack(checkpoint)
        path, step = RunDirectory(run_dir).bad_batch, self._last_bad or self._last
        here = [
            dict(zip(part, row, strict=True))
            for part in step.samples
            for row in zip(*(each.tolist() for each in part.values()), strict=True)
        ]
        rows = sorted(chain(*ranks.gather(here)), key=lambda row: row["position"])
        report = {
            "error": str(error),
            "step": step.number,
            "not_finite": step.not_finite,
            "loss": _plain(step.loss),
            "gradient_norm": _plain(step.gradient_norm),
            "rollbacks": rollbacks,
            "samples": [row | {"loss": _plain(row["loss"])} for row in rows],
        }
        if first:
            text = json.dumps(report, indent=2) + "\n"
            write_text(path, text)
        times = f"{rollbacks} rollback{'' if rollbacks == 1 else 's'}"
        done = f"after {times}" if checkpoint else "there is no checkpoint to go to"
        names = f"{shown(path)} names the pictures of the step"
        return NotFinite(f"{error}; {done}, the run ends: {names}")

    def _count(self, trainer: Trainer, step: Step) -> None:
        if not self._bad and trainer.is_global_zero:
            say(f"the {step.not_finite} of step {step.number} is not finite: it is skipped")
        self._last_bad = step
        self._bad.append(step.number)
        self._skipped += 1
        log_metrics(trainer, {"train/skipped_steps": self._skipped})
        if len(self._bad) > self.tolerated:
            raise NotFinite(
                f"{len(self._bad)} of the last {self.within} steps to step {step.number} had a "
                "loss or a gradient that is not finite"
            )


def leap(loss: float, before: Iterable[float]) -> float:
    """How far ln(loss) lies above the median of those before, in robust standard deviations.

    A robust deviation is 1.4826 times the median distance from the median, which is the standard
    deviation of a normal distribution. It does not depend on the scale of the losses, and hardly on
    single spikes. 0 if all losses before were equal.
    """
    logs = [math.log(each) for each in before]
    usual = median(logs)
    deviation = 1.4826 * median(abs(each - usual) for each in logs)
    return (math.log(loss) - usual) / deviation if deviation else 0.0


def _plain(number: float) -> float | str:
    """As JSON can hold it: a number, "nan" or "inf"."""
    return number if math.isfinite(number) else str(number)

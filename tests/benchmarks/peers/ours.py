"""unnoise in the benchmark against peers: a shipped experiment, by the command's own path."""

from typing import Any

import torch
from budget import Budget
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from worker import BF16, SIZE, arguments, budget, finish

import unnoise
from unnoise.cli.train import check
from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.training.loop import fit
from unnoise.training.optimization import factor

EXPERIMENT = ["experiment=fashion_mnist", f"data.image_size={SIZE}",
              "network.attention_resolutions=[8]"]  # fmt: skip
QUIET = ["logger=none", "~callbacks.samples", "~callbacks.forward_process", "max_steps=1000000",
         "validate_every=1000000"]  # fmt: skip


class Deadline(Callback):
    """Ends training with the budget, and lets the learning rate fall to 0 there.

    What a person does who knows how many steps the time gives: ``max_steps`` is that number, by
    the speed so far, told anew before each step.
    """

    def __init__(self, budget: Budget, warmup_steps: int, decay: Any) -> None:
        self.budget, self.warmup_steps, self.decay = budget, warmup_steps, decay

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From here on time counts."""
        self.budget.begin()

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the step before, and look how many the budget gives."""
        if trainer.global_step == 0:
            return
        self.budget.step()
        steps = max(trainer.global_step + 1, self.budget.steps_in_all)
        trainer.fit_loop.epoch_loop.max_steps = steps
        scheduler: Any = trainer.lr_scheduler_configs[0].scheduler
        scheduler.lr_lambdas = [lambda step: factor(step, self.warmup_steps, self.decay, steps)]

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The last step, with its checkpoint."""
        self.budget.step()


def main() -> None:
    given = arguments()
    asked = [*EXPERIMENT, *given.overrides]
    config, problems = check_command_line("train", [*asked, *QUIET, f"data.root={given.data_root}"])
    assert config is not None, problems
    assert not any(check(config))
    torch.manual_seed(config["seed"])
    experiment = instantiate(config)
    spent = budget(given)
    deadline = Deadline(spent, experiment.warmup_steps, experiment.lr_decay)
    experiment.callbacks["deadline"] = deadline
    fit(experiment, config, given.out, None)
    trained = unnoise.load(given.out, device="cpu")

    def draw(first: int, count: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            return trained.sample(count, first=first).pixels

    packages = ("unnoise", "torch", "lightning")
    settings = {"command": ["unnoise-train", *asked]}
    finish(given.out, spent, experiment.network, experiment.batch_size, packages, settings, draw,
           given.n)  # fmt: skip


if __name__ == "__main__":
    main()

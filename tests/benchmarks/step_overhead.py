"""The share of a training step that is neither forward pass, backward pass nor optimizer.

Trains an experiment of diffusion with its usual callbacks for a number of steps and times, in
each, the network's forward pass, the backward pass and the optimizer's update. What is left is
reading data, drawing noise, the loss, clipping, the averaged weights, metrics, and Lightning.
The time is the processor's, of one thread: what else runs on the machine hardly changes it.

    python tests/benchmarks/step_overhead.py [--steps 150] [--experiment sprites_ddpm]
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

import torch
from lightning import Callback

from unnoise.cli.train import check
from unnoise.config.compose import check_command_line
from unnoise.distributed.memory import keep_memory
from unnoise.training.loop import fit
from unnoise.training.start import prepared

ROOT = Path(__file__).parents[2]
SKIPPED = 20  # steps, while caches warm


class Clock(Callback):
    """Adds up what each training step spends in its three parts."""

    def __init__(self):
        self.steps, self.parts = [], []

    def on_train_start(self, trainer, module):
        network = module.model.denoiser.network
        network.register_forward_pre_hook(lambda *_: self._begin())
        network.register_forward_hook(lambda *_: self._end("forward"))
        optimizer = trainer.optimizers[0]
        clip = module.configure_gradient_clipping

        def clip_then_begin(*args, **kwargs):
            clip(*args, **kwargs)
            self._begin()

        module.configure_gradient_clipping = clip_then_begin
        optimizer.register_step_post_hook(lambda *_: self._end("optimizer"))
        self._last = None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        now = process_time()
        if self._last is not None:
            self.steps.append(now - self._last)
            self.parts.append(self._spent)
        self._last, self._spent = now, {}

    def on_before_backward(self, *_):
        self._begin()

    def on_after_backward(self, *_):
        self._end("backward")

    def _begin(self):
        self._started = process_time()

    def _end(self, part):
        self._spent[part] = process_time() - self._started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/step_overhead.json")
    parser.add_argument("--experiment", default="sprites")
    arguments = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    name = arguments.experiment
    overrides = [f"experiment={name}", "logger=none", f"max_steps={arguments.steps}",
                 "~callbacks.samples", "~callbacks.checkpoints", "~callbacks.forward_process",
                 "validate_every=100000"]  # fmt: skip
    config, problems = check_command_line("train", overrides)
    assert config is not None, problems
    errors = [each for each in (*problems, *check(config)) if each.severity == "error"]
    assert not errors, errors
    experiment = prepared(config)
    clock = Clock()
    experiment.callbacks["clock"] = clock
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment, config, Path(folder), None)
    steps, parts = clock.steps[SKIPPED:], clock.parts[SKIPPED:]
    share = [1 - sum(part.values()) / step for step, part in zip(steps, parts, strict=True)]
    result = {
        "steps": len(steps),
        "batch": config["batch_size"],
        "precision": config["precision"],
        "threads": torch.get_num_threads(),
        "ms_per_step": 1e3 * median(steps),
        **{f"ms_{part}": 1e3 * median(p[part] for p in parts) for part in parts[0]},
        "share_of_the_rest": median(share),
    }
    print(f"\ntraining step of experiment={name}, batch {result['batch']}, median of {len(steps)}")
    for part in ("forward", "backward", "optimizer"):
        print(f"  {part:<10} {result['ms_' + part]:8.2f} ms")
    print(f"  {'step':<10} {result['ms_per_step']:8.2f} ms")
    print(f"  the rest   {100 * result['share_of_the_rest']:8.1f} %   (target: 3 %)")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

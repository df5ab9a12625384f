"""The share of a training step that goes into surviving: signals, bad numbers, checkpoints.

Trains the sprites experiment with its usual callbacks, checkpoints at their usual distance, and
adds up the time inside every hook of the callbacks that guard a run, and inside writing the primary
log. A hook is timed where it runs, so that a noisy machine moves both sides of the ratio.

    python tests/benchmarks/safety_overhead.py [--steps 1020] [--out …/safety_overhead.json]
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from time import perf_counter

import torch
from lightning import Callback

from unnoise.cli.train import check
from unnoise.config.compose import check_command_line
from unnoise.distributed.memory import keep_memory
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.callbacks.nan_guard import BadNumbers
from unnoise.training.callbacks.stop import Stop
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.loop import fit
from unnoise.training.start import prepared

ROOT = Path(__file__).parents[2]
SKIPPED = 20  # steps, while caches warm
GUARDS = {
    "signals": (Stop, "on_train_batch_start on_before_optimizer_step on_train_batch_end".split()),
    "bad numbers": (BadNumbers, ["on_train_batch_end"]),
    "checkpoints": (Checkpoints, ["on_train_batch_end"]),
    "metrics.jsonl": (JsonLines, ["log_metrics"]),
}


class Clock(Callback):
    """Takes the time of the steps from number SKIPPED on."""

    def __init__(self):
        self.spent, self.steps, self.started = defaultdict(float), 0, None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == SKIPPED:
            self.spent.clear()
            self.started = perf_counter()

    def on_train_end(self, trainer, module):
        self.seconds = perf_counter() - self.started
        self.steps = trainer.global_step - SKIPPED

    def watch(self, name, kind, hook):
        """Add what a method takes to ``spent[name]``."""
        method = getattr(kind, hook)

        def timed(*args, **kwargs):
            begun = perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.spent[name] += perf_counter() - begun

        setattr(kind, hook, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=1020)  # one checkpoint at its usual distance
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/safety_overhead.json")
    arguments = parser.parse_args()
    keep_memory()
    overrides = ["experiment=sprites", "logger=none", f"max_steps={arguments.steps}",
                 "callbacks.checkpoints.every=1000", "~callbacks.samples",
                 "~callbacks.forward_process", "validate_every=100000"]  # fmt: skip
    config, problems = check_command_line("train", overrides)
    assert config is not None, problems
    assert not any(problem.severity == "error" for found in check(config) for problem in found)
    experiment = prepared(config)
    clock = Clock()
    experiment.callbacks["clock"] = clock
    for name, (kind, hooks) in GUARDS.items():
        for hook in hooks:
            clock.watch(name, kind, hook)
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment, config, Path(folder), None)
    share = {name: clock.spent[name] / clock.seconds for name in GUARDS}
    result = {
        "steps": clock.steps,
        "batch": config["batch_size"],
        "threads": torch.get_num_threads(),
        "ms_per_step": 1e3 * clock.seconds / clock.steps,
        "share": share,
        "share_of_all": sum(share.values()),
    }
    print(
        f"\ntraining of experiment=sprites, {clock.steps} steps of {result['ms_per_step']:.1f} ms"
    )
    for name in GUARDS:
        print(f"  {name:<14} {1e3 * clock.spent[name] / clock.steps:7.3f} ms  {share[name]:8.3%}")
    print(f"  {'all of it':<14} {'':>10}  {result['share_of_all']:8.3%}   (target: under 2 %)")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

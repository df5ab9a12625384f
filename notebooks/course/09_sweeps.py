# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 · A sweep, its report, many processors
#
# One run is an anecdote. To say that one schedule is better than another takes several runs, with
# several seeds, and a page that puts them side by side. Here we run a small *sweep* by one command, read its
# report, stop a run and resume it, and then see what changes when a run is spread over many processors:
# nothing but the rounding.
#
# About six minutes of one processor core; the times that the commands print below are of a busy one.

# %%
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

import unnoise
from unnoise.diffusion.noise import Noise
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 300))  # of each run
TINY = STEPS < 20  # the test suite only wants to see that all cells run


def unnoise_command(name, *arguments):
    """Run ``unnoise-NAME ARGUMENTS`` as in a terminal, and return what it prints."""
    code = f"from unnoise.cli.{name} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


# %% [markdown]
# ## A sweep
#
# With `-m` a value may be a list, and each combination is a job. Four jobs: two schedules, two seeds. In
# a terminal:
#
# ```
# unnoise-train -m experiment=sprites name=course_sweep schedule=linear,cosine seed=0,1 max_steps=300
# ```
#
# All four are checked before the first one starts, so that a typing error in the last one does not wait
# for hours. (The other keys below keep the runs short.)

# %%
short = ["experiment=sprites", "logger=none", f"max_steps={STEPS}", "warmup_steps=20"]
short += ["optimizer=muon", "optimizer.lr=2e-3", "lr_decay=cosine", "network.head_size=null"]
short += ["callbacks.samples.count=16", "sampler=dpm_solver", "trainer=cpu", "precision=fp32"]
if TINY:
    short += ["network.channels=8", "sampler.steps=2", "data.size=200", "validation_images=32"]
else:
    short += ["network.channels=16", "sampler.steps=10", "validation_images=256"]
jobs = ["schedule=linear", "seed=0"] if TINY else ["schedule=linear,cosine", "seed=0,1"]
sweep = ["-m", *short, "name=course_sweep", f"validate_every={max(1, STEPS // 4)}", *jobs]
print(unnoise_command("train", *sweep)[-1500:])

# %% [markdown]
# The last lines are the *summary*. The same command again does only what is missing: it skips what is
# finished, goes on with what was interrupted, and tries again what failed. `sweep=status` runs nothing
# and only prints it. The star is at the lowest loss; read on before you believe it.

# %%
again = unnoise_command("train", *sweep, "sweep=status")
print(again)
assert again.splitlines()[-1].startswith("1 job: 1 finished" if TINY else "4 jobs: 4 finished")

# %% [markdown]
# ## What does the difference mean?
#
# Every run writes `metrics.jsonl`, a line for each thing that it logs.

# %%
curves = {}
for run in sorted(Path("outputs/course_sweep").iterdir()):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    config = (run / "config.yaml").read_text()
    schedule = "cosine" if "schedules.cosine" in config else "linear"
    losses = [(row["step"], row["validation/loss"]) for row in rows if "validation/loss" in row]
    curves.setdefault(schedule, []).append(losses)
figure, axes = plt.subplots(figsize=(6, 3))
for number, (schedule, seeds) in enumerate(curves.items()):
    for k, losses in enumerate(seeds):
        label = schedule if k == 0 else None
        axes.plot(*zip(*losses, strict=True), color=f"C{number}", marker="o", label=label)
axes.set(xlabel="step", ylabel="validation loss")
axes.legend()
figure.tight_layout()

# %% [markdown]
# Lines of one colour differ by the seed only. Two warnings. The gap between colours has to be large
# compared with that between seeds, before it says anything. And here it says nothing even then: each
# schedule has its own loss (how hard it is to predict $\varepsilon$ depends on how much noise there is),
# so that the losses of two schedules cannot be compared at all. What can be compared is what they draw:
# a row for each run, in the order of the report below, all on the same noise.

# %%
models = [unnoise.load(run) for run in sorted(Path("outputs/course_sweep").iterdir())]
rows = [model.sample(10, steps=2 if TINY else 10).pixels for model in models]
grid(torch.cat(rows), columns=10)

# %% [markdown]
# All four make much the same of the same noise: colours and outlines, no sprites yet. This is a fifth of the
# training that `experiment=sprites` takes, by a network of a quarter of the weights. A sweep for a decision
# takes the length of the real training, and a number for what is drawn, such as FID
# ([quality](../guide/quality.md)).
#
# ## The report
#
# `unnoise-report` puts any runs on one page, with their samples, curves, and the keys in which they
# differ. It also knows which losses compare, and says so. The page is a file that needs no network;
# `--watch` serves it while the runs train.

# %%
print(unnoise_command("report", "outputs/course_sweep", "-o", "report.html"))
page = Path("report.html").read_text()
assert "schedule" in page
assert all(run.name in page for run in Path("outputs/course_sweep").iterdir())

# %% [markdown]
# The picture below is that page, taken by a browser without a window if there is one here; if not, the
# first sample grid of the sweep stands in.

# %%
browser = shutil.which("chromium") or shutil.which("google-chrome")
shot = Path("report.png")
if browser and not TINY:
    switches = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,1500"]
    command = [browser, *switches, f"--screenshot={shot}", Path("report.html").resolve().as_uri()]
    subprocess.run(command, capture_output=True, check=False, timeout=120)
if not shot.exists():
    first = sorted(Path("outputs/course_sweep").iterdir())[0]
    shot = max((first / "samples").glob("step_*.png"))
picture = Image.open(shot)
picture = picture.crop((0, min(110, picture.height // 4), *picture.size))  # without its heading
picture = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
picture

# %% [markdown]
# ## Resuming
#
# A run is a function of its config and its data: noise and order come from a counter, not from a state.
# So a run that was stopped goes on, bit for bit, as if nothing had been. We train one run in one go, and
# another to the middle and then to the end.

# %%
middle, end = (1, 2) if TINY else (10, 20)
tiny_net = ["network.channels=8", "network.head_size=null", "data.size=500", "validation_images=32"]
tiny = ["experiment=sprites", "logger=none", "callbacks.samples.count=4", "sampler.steps=2"]
tiny += ["trainer=cpu", "precision=fp32", "validate_every=1000", "lr_decay=constant", *tiny_net]


def weights(run, step):
    """The trained weights of a run after so many steps, by name."""
    file = run / "checkpoints" / f"step_{step:08d}.ckpt"
    state = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("model.")}


def directory(name):
    """The newest run of a name."""
    return max(Path("outputs", name).iterdir())


unnoise_command("train", *tiny, "name=course_whole", f"max_steps={end}")
unnoise_command("train", *tiny, "name=course_parts", f"max_steps={middle}")
stopped = f"resume={directory('course_parts')}"
unnoise_command("train", *tiny, "name=course_parts", stopped, f"max_steps={end}")
whole, parts = (weights(directory(name), end) for name in ("course_whole", "course_parts"))
assert whole.keys() == parts.keys()
assert all(torch.equal(whole[name], parts[name]) for name in whole)
print(f"{len(whole)} tensors of weights are equal, bit for bit")

# %% [markdown]
# ## Many processors
#
# How do $N$ processors train one network? Each has a copy $\theta$ and takes $1/N$ of each batch. For the
# mean loss of a batch of $B$ pictures,
#
# $$\nabla_\theta \frac1B \sum_{i=1}^{B} \ell_i = \frac1N \sum_{r=1}^{N}
# \Big( \nabla_\theta \frac{N}{B} \sum_{i \in \text{rank } r} \ell_i \Big):$$
#
# the mean of the ranks' gradients is the gradient of the whole batch, if all have equally many pictures. So
# after each backward pass the ranks add up their gradients (an *all-reduce*), divide by $N$, and take the
# same step. Their copies stay equal. This is data parallelism, `DistributedDataParallel` in PyTorch (Li et
# al. 2020). By hand:

# %%
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.SiLU(), torch.nn.Linear(16, 6))
ids = torch.arange(8)
x, target = Noise(0, ids).normal("x", (6,)), Noise(0, ids).normal("target", (6,))


def gradients(rows):
    """Of the mean loss over some rows of the batch, from the same weights."""
    model = copy.deepcopy(network)
    (model(x[rows]) - target[rows]).square().mean().backward()
    return [p.grad for p in model.parameters()]


ranks = 2
of_ranks = [gradients(torch.arange(rank, 8, ranks)) for rank in range(ranks)]
reduced = [torch.stack(each).mean(0) for each in zip(*of_ranks, strict=True)]
for by_ranks, at_once in zip(reduced, gradients(ids), strict=True):
    assert torch.allclose(by_ranks, at_once, atol=1e-6)

# %% [markdown]
# What must not happen: that both ranks draw the same noise, or other noise than one process would. In this
# library the noise of a picture depends on its place in the training stream, not on who computes it. So two
# processes give the weights of one, up to the rounding of sums that are added in another order. `batch_size`
# is that of a step in all. `trainer=ddp_cpu` is two processes on this machine:

# %%
unnoise_command("train", *tiny, "name=course_ranks", f"max_steps={end}", "trainer=ddp_cpu")
split = weights(directory("course_ranks"), end)
apart = max(float((whole[name] - split[name]).abs().max()) for name in whole)
print(f"one process and two: weights differ by {apart:.1e} at most after {end} steps")
assert whole.keys() == split.keys()
assert apart < 1e-3

# %% [markdown]
# Is that little? Below: the largest difference in each tensor of weights, between one process and two,
# and between step 10 and step 20 of the same run, which is what training did.

# %%
earlier = weights(directory("course_parts"), middle)
figure, axes = plt.subplots(figsize=(6, 3))
for other, what in ((earlier, f"step {middle} and step {end}"), (split, "one process and two")):
    distances = sorted(float((whole[name] - other[name]).abs().max()) for name in whole)
    axes.semilogy([max(each, 1e-9) for each in distances], label=what)
axes.set(xlabel="tensors of weights, in order", ylabel="largest difference", ylim=(5e-10, 1))
axes.legend()
figure.tight_layout()

# %% [markdown]
# On real machines the command stays the same:
#
# ```
# unnoise-train experiment=cifar10_ddpm trainer=ddp                      # all GPUs of this machine
# torchrun --nproc-per-node=4 --no-python unnoise-train experiment=cifar10_ddpm trainer=ddp
# unnoise-train -m hydra/launcher=joblib hydra.launcher.n_jobs=4 …       # four jobs of a sweep at once
# unnoise-train -m hydra/launcher=gpus …                                 # a job a GPU, the next when one is free
# unnoise-train -m hydra/launcher=slurm trainer=slurm trainer.devices=4 trainer.num_nodes=2 …   # a cluster
# ```
#
# What you gain is not four times with four GPUs: the ranks wait for the slowest one, and for the gradients
# to travel. Measure pictures per second (in `metrics.jsonl`), and do not change `batch_size` without
# thinking about the learning rate.
#
# ## Exercises
#
# **1.** Three ranks share 8 pictures: 3, 3 and 2. Show that the plain mean of the three gradients is *not*
# the gradient of the batch, and find the weights that make it so.
#
# **2.** A sweep has `schedule=linear,cosine,sigmoid`, `optimizer.lr=1e-3,2e-3` and `seed=0,1,2`. How many
# jobs? You then add `seed=3` to the list. How many jobs does the same command still train? Add a seed to the
# sweep above, and ask it.
#
# **3.** Two settings were run with three seeds each. Their losses are 0.812, 0.807, 0.815 and 0.806, 0.810,
# 0.799. Is the second better? Compute the difference of the means and its standard error.

# %% [markdown]
# ### Solution
#
# **1.** Each rank's gradient is that of a mean over *its* pictures, so it must count as many times as it has
# pictures: the weights are 3/8, 3/8 and 2/8.

# %%
shares = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.tensor([6, 7])]
each = [gradients(rows) for rows in shares]
whole_batch = gradients(ids)
plain = [torch.stack(g).mean(0) for g in zip(*each, strict=True)]
weighted = [
    sum(len(r) / 8 * g for r, g in zip(shares, gs, strict=True)) for gs in zip(*each, strict=True)
]
assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(plain, whole_batch, strict=True))
assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weighted, whole_batch, strict=True))

# %% [markdown]
# **2.** $3 \cdot 2 \cdot 3 = 18$ jobs. With a fourth seed there are 24, of which 18 are finished and are
# found again by what their config says: 6 are trained.

# %%
more = ["schedule=linear", "seed=0,1"] if TINY else ["schedule=linear,cosine", "seed=0,1,2"]
last = unnoise_command("train", *sweep[: -len(jobs)], *more, "sweep=status").splitlines()[-1]
print(last)
assert ("1 finished, 1 to do" if TINY else "4 finished, 2 to do") in last

# %% [markdown]
# **3.** The difference is 0.0063 ± 0.0040, one and a half standard errors: it may well be chance. With as
# few as three seeds even two standard errors would not be much.

# %%
first, second = torch.tensor([0.812, 0.807, 0.815]), torch.tensor([0.806, 0.810, 0.799])
difference = first.mean() - second.mean()
error = (first.var() / 3 + second.var() / 3).sqrt()
print(f"{difference:.4f} ± {error:.4f}: {difference / error:.1f} standard errors")
figure, axes = plt.subplots(figsize=(5, 2.4))
for row, losses in enumerate((first, second)):
    axes.plot(losses, [row] * 3, "o", alpha=0.5)
    axes.errorbar(losses.mean(), row, xerr=losses.std() / 3**0.5, fmt="k|", capsize=4)
axes.set(xlabel="loss", yticks=(0, 1), yticklabels=("first", "second"), ylim=(-0.6, 1.6))
figure.tight_layout()
assert 1 < difference / error < 2

# %% [markdown]
# Where to go from here: `hparams_search=learning_rate` searches instead of trying a grid (Optuna, with
# pruning), and [clusters](../guide/clusters.md) has launchers, SLURM and what happens when a machine is taken
# away. The last notebook is about your own data and parts.

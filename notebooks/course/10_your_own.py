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
# # 10 · Your own data, and your own parts
#
# A framework is worth its name when your own pictures and your own ideas fit in. First we draw a
# folder of pictures with a table of captions, and train on them. Then we write three parts (a
# schedule, a sampler and a condition), check each by an answer that is known, and train with them by
# name, without a change to the package.
#
# Two small trainings, about seven minutes of one processor core; the times that the commands print below
# are of a busy one.

# %%
import csv
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

os.environ["UNNOISE_ALLOW"] = "mine"  # the package that we write below; before unnoise is imported
import unnoise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 500))  # of training
TINY = STEPS < 100  # the test suite only wants to see that all cells run


def unnoise_command(name, *arguments):
    """Run ``unnoise-NAME ARGUMENTS`` as in a terminal, and return what it prints."""
    code = f"from unnoise.cli.{name} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def train(name, *arguments):
    """Train; if it was trained before, only say so. Returns the run's directory."""
    small = ["network.channels=8", "network.head_size=null", "sampler.steps=2"] if TINY else []
    seldom = ["callbacks.samples.every=100000", "callbacks.samples.count=16", "logger=none"]
    seldom += ["callbacks.checkpoints.every=100000", "validate_every=250", "validation_images=64"]
    run = ["experiment=sprites", "optimizer=muon", "optimizer.lr=1e-3"]
    run += [f"name={name}", f"max_steps={STEPS}", "resume=true"]
    print(unnoise_command("train", *arguments, *run, *seldom, *small))
    return max(Path("outputs", name).iterdir())


# %% [markdown]
# ## A folder of pictures
#
# Your pictures would be photographs, scans or plots. Ours are discs, squares and triangles in six
# colours. A subfolder is a class, `metadata.csv` has a caption for each file, and the folders `train`
# and `validation` are the splits.
#
# One pairing, the purple triangle, is left out of both. At the end we ask for it.

# %%
COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 140, 30),
    "green": (40, 160, 80),
    "blue": (40, 90, 200),
    "purple": (140, 60, 180),
    "black": (30, 30, 30),
}
SHAPES = ("disc", "square", "triangle")


def drawn(shape, colour, rng):
    """A shape on white, uint8 (16, 16, 3); place, size and shade are random."""
    radius, tint = rng.uniform(3.5, 6), rng.uniform(0.85, 1.15)
    x0, y0 = rng.uniform(radius + 0.5, 15.5 - radius, 2)
    y, x = np.mgrid[:16, :16]
    x, y = (x - x0) / radius, (y - y0) / radius
    inside = {
        "disc": x**2 + y**2 <= 1,
        "square": np.maximum(abs(x), abs(y)) <= 0.85,
        "triangle": (y <= 0.8) & (2 * abs(x) <= y + 1.1),
    }[shape]
    picture = np.full((16, 16, 3), 255.0)
    picture[inside] = np.clip(np.array(COLOURS[colour]) * tint, 0, 255)
    return picture.astype(np.uint8)


rng, pairs = np.random.default_rng(0), [(s, c) for s in SHAPES for c in COLOURS]
pairs.remove(("triangle", "purple"))
for split, count in (("train", 102 if TINY else 1020), ("validation", 102)):
    rows = []
    for number in range(count):
        shape, colour = pairs[number % len(pairs)]
        file = Path("shapes", split, shape, f"{number:04d}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(shape, colour, rng)).save(file)
        article = "an" if colour[0] in "aeiou" else "a"
        rows.append((f"{shape}/{file.name}", f"{article} {colour} {shape}"))
    with Path("shapes", split, "metadata.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file_name", "text"), *rows])

pictures = torch.stack([
    torch.from_numpy(np.array(Image.open(Path("shapes", "validation", name)))).permute(2, 0, 1)
    for name, _ in rows
])  # fmt: skip
grid(pictures[:17], 9, captions=[text for _, text in rows[:17]], width=1000)

# %% [markdown]
# ## Train on the captions
#
# A folder with a table is read by `data=hugging_face` (the package `datasets` reads it from disk; no
# network is needed). All rows are checked before the first step: a missing caption or a picture that
# is not there ends the command, and names the row. Without captions, `data=image_folder` takes any
# folder; we use that further below.

# %%
table = ["data=hugging_face", "data.name=shapes", "data.image_size=16", "data.caption_column=text"]
spoken = train("course_shapes_text", *table, "conditioning=text")

# %%
model = unnoise.load(spoken)
captions = ["a red disc", "a blue square", "a green triangle", "an orange square", "a black disc"]
captions += ["a purple triangle"]
steps = 2 if TINY else 20
shown = model.sample(12, captions=captions, guidance=2, steps=steps)
grid(shown.pixels, 6, captions=captions * 2, width=900)

# %% [markdown]
# The last column is the pairing that training never showed. A model that has learned "purple" and
# "triangle" apart can put them together; one that has learned the seventeen pairings by heart
# cannot. Here both are purple triangles.
#
# ## A schedule of your own
#
# A schedule says how noisy step $t$ is. Ours makes $\lambda_t = \ln(\alpha_t^2/\sigma_t^2)$ a straight
# line, from 7 down to −7. With $\bar\alpha_t = \alpha_t^2 = \operatorname{sigmoid}(\lambda_t)$ the
# library needs $\beta_t = 1 - \bar\alpha_t/\bar\alpha_{t-1}$ (DDPM, §2). It is a function:

# %%
Path("mine").mkdir(exist_ok=True)
Path("mine", "__init__.py").write_text("")
Path("mine", "schedules.py").write_text('''
import torch

from unnoise.diffusion.schedules import DiscreteSchedule


def straight(T: int = 1000, first: float = 7.0, last: float = -7.0) -> DiscreteSchedule:
    """ln SNR falls along a straight line from first to last."""
    alpha_bar = torch.linspace(first, last, T, dtype=torch.float64).sigmoid()
    before = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bar[:-1]))
    return DiscreteSchedule(1 - alpha_bar / before)
''')  # fmt: skip

# %%
sys.path.insert(0, ".")
from mine.schedules import straight

from unnoise.diffusion import schedules

t = torch.arange(1000)
line = torch.linspace(7, -7, 1000, dtype=torch.float64)
assert torch.allclose(straight().level(t).log_snr, line, atol=1e-6)
figure, axes = plt.subplots(figsize=(6, 3))
for name, make in (
    ("straight", straight),
    ("linear β", schedules.linear),
    ("cosine", schedules.cosine),
):
    axes.plot(t, make().level(t).log_snr, label=name)
axes.set(xlabel="t", ylabel=r"$\lambda_t$ = ln SNR", ylim=(-12, 12))
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## A sampler of your own
#
# With $\hat x = x_t/\alpha_t$ and $\hat\sigma = \sigma_t/\alpha_t$ the probability-flow ODE is
# $d\hat x/d\hat\sigma = \varepsilon_\theta(x_t, t)$ ([Song, Meng & Ermon 2021](https://arxiv.org/abs/2010.02502), eq. 14). DDIM takes
# Euler's steps along it. The method of Adams and Bashforth keeps the slope of the step before, and draws a line through
# both: with $h = \hat\sigma_s - \hat\sigma_t$ and $g = \hat\sigma_t - \hat\sigma_{\text{before}}$,
#
# $$\hat x_s = \hat x_t + h\,\Big(\varepsilon_t + \frac{h}{2g}\,
# (\varepsilon_t - \varepsilon_{\text{before}})\Big).$$
#
# A sampler is a class with one method, `step`; `walk.memory` is what it keeps from step to step.

# %%
Path("mine", "samplers.py").write_text('''
from torch import Tensor

from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers import Stepper, Walk


class AdamsBashforth(Stepper):
    """The ODE in sigma/alpha, of order 2, by one evaluation a step."""

    order = 2

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """One step from level now to level to."""
        eps = walk.denoise(x, now).eps
        at, h = now.sigma / now.alpha, to.sigma / to.alpha - now.sigma / now.alpha
        slope = eps
        if walk.memory is not None:
            before, eps_before = walk.memory
            slope = eps + (h / (2 * (at - before))).to(x) * (eps - eps_before)
        walk.memory = at, eps
        return to.alpha.to(x) * (x / now.alpha.to(x) + h.to(x) * slope)
''')  # fmt: skip

# %% [markdown]
# Is it right? Never find that out on pictures. For data $x_0 \sim \mathcal N(\mu, s^2)$ the perfect
# $\varepsilon_\theta$ is known, and so is where the ODE ends: $\mu + s\,z$, if it starts $z$ standard deviations
# from the mean of $x_T$. So we can see the error fall. Order 2 means: twice as many
# steps, a quarter of the error.

# %%
from mine.samplers import AdamsBashforth

from unnoise.diffusion.samplers import DDIM, Walk, sample

oracle, schedule = GaussianOracle(mu=0.3, s=0.5), straight()


def error(stepper, steps, z=1.0):
    """How far from its end a walk along the ODE gets."""
    levels = schedule.grid(steps, "log_snr")
    mean, variance = oracle.marginal(levels[0])
    x = torch.full((1, 1), mean + z * variance**0.5, dtype=torch.float64)
    walk = Walk(oracle, schedule, lambda: torch.zeros_like(x))
    return abs(float(sample(walk, stepper, levels, x)) - (oracle.mu + z * oracle.s))


counts = [10, 20, 40, 80, 160, 320]
errors = {S.__name__: [error(S(), n) for n in counts] for S in (DDIM, AdamsBashforth)}
order = np.log2(errors["AdamsBashforth"][2] / errors["AdamsBashforth"][3])
print(f"order of Adams-Bashforth, from 40 to 80 steps: {order:.2f}")
assert 1.6 < order < 2.6
figure, axes = plt.subplots(figsize=(6, 3))
for name, values in errors.items():
    axes.loglog(counts, values, marker="o", label=name)
axes.set(xlabel="steps", ylabel="error at the end of the ODE")
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## A condition of your own
#
# A condition turns a batch into a vector, tokens or a picture. This one tells the network the mean
# colour of the picture, three numbers. Where `keep` is false it gives a null condition, so that
# guidance works (notebook 6).

# %%
Path("mine", "conditions.py").write_text('''
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.networks.conditioning import Condition, Conditioner, ConditionShape, read


class MeanColour(Conditioner):
    """The mean of each channel, through a small network."""

    reads = ("image",)

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.shape = ConditionShape(vector=width)
        layers = nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width)
        self.project, self.null = nn.Sequential(*layers), nn.Parameter(torch.zeros(width))

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """vector (B, width) of image (B, 3, H, W) uint8 and keep (B,) bool."""
        vector = self.project(read(batch, "image").float().mean((2, 3)) / 255 * 4 - 3)
        return Condition(vector=torch.where(keep[:, None], vector, self.null))
''')  # fmt: skip

# %% [markdown]
# Each part gets a YAML file of its own, in a folder of yours. The keys are the arguments of the
# function or class, and their types and defaults are what a command line is checked against.

# %%
YAML = {
    "schedule/straight.yaml": """
_target_: mine.schedules.straight
T: 1000
first: 7.0
last: -7.0
""",
    "sampler/adams_bashforth.yaml": """
_target_: unnoise.diffusion.samplers.Sampler
stepper:
  _target_: mine.samplers.AdamsBashforth
steps: 20
spacing: log_snr
threshold:
  _target_: unnoise.diffusion.denoiser.Clip
guidance: {_target_: unnoise.diffusion.guidance.Guidance, scale: 1.0, interval: null, rescale: 0.0}
""",
    "conditioning/mean_colour.yaml": """
_target_: mine.conditions.MeanColour
width: 64
""",
}
for name, text in YAML.items():
    file = Path("myconf", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.lstrip())

# %% [markdown]
# From here on the parts have names like all others. A config may only build what is allowed, so the
# package is named in `UNNOISE_ALLOW` (our first cell did so). In a terminal:
#
# ```
# PYTHONPATH=. UNNOISE_ALLOW=mine unnoise-train --config-dir myconf \
#     schedule=straight sampler=adams_bashforth conditioning=mean_colour \
#     data=image_folder data.root=shapes data.image_size=16
# ```

# %%
paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(each for each in paths if each)
parts = ["schedule=straight", "sampler=adams_bashforth", "conditioning=mean_colour"]
parts += ["prediction=v", "objective=v"]  # which forgive a new schedule more than ε does
folder = ["data=image_folder", "data.root=shapes", "data.image_size=16"]
coloured = train("course_shapes_colour", "--config-dir", "myconf", *parts, *folder)

# %% [markdown]
# Draw with it: the prompts are plain pictures of one colour, as bright as a shape on white is on
# average. The left half of each pair is the prompt.

# %%
model = unnoise.load(coloured)
chosen = pictures[:17]
swatches = chosen.float().mean((2, 3), keepdim=True).expand(-1, -1, 16, 16).to(torch.uint8)
result = model.sample(17, images=swatches, guidance=2)
pairs_shown = torch.stack((swatches, result.pixels), dim=1).flatten(0, 1)
grid(pairs_shown, 12, width=900)


# %%
def mean_colour(pixels):
    """(N, 3), 0 … 255."""
    return pixels.float().mean((2, 3))


asked = mean_colour(swatches)
followed = (mean_colour(result.pixels) - asked).square().mean().sqrt()
shuffled = (mean_colour(result.pixels).roll(1, 0) - asked).square().mean().sqrt()
print(f"root mean square error of the mean colour: {followed:.1f} of 255")
print(f"the same if the prompts are exchanged:     {shuffled:.1f} of 255")
assert TINY or followed < shuffled / 2

# %% [markdown]
# The colour follows the prompt. The shape is free: nothing in the prompt speaks of it, and after so short a
# training it is rough.
#
# ## Exercises
#
# **1.** Write a schedule `curved` for which $\lambda_t$ falls along a quarter of a cosine, from 9 at
# $t = 0$ to −9 at $t = T - 1$. Check it as we checked `straight`.
#
# **2.** `AdamsBashforth` takes its first step as Euler does. Does that spoil the order? Say what the
# error of one Euler step is, then look at the plot.
#
# **3.** Write a condition `Shade` for grey-scale prompts: the mean over all pixels *and* channels.
# Check that it gives two pictures of the same brightness the same vector, and that its null vector
# does not depend on the picture.

# %% [markdown]
# ### Solution
#
# **1.** $\lambda_t = 18 \cos(\tfrac{\pi}{2} \tfrac{t}{T-1}) - 9$.

# %%
from unnoise.diffusion.schedules import DiscreteSchedule


def curved(T: int = 1000) -> DiscreteSchedule:
    """ln SNR falls as a cosine from 9 to −9."""
    log_snr = 18 * torch.linspace(0, torch.pi / 2, T, dtype=torch.float64).cos() - 9
    alpha_bar = log_snr.sigmoid()
    before = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bar[:-1]))
    return DiscreteSchedule(1 - alpha_bar / before)


found = curved().level(t).log_snr
assert torch.allclose(found, 18 * (torch.pi / 2 * t.double() / 999).cos() - 9, atol=1e-4)
assert bool((found.diff() < 0).all())

# %% [markdown]
# **2.** No. One Euler step of size $h$ has an error of order $h^2$, and there is only one of them: as
# small as what all the other steps add up to. An order of 1 comes from Euler's error in *every* step,
# of which there are $1/h$. The plot shows it: doubling the steps quarters the error of
# ours, and only halves that of DDIM, which makes Euler's error in every step:

# %%
ratios = [a / b for a, b in zip(errors["DDIM"][2:], errors["DDIM"][3:], strict=False)]
assert all(1.7 < ratio < 2.4 for ratio in ratios), ratios

# %% [markdown]
# **3.** As `MeanColour`, with one number.

# %%
from torch import nn

from unnoise.networks.conditioning import Condition, Conditioner, ConditionShape, read


class Shade(Conditioner):
    """The mean of all numbers of a picture, 0 … 1, times a learned vector."""

    reads = ("image",)

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.shape = ConditionShape(vector=width)
        self.project, self.null = nn.Linear(1, width), nn.Parameter(torch.zeros(width))

    def forward(self, batch, keep):
        """vector (B, width) of image (B, C, H, W) uint8 and keep (B,) bool."""
        vector = self.project(read(batch, "image").float().mean((1, 2, 3))[:, None] / 255)
        return Condition(vector=torch.where(keep[:, None], vector, self.null))


shade, one = Shade(8), pictures[:1]
yes, no = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
mirrored = torch.cat((one, one.flip(3)))
vectors = shade({"image": mirrored}, yes).vector
assert torch.allclose(vectors[0], vectors[1], atol=1e-5)
nulls = shade({"image": pictures[:2]}, no).vector
assert torch.equal(nulls[0], nulls[1])
assert not torch.allclose(
    *shade({"image": torch.stack((pictures[0], 0 * pictures[0]))}, yes).vector
)

# %% [markdown]
# Where to go from here: [extending](../guide/extending.md) has objectives, callbacks, metrics, data
# sets, networks and whole families in the same manner, each as short as these.

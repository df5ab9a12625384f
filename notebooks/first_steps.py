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
# # First steps: from noise to sprites
#
# A diffusion model learns to undo noise. This notebook looks at the noise first, then trains a
# small model, and then draws with it. The symbols are those of
# [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239) (DDPM).
#
# It takes about five minutes on two CPU cores.

# %%
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unnoise
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip
from unnoise.diffusion.levels import diffuse, forward_step
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 1000))  # of training

# %% [markdown]
# ## The pictures
#
# Sprites made by code: 16 × 16 pixels, five classes, each with a caption.

# %%
sprites = Sprites().images("train")
print(*sprites.captions[:5], sep="\n")
grid(sprites.read(torch.arange(40)), columns=10)

# %% [markdown]
# ## The forward process
#
# Noise is added in $T = 1000$ small steps,
# $q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big)$.
# Because Gaussians compose, one can jump to any step at once:
#
# $$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon,
# \qquad \bar\alpha_t = \prod_{i \le t} (1-\beta_i).$$
#
# In this library every schedule is a list of levels $x_t = \alpha_t x_0 + \sigma_t \varepsilon$.

# %%
schedule = schedules.linear(T=1000)
ids = torch.arange(4)
x0 = to_signal(sprites.read(ids))
eps = Noise(seed=0, ids=ids).normal("eps", x0.shape[1:])
times = torch.linspace(0, 999, 12).long()
strip = torch.stack([diffuse(x0, eps, schedule.level(t)) for t in times], dim=1)
grid(to_pixels(strip.flatten(0, 1)), columns=len(times), width=960)

# %% [markdown]
# Schedules differ in how fast they get there. The signal-to-noise ratio
# $\alpha_t^2 / \sigma_t^2$ says it in one number.

# %%
figure, axes = plt.subplots(figsize=(7, 3.2))
for make in (schedules.linear, schedules.quadratic, schedules.cosine, schedules.sigmoid):
    level = make(T=1000).level(torch.arange(1000))
    axes.plot(level.log_snr, label=make.__name__)
axes.set(xlabel="t", ylabel="log SNR", ylim=(-12, 10))
axes.legend()
# %% [markdown]
# Is the jump the same as walking step by step? Walk 4000 times from the same value to $t = 300$
# and compare mean and spread with the closed form.

# %%
x = torch.full((4000, 1), 0.5)
noise = Noise(seed=1, ids=torch.arange(4000))
levels = [schedule.level(t) for t in torch.arange(300)]
x = diffuse(x, noise.normal("first", (1,)), levels[0])
for k, (before, after) in enumerate(pairwise(levels)):
    step = forward_step(x, before, after)
    x = step.mean + step.variance.sqrt() * noise.normal("walk", (1,), draw=k)
print(f"walked: mean {x.mean():.3f}, standard deviation {x.std():.3f}")
print(f"jumped: mean {0.5 * levels[-1].alpha:.3f}, standard deviation {levels[-1].sigma:.3f}")

# %% [markdown]
# ## Training
#
# The network sees $x_t$ and $t$ and predicts $\varepsilon$; the loss is
# $\lVert \varepsilon - \varepsilon_\theta(x_t, t) \rVert^2$ (Algorithm 1). A run is one command.
# What it is made of can be changed on the command line: try `schedule=cosine`.

# %%
command = [sys.executable, "-c", "from unnoise.cli.train import main; main()"]
arguments = ["experiment=sprites_ddpm", "name=notebook", f"max_steps={STEPS}", "logger=none"]
if STEPS < 100:
    arguments += ["network.channels=8", "network.head_size=null", "sampler.steps=10"]
print(subprocess.run(command + arguments, check=True, stdout=subprocess.PIPE, text=True).stdout)

# %% [markdown]
# ## Drawing
#
# Load the run (its averaged weights) and go from noise to pictures, by the run's own sampler:
# Algorithm 2 in 250 steps.

# %%
run = max(Path("outputs/notebook").iterdir())
model = unnoise.load(run)
pictures = model.sample(40)
pictures.grid(columns=10)

# %% [markdown]
# Picture number $k$ depends on the seed and on $k$ only, so samplers can be compared on the same
# noise. DDIM adds none on the way: it finds nearly the same pictures in 5, 10, 50 and 200 steps, a
# row each.

# %%
rows = [
    model.sample(10, sampler=Sampler(DDIM(), steps=steps, threshold=Clip())).pixels
    for steps in (5, 10, 50, 200)
]
grid(torch.cat(rows), columns=10)

# %% [markdown]
# Where to go from here: train longer (`experiment=sprites_ddpm` takes 1200 steps), draw more
# (`unnoise-sample run=…`), and see `unnoise-train --help` for everything else that can be chosen.

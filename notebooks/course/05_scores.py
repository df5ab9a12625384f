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
# # 5 · Scores, Langevin dynamics, SDE and ODE
#
# There is a second way to tell the story of diffusion: by the slope of the log-density, the *score*.
# It explains guidance, DDIM and fast samplers in one sentence each. First come points in the plane,
# where everything is known exactly. Then the network of notebook 2 turns out to know the scores of
# sprites.
#
# Here noise is only added and nothing is scaled, $x = x_0 + \sigma\varepsilon$, as in
# [Song & Ermon 2019](https://arxiv.org/abs/1907.05600) and
# [Song et al. 2021](https://arxiv.org/abs/2011.13456), called SDE below.
#
# It takes about a minute of one processor core if notebook 2 was run in this folder before; if not, eight
# more for its training.

# %%
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unnoise
from unnoise.data.pixels import to_pixels
from unnoise.diffusion.denoiser import Clip
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, AnnealedLangevin, EulerMaruyama, Sampler
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 1400))  # of training
TINY = STEPS < 100  # the test suite only wants to see that all cells run

# %% [markdown]
# ## Data in the plane
#
# Three clouds with unequal shares: $p(x) = \sum_k w_k\,\mathcal N(x;\ \mu_k, s^2 I)$. Noise makes each
# wider, $s^2 + \sigma^2$, and moves nothing. The **score** points to where $p$ grows:
#
# $$\nabla_x \ln p_\sigma(x) = \sum_k r_k(x)\,\frac{\mu_k - x}{s^2 + \sigma^2}, \qquad
# r_k(x) = \frac{w_k\,\mathcal N(x;\ \mu_k, (s^2+\sigma^2) I)}{p_\sigma(x)}.$$
#
# $r_k$ is the probability that $x$ comes from cloud $k$. So the score is the mean way back to the
# clouds.

# %%
w = torch.tensor([0.6, 0.3, 0.1])
mu = torch.tensor([[-4.0, -2.0], [4.0, -1.0], [0.0, 4.0]])
s = 0.5


def log_p(x, sigma, w=w):
    """ln p_sigma, of points (N, 2)."""
    v = s**2 + sigma**2
    squares = (x[:, None] - mu).square().sum(-1)
    return (w.log() - squares / (2 * v)).logsumexp(1) - torch.log(torch.as_tensor(2 * torch.pi * v))


def score(x, sigma, w=w):
    """Its slope."""
    v = s**2 + sigma**2
    squares = (x[:, None] - mu).square().sum(-1)
    r = (w.log() - squares / (2 * v)).softmax(1)
    return (r @ mu - x) / v


def data(n, seed=0):
    """Points of p, and of which cloud each is."""
    noise = Noise(seed, torch.arange(n))
    k = torch.bucketize(noise.uniform("cloud"), w.cumsum(0)).clamp(max=2)
    return mu[k] + s * noise.normal("place", (2,)), k


def shares(x):
    """How many points are nearest to each centre."""
    return torch.bincount(torch.cdist(x, mu).argmin(1), minlength=3) / len(x)


x = data(5)[0].requires_grad_()
(slope,) = torch.autograd.grad(log_p(x, 0.7).sum(), x)
assert torch.allclose(slope, score(x.detach(), 0.7), atol=1e-4)

side = torch.linspace(-7, 7, 120)
plane = torch.cartesian_prod(side, side)
few = torch.cartesian_prod(side[::8], side[::8])


def show(axes, sigma):
    """The density in grey, and the directions of the score."""
    density = log_p(plane, sigma).exp().reshape(120, 120).T
    axes.imshow(density, origin="lower", extent=(-7, 7, -7, 7), cmap="Greys")
    axes.set(xticks=[], yticks=[], xlim=(-7, 7), ylim=(-7, 7))


figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for axes, sigma in zip(panels, (0.0, 1.0, 4.0), strict=True):
    show(axes, sigma)
    arrows = score(few, sigma)
    arrows = arrows / arrows.norm(dim=1, keepdim=True)
    axes.quiver(*few.T, *arrows.T, color="tab:blue", width=0.005, scale=20)
    axes.set_title(rf"$\sigma = {sigma:g}$", fontsize=10)
plt.show()

# %% [markdown]
# Only directions are drawn. Without noise each point knows the nearest cloud and nothing of the
# others. With much noise all arrows lead to the middle of everything.
#
# ## Langevin dynamics
#
# Walk uphill, and be shaken:
#
# $$x \leftarrow x + \frac{\delta}{2}\,\nabla_x \ln p(x) + \sqrt{\delta}\,z, \qquad z \sim \mathcal N(0, I).$$
#
# For small $\delta$ the points end up distributed as $p$, whatever they started as. So who has the
# score can draw. In the end. Here are 2000 points, started anywhere, after 400 steps:


# %%
def langevin(x, sigma, delta, steps, noise, first=0, half=0.5):
    """Steps with the exact score."""
    for k in range(first, first + steps):
        z = noise.normal("langevin", (2,), draw=k)
        x = x + half * delta * score(x, sigma) + delta**0.5 * z
    return x


n = 2000
noise = Noise(1, torch.arange(n))
start = 5 * noise.normal("start", (2,))
plain = langevin(start, 0.0, 0.1 * s**2, 400, noise)

sigmas = torch.logspace(0.9, -1.3, 20)  # from 8 to 0.05
annealed = start
for k, sigma in enumerate(sigmas.tolist()):
    v = s**2 + sigma**2  # the cloud's variance at this level
    annealed = langevin(annealed, sigma, 0.2 * v, 20, noise, first=1000 + 20 * k)

figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for axes, points, name in zip(
    panels, (data(n)[0], plain, annealed), ("data", "Langevin", "annealed"), strict=True
):
    axes.plot(*points.T, ".", markersize=2, alpha=0.5)
    axes.set(xticks=[], yticks=[], xlim=(-7, 7), ylim=(-7, 7), aspect="equal")
    axes.set_title(name, fontsize=10)
    print(f"{name:9}", " ".join(f"{share:.2f}" for share in shares(points)))
assert (shares(plain) - w).abs().max() > 0.1
assert (shares(annealed) - w).abs().max() < 0.06

# %% [markdown]
# Plain Langevin dynamics gives each cloud its shape, but not its share: a third each, where the data
# have 0.6, 0.3 and 0.1. These shares are those of the start. Hardly a point ever crosses the empty space
# between the clouds.
#
# **Annealed** Langevin dynamics (Song & Ermon 2019) starts with so much noise that there is one hill,
# and lowers it level by level. While the clouds overlap points can change sides, and the shares
# come out right: the picture on the right took as many steps as that in the middle.
#
# ## A common slip: the half
#
# Half the score, but the whole noise. Who forgets the $\tfrac12$ draws from $p^2$ instead: every cloud
# too narrow by $\sqrt 2$, which looks like sharper pictures and less variety.

# %%
right = langevin(data(n)[0], 0.0, 0.05 * s**2, 300, noise, first=5000)
wrong = langevin(data(n)[0], 0.0, 0.05 * s**2, 300, noise, first=5000, half=1.0)
figure, axes = plt.subplots(figsize=(8, 2.8))
width = {}
for name, points in (("with ½", right), ("without", wrong)):
    inside = points - mu[torch.cdist(points, mu).argmin(1)]
    width[name] = inside.std().item()
    axes.hist(inside.flatten(), bins=60, range=(-2, 2), histtype="step", density=True, label=name)
axes.set(xlabel="distance from the cloud's centre", ylabel="density")
axes.legend()
print(
    f"standard deviation {width['with ½']:.3f}, and {width['without']:.3f} without the half; s = {s}"
)
assert abs(width["with ½"] / s - 1) < 0.06
assert abs(width["without"] / s * 2**0.5 - 1) < 0.08

# %% [markdown]
# ## The score is the noise
#
# Nobody knows the score of sprites. But a network that guesses the noise has it
# ([Vincent 2011](https://doi.org/10.1162/NECO_a_00142)):
#
# $$\nabla_x \ln p_\sigma(x) = -\frac{E[\varepsilon \mid x]}{\sigma}, \qquad\text{so}\qquad
# s_\theta(x, \sigma) = -\frac{\varepsilon_\theta(x, \sigma)}{\sigma}.$$
#
# Why: $p_\sigma(x) = E_{x_0}\,\mathcal N(x;\ x_0, \sigma^2 I)$, and the slope of each of these bells is
# $-(x - x_0)/\sigma^2 = -\varepsilon/\sigma$ times itself. So the slope of $\ln p_\sigma$ is the mean of
# $-\varepsilon/\sigma$ over all $x_0$ that may have led to $x$.
#
# See it happen: a small network learns to guess noise by the loop of notebook 2, and never sees a
# score. Its $-\varepsilon_\theta/\sigma$ (blue) beside the exact score (orange):

# %%
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Linear(3, 64),
    torch.nn.SiLU(),
    torch.nn.Linear(64, 64),
    torch.nn.SiLU(),
    torch.nn.Linear(64, 2),
)


def net_eps(x, sigma):
    """The network's guess; its input has about unit size at all sigmas."""
    log_sigma = torch.as_tensor(sigma).log().expand(len(x))
    scale = (1 + torch.as_tensor(sigma) ** 2 / 9).sqrt().expand(len(x))[:, None]
    return net(torch.cat((x / 3 / scale, log_sigma[:, None]), dim=1))


optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
rounds = 2 if TINY else 1500
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
for step in range(rounds):
    fresh = Noise(2, torch.arange(256) + 256 * step)
    x0 = data(256, seed=100 + step)[0]
    sigma = (fresh.uniform("sigma") * 4.6 - 2.3).exp()  # from 0.1 to 10
    eps = fresh.normal("eps", (2,))
    loss = (eps - net_eps(x0 + sigma[:, None] * eps, sigma)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()

figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for axes, sigma in zip(panels, (1.0, 3.0), strict=True):
    show(axes, sigma)
    learned = (-net_eps(few, sigma) / sigma).detach()
    truth = score(few, sigma)
    axes.quiver(*few.T, *truth.T, color="tab:orange", width=0.01, scale=40 / sigma**1.5)
    axes.quiver(*few.T, *learned.T, color="tab:blue", width=0.004, scale=40 / sigma**1.5)
    axes.set_title(rf"$\sigma = {sigma:g}$", fontsize=10)
    at = data(500, seed=7)[0] + sigma * Noise(7, torch.arange(500)).normal("eps", (2,))
    truth = score(at, sigma)
    error = (-net_eps(at, sigma).detach() / sigma - truth).norm() / truth.norm()
    print(f"sigma {sigma:g}: error of the learned score {error:.0%}")
    assert error < 0.35 or TINY
plt.show()

# %% [markdown]
# ## SDE and ODE
#
# Let the steps become infinitely small. Adding noise is then a *stochastic differential equation*,
# $dx = \sqrt{d\sigma^2/dt}\;dw$, and so is the way back (SDE, eq. 6). Between two levels, from
# $\sigma$ down to $\sigma'$, with $v = \sigma^2 - \sigma'^2$:
#
# $$\text{SDE:}\quad x \leftarrow x + v\,\nabla_x \ln p_\sigma(x) + \sqrt v\,z.$$
#
# There is also a way back without noise that has the same distribution at each level (SDE, eq. 13),
# the *probability-flow ODE*:
#
# $$\text{ODE:}\quad \frac{dx}{d\sigma} = -\sigma\,\nabla_x \ln p_\sigma(x) = E[\varepsilon \mid x], \qquad
# x \leftarrow x + (\sigma' - \sigma)\,\varepsilon.$$
#
# DDIM is exactly this ODE in Euler's steps, and DDPM's Algorithm 2 is that SDE, with the pictures
# scaled by $\sqrt{\bar\alpha_t}$.

# %%
walk = torch.cat((torch.logspace(1.2, -1.3, 120), torch.zeros(1)))  # from 16 to 0.05, and 0
x_sde = x_ode = walk[0] * noise.normal("x_T", (2,))
paths = {"SDE": [x_sde[:12]], "ODE": [x_ode[:12]]}
for k, (sigma, to) in enumerate(pairwise(walk)):
    v = sigma**2 - to**2
    z = noise.normal("sde", (2,), draw=k) if to > 0 else 0
    x_sde = x_sde + v * score(x_sde, sigma) + v.sqrt() * z
    x_ode = x_ode + (to - sigma) * -sigma * score(x_ode, sigma)
    paths["SDE"].append(x_sde[:12])
    paths["ODE"].append(x_ode[:12])

figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
for (left, right), name, points in zip(panels, paths, (x_sde, x_ode), strict=True):
    way = torch.stack(paths[name])
    left.plot(range(len(way)), way[..., 0], linewidth=0.8)
    left.set(xlabel="step", ylabel="$x$ (first coordinate)", title=name)
    right.plot(*points.T, ".", markersize=2, alpha=0.5)
    right.set(xticks=[], yticks=[], xlim=(-7, 7), ylim=(-7, 7), aspect="equal")
    print(name, " ".join(f"{share:.2f}" for share in shares(points)))
    assert (shares(points) - w).abs().max() < 0.06
plt.show()

# %% [markdown]
# The paths of the SDE tremble, those of the ODE are smooth, and both end in the same clouds with the
# same shares. The ODE can be walked in both directions, so it also tells which noise belongs to a
# picture. That gives the exact [likelihood](04_likelihood.ipynb) of a picture.
#
# ## Sprites
#
# The network of notebook 2 was trained with scaled pictures,
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. There $\sigma$ is
# $\sqrt{1-\bar\alpha_t}$, and the score of $p(x_t)$ is $-\varepsilon_\theta/\sqrt{1-\bar\alpha_t}$.


# %%
def train(*arguments):
    """Run ``unnoise-train ARGUMENTS`` as in a terminal, and show what it prints."""
    small = ["network.channels=8", "network.head_size=null", "sampler.steps=2"] if TINY else []
    code = "from unnoise.cli.train import main; main()"
    command = [sys.executable, "-c", code, *arguments, f"max_steps={STEPS}", *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    print(done.stdout)


def finished():
    """The run directories of the recipe that came to their end here."""
    ends = Path("outputs/sprites").glob(f"*/checkpoints/step_{STEPS:08}.ckpt")
    return sorted(end.parents[1] for end in ends)


if not finished():
    train("experiment=sprites", "logger=none", "resume=true")
run = finished()[-1]
model = unnoise.load(run)
# %% [markdown]
# Langevin dynamics at one level with little noise, from pure noise (100 steps, first row), and from
# real pictures (second row):

# %%
t, delta = 50, 0.05
level = model.model.schedule.level(torch.tensor(t - 1))
sigma = level.sigma.float()
real = model.validation.read(torch.arange(8)).float() / 127.5 - 1
ids = torch.arange(16)
z = Noise(0, ids).normals("langevin", (3, 16, 16))
x = Noise(0, ids).normal("x_T", (3, 16, 16))
x[8:] = level.alpha.float() * real + sigma * x[8:]
with torch.no_grad():
    for _ in range(2 if TINY else 100):
        slope = -model.model.denoiser(x, level).eps / sigma
        x = x + delta * sigma**2 / 2 * slope + delta**0.5 * sigma * z()
    x0_hat = model.model.denoiser(x, level).x0
grid(to_pixels(x0_hat), columns=8, width=800)

# %% [markdown]
# From noise nothing comes of it. The network was trained with little noise at this $t$, not with that much,
# and a hundred small steps lead nowhere. Real pictures stay pictures, and each stays what it was.
#
# Annealed, it draws. Rows: annealed Langevin dynamics (20 levels, 4 steps each), the SDE in 60 steps, the
# ODE in 30.


# %%
def drawn_by(stepper, steps):
    """Eight pictures."""
    return model.sample(8, sampler=Sampler(stepper, steps, "log_snr", Clip())).pixels


rows = [
    drawn_by(AnnealedLangevin(steps_per_level=4, step_size=0.5), 2 if TINY else 20),
    drawn_by(EulerMaruyama(), 2 if TINY else 60),
    drawn_by(DDIM(), 2 if TINY else 30),
]
grid(torch.cat(rows), columns=8, width=800)

# %% [markdown]
# SDE and ODE draw sprites. Langevin dynamics shows where they would be, in much noise: its 80 calls of the
# network are few. Song & Ermon took a hundred steps at each of ten levels.
#
# ## Exercise 1
#
# Why did plain Langevin dynamics get the shares wrong? Compare the score near a cloud for the shares
# $(0.6, 0.3, 0.1)$ with that for equal shares, at $\sigma = 0$ and at $\sigma = 4$.
#
# ### Solution
#
# Near a cloud $r_k \approx 1$, whatever $w_k$ is, so the score does not know the shares at all. It
# takes a passage between the clouds to find out, and hardly a point ever crosses. With noise
# the clouds overlap, and the score knows.

# %%
equal = torch.full((3,), 1 / 3)
points = data(500)[0]
differs = {}
for sigma in (0.0, 4.0):
    one, other = score(points, sigma), score(points, sigma, equal)
    differs[sigma] = ((one - other).norm() / one.norm()).item()
    print(f"sigma {sigma:g}: the scores differ by {differs[sigma]:.1e} of their length")
assert differs[0.0] < 1e-3
assert differs[4.0] > 0.05

# %% [markdown]
# ## Exercise 2
#
# Steps of Langevin dynamics are not infinitely small. For $p = \mathcal N(0, s^2)$, which variance does
# it end with?
#
# ### Solution
#
# A step is $x \leftarrow (1 - \tfrac{\delta}{2s^2})\,x + \sqrt\delta z$. At the end $V =
# (1 - \tfrac{\delta}{2s^2})^2 V + \delta$, so $V = s^2 / (1 - \tfrac{\delta}{4 s^2})$: too wide, by
# 5 % at $\delta = 0.2\,s^2$, and unstable from $\delta = 4 s^2$ on.

# %%
numbers = Noise(3, torch.arange(20_000))
for share in (0.2, 1.0, 2.0):
    delta = share * s**2
    x = s * numbers.normal("start", ())
    for k in range(60):
        x = x - delta / 2 * x / s**2 + delta**0.5 * numbers.normal("walk", (), draw=k)
    expected = s**2 / (1 - share / 4)
    print(
        f"delta = {share} s²: variance {x.var() / s**2:.3f} s², expected {expected / s**2:.3f} s²"
    )
    assert abs(x.var() / expected - 1) < 0.05

# %% [markdown]
# ## Exercise 3
#
# Solve the ODE for $p = \mathcal N(0, s^2)$. Where does $x$ at level $\sigma$ end?
#
# ### Solution
#
# $dx/d\sigma = \sigma x/(s^2 + \sigma^2)$, so $\ln x = \tfrac12 \ln(s^2 + \sigma^2) + \text{const}$:
# $x/\sqrt{s^2 + \sigma^2}$ stays the same, and $x$ ends at $x\,s/\sqrt{s^2+\sigma^2}$. Euler's steps
# come close:

# %%
x, (first, *_) = torch.tensor(3.0, dtype=torch.float64), walk
expected = 3.0 * s / (s**2 + first**2).sqrt().item()
fine = torch.cat((torch.logspace(1.2, -3, 2000, dtype=torch.float64), torch.zeros(1)))
for sigma, to in pairwise(fine):
    x = x + (to - sigma) * sigma * x / (s**2 + sigma**2)
print(f"{x:.5f}, expected {expected:.5f}")
assert abs(x / expected - 1) < 0.01

# %% [markdown]
# **What to remember.** The score is $-\varepsilon/\sigma$, so a network that sees noise knows where the
# data are. Langevin dynamics draws with it, and needs much noise first to get the shares right. SDE and
# ODE are the same way back, shaken or smooth; DDPM and DDIM are their steps.

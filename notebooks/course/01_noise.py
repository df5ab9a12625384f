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
# # 1 · Noise: the forward process and its schedules
#
# A diffusion model learns to undo noise. So the noise comes first: how it is added, how much of a
# picture is left after $t$ steps, and which mistakes spoil a model before any network is trained.
# Nothing is trained here; the notebook takes less than a minute.
#
# The symbols are those of [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), called DDPM
# below. The papers count $t = 1 \dots T$. Python counts from 0, so `alpha_bar[t - 1]` is
# $\bar\alpha_t$.
#
# Next: [learning to denoise](02_denoising.ipynb).

# %%
import matplotlib.pyplot as plt
import torch

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.levels import diffuse, transition
from unnoise.diffusion.noise import Noise
from unnoise.report.sheets import grid

# %% [markdown]
# ## The pictures
#
# Sprites made by code: 16 × 16 pixels, three colours a pixel, in five classes. A picture is a list
# of 768 numbers. The data set has bytes 0 … 255; the mathematics wants numbers from −1 to 1.

# %%
sprites = Sprites().images("train")
pixels = sprites.read(torch.arange(40))
x0 = to_signal(pixels)
print(x0.shape, x0.min().item(), x0.max().item())
grid(pixels, columns=10)

# %% [markdown]
# ## One small step
#
# Each step makes the picture a little weaker and adds a little Gaussian noise (DDPM, eq. 2):
#
# $$q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),
# \qquad x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z,\quad z \sim \mathcal N(0, I).$$
#
# $\beta_t$ is the variance of the noise added in step $t$. DDPM takes $T = 1000$ of them, on a line
# from $10^{-4}$ to $0.02$. The list of all $\beta_t$ is called the schedule.
#
# Noise comes from `Noise(seed, ids)`: each number is a function of the seed, of the picture's
# number and of what it is for. So the same cell always draws the same noise.

# %%
T = 1000
beta = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
shown = (1, 50, 100, 200, 300, 400, 500, 600, 800, 1000)

noise = Noise(seed=0, ids=torch.arange(3))
x, walked = x0[:3], []
for t in range(1, T + 1):
    z = noise.normal("step", x.shape[1:], draw=t)
    x = (1 - beta[t - 1]).sqrt().float() * x + beta[t - 1].sqrt().float() * z
    if t in shown:
        walked.append(x)
grid(to_pixels(torch.stack(walked, dim=1).flatten(0, 1)), columns=len(shown), width=960)

# %% [markdown]
# From left to right $t = 1, 50, 100, 200, 300, 400, 500, 600, 800, 1000$. At $t = 200$
# one still sees the eyes; at $t = 400$ a hint of the colours is left.
#
# ## The jump
#
# A thousand steps for each training example would be slow. They are not needed: a sum of Gaussians
# is Gaussian. With $\alpha_t = 1 - \beta_t$ and $\bar\alpha_t = \prod_{i \le t} \alpha_i$
# (DDPM, eq. 4):
#
# $$q(x_t \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),
# \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon.$$
#
# Why: if $x_{t-1}$ has variance $1 - \bar\alpha_{t-1}$ around its mean, a step makes that
# $\alpha_t (1 - \bar\alpha_{t-1}) + (1 - \alpha_t) = 1 - \bar\alpha_t$.
#
# By hand, and then as the framework has it. There every schedule is a list of levels
# $x_t = \alpha_t x_0 + \sigma_t \varepsilon$: **its** `level.alpha` is $\sqrt{\bar\alpha_t}$ and its
# `level.sigma` is $\sqrt{1-\bar\alpha_t}$.

# %%
alpha_bar = torch.cumprod(1 - beta, dim=0)
eps = noise.normal("eps", x0.shape[1:])

t = 300
by_hand = alpha_bar[t - 1].sqrt() * x0[:3] + (1 - alpha_bar[t - 1]).sqrt() * eps

linear = schedules.linear(T=1000)
level = linear.level(torch.tensor(t - 1))
assert torch.allclose(linear.alphas_cumprod, alpha_bar, rtol=1e-12, atol=0)
assert torch.allclose(diffuse(x0[:3], eps, level), by_hand.float(), atol=1e-6)

levels = [linear.level(torch.tensor(t - 1)) for t in shown]
jumped = torch.stack([diffuse(x0[:3], eps, each) for each in levels], dim=1)
grid(to_pixels(jumped.flatten(0, 1)), columns=len(shown), width=960)

# %% [markdown]
# Now each row keeps one $\varepsilon$, so the grain stays where it is. At each $t$ the distribution
# is the same as above. Is it? Walk 4000 times from the same value $x_0 = 0.8$, and compare mean and
# standard deviation with the closed form. Below: walks (thin lines), the closed mean and one
# standard deviation to both sides (thick lines).

# %%
walks = 4000
noise_1d = Noise(seed=1, ids=torch.arange(walks))
x, path = torch.full((walks,), 0.8, dtype=torch.float64), []
for b, z in zip(beta, noise_1d.normal("walk", (T,)).double().unbind(1), strict=True):
    x = (1 - b).sqrt() * x + b.sqrt() * z
    path.append(x)
path = torch.stack(path)

mean, std = 0.8 * alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
figure, axes = plt.subplots(figsize=(8, 3.2))
axes.plot(range(0, T, 5), path[::5, :10], color="tab:blue", linewidth=0.6, alpha=0.6)
axes.plot(mean, color="black", linewidth=2)
axes.plot(mean + std, color="tab:red", linewidth=2)
axes.plot(mean - std, color="tab:red", linewidth=2)
axes.set(xlabel="$t$", ylabel="$x_t$", xlim=(0, T))
print(f"walked: mean {path[299].mean():.3f}, standard deviation {path[299].std():.3f}")
print(f"jumped: mean {mean[299]:.3f}, standard deviation {std[299]:.3f}")
assert abs(path[299].mean() - mean[299]) < 4 * std[299] / walks**0.5
assert abs(path[299].std() / std[299] - 1) < 4 / (2 * walks) ** 0.5

# %% [markdown]
# ## A common slip: $(1-\beta_t)$ in place of $\sqrt{1-\beta_t}$
#
# The mean of a step is $\sqrt{1-\beta_t}\,x_{t-1}$. Some tutorials and slides write
# $(1-\beta_t)\,x_{t-1}$. Then the variance no longer tends to 1. It tends to the $v$ with
# $v = (1-\beta)^2 v + \beta$, which is $v = 1/(2-\beta) \approx 0.5$. A sampler that starts from
# $\mathcal N(0, I)$ would start where the model was never trained.

# %%
wrong = torch.full((walks,), 0.8, dtype=torch.float64)
wrong_std = []
for b, z in zip(beta, noise_1d.normal("walk", (T,)).double().unbind(1), strict=True):
    wrong = (1 - b) * wrong + b.sqrt() * z
    wrong_std.append(wrong.std())

figure, axes = plt.subplots(figsize=(8, 3))
axes.plot(path.std(1), color="tab:blue", label=r"$\sqrt{1-\beta_t}$")
axes.plot(wrong_std, color="tab:red", label=r"$1-\beta_t$")
axes.axhline(1, color="grey", linestyle=":")
axes.axhline((1 / (2 - 0.02)) ** 0.5, color="grey", linestyle=":")
axes.set(xlabel="$t$", ylabel=r"$\sigma(x_t)$", xlim=(0, T), ylim=(0, 1.1))
axes.legend()
print(f"standard deviation at T: right {path[-1].std():.3f}, wrong {wrong_std[-1]:.3f}")
assert abs(path[-1].std() - 1) < 0.04
assert abs(wrong_std[-1] - (1 / (2 - 0.02)) ** 0.5) < 0.03

# %% [markdown]
# ## Schedules
#
# How fast $\bar\alpha_t$ falls is a choice. With $\tau = t/T$:
#
# - linear: $\beta_t$ on a line (DDPM, §4);
# - quadratic: $\sqrt{\beta_t}$ on a line. Latent diffusion calls this "linear";
# - cosine: $\bar\alpha_t \propto \cos^2\!\big(\tfrac{\pi}{2}\,\tfrac{\tau + s}{1 + s}\big)$ with
#   $s = 0.008$ ([Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672), eq. 17);
# - sigmoid: $\bar\alpha_t$ falls like a sigmoid
#   ([Jabri, Fleet & Chen 2022](https://arxiv.org/abs/2212.11972), algorithm 3).
#
# The cosine by hand. Its $\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}$ are cut off at $0.999$, so
# that the last step does not divide by 0 in the reverse process.

# %%
tau, s = torch.linspace(0, 1, T + 1, dtype=torch.float64), 0.008
f = torch.cos(torch.pi / 2 * (tau + s) / (1 + s)) ** 2
beta_cosine = (1 - f[1:] / f[:-1]).clamp(max=0.999)
cosine = schedules.cosine(T=1000)
assert torch.allclose(cosine.alphas_cumprod, torch.cumprod(1 - beta_cosine, 0), rtol=1e-9, atol=0)

every = {
    make.__name__: make(T=1000)
    for make in (schedules.linear, schedules.quadratic, schedules.cosine, schedules.sigmoid)
}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for name, schedule in every.items():
    a = schedule.alphas_cumprod
    left.plot(a, label=name)
    right.plot((a / (1 - a)).log(), label=name)
left.set(xlabel="$t$", ylabel=r"$\bar\alpha_t$", xlim=(0, T))
right.set(xlabel="$t$", ylabel="ln SNR", xlim=(0, T), ylim=(-12, 10))
left.legend()
plt.show()

# %% [markdown]
# On the right stands what matters, the signal-to-noise ratio (SNR):
#
# $$\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t}.$$
#
# A network is trained equally often at each $t$. So a curve that is flat near ln SNR = 0 spends many
# steps where a picture is half hidden, and that is where most can be learned. The linear schedule
# hurries past it; its last third is nearly pure noise. The same sprite under the four schedules, in
# the order of the legend:

# %%
level = linear.level(torch.arange(T))
assert torch.allclose(level.log_snr, (alpha_bar / (1 - alpha_bar)).log(), atol=1e-9)

times = torch.linspace(0, T - 1, 12).long()
rows = [diffuse(x0[:1], eps[:1], each.level(t)) for each in every.values() for t in times]
grid(to_pixels(torch.cat(rows)), columns=len(times), width=960)

# %% [markdown]
# ## The end of the schedule
#
# Drawing starts from $\mathcal N(0, I)$. That is right only if nothing of the picture is left at
# $T$: $\bar\alpha_T \approx 0$. The table shows $\bar\alpha_T$, and $\sqrt{\bar\alpha_T}$, the share
# of the picture in $x_T$.

# %%
unscaled = torch.linspace(1e-4, 0.02, 200, dtype=torch.float64)  # as if T were 1000
scaled = unscaled * 1000 / 200
ends = {name: schedule.alphas_cumprod[-1] for name, schedule in every.items()}
ends["linear, T=200"] = torch.cumprod(1 - unscaled, 0)[-1]
ends["linear, T=200, scaled"] = torch.cumprod(1 - scaled, 0)[-1]
for name, a in ends.items():
    print(f"{name:24} {a:.3e}   {a.sqrt():.4f}")
assert abs(ends["linear"] - 4.03583e-5) < 1e-9
assert abs(ends["linear, T=200"] - 0.1322) < 5e-5

# %% [markdown]
# The fifth line is a trap. To save time one lowers $T$ to 200 and leaves $\beta_1$ and $\beta_T$ as
# they are. Then $\bar\alpha_T = 0.1322$: 36 % of the picture is still there at the end. The model
# learns that $x_T$ shows a picture, and is then handed pure noise. The cure is to scale $\beta$ by
# $1000/T$. One $x_T$ looks like noise either way, but not to one who averages: below, the mean of 100
# draws of $x_T$ for each of eight sprites, three times as strong; first unscaled, then scaled.

# %%
bad, good = (schedules.DiscreteSchedule(betas) for betas in (unscaled, scaled))
z = Noise(seed=2, ids=torch.arange(800)).normal("eps", x0.shape[1:])
repeated, last = x0[20:28].repeat_interleave(100, dim=0), torch.tensor(199)
means = [
    diffuse(repeated, z, each.level(last)).unflatten(0, (8, 100)).mean(1) for each in (bad, good)
]
grid(to_pixels(3 * torch.cat(means)), columns=8, width=800)

# %% [markdown]
# In the first row the sprites are all there. A number says it as well: the correlation of $x_T$ with
# $x_0$, over all pixels of 512 pictures. Chance alone gives about
# $\pm 1/\sqrt{512 \cdot 768} = \pm 0.002$.

# %%
many = to_signal(sprites.read(torch.arange(512)))
z = Noise(seed=3, ids=torch.arange(512)).normal("eps", many.shape[1:])
correlation = {}
for name, each in {"unscaled": bad, "scaled": good}.items():
    end = diffuse(many, z, each.level(last))
    both = torch.stack((many.flatten(), end.flatten()))
    correlation[name] = torch.corrcoef(both)[0, 1].item()
    print(f"{name:9} correlation of x_T with x_0: {correlation[name]:+.3f}")
assert correlation["unscaled"] > 0.2
assert abs(correlation["scaled"]) < 0.02

# %% [markdown]
# ## Exercise 1
#
# At which $t$ is there as much noise as picture, SNR = 1, under the linear schedule, and under the
# cosine? Write a function of $\bar\alpha_1 \dots \bar\alpha_T$ that returns the first $t$ with
# $\mathrm{SNR}(t) \le 1$.
#
# ### Solution
#
# SNR = 1 means $\bar\alpha_t = \tfrac12$. The cosine has it in the middle, at $\tau \approx 0.5$.

# %%
half = {
    name: int((schedule.alphas_cumprod <= 0.5).nonzero()[0]) + 1 for name, schedule in every.items()
}
print(half)
assert half["linear"] == 260
assert half["cosine"] == 497
before, after = alpha_bar[258], alpha_bar[259]  # t = 259 and t = 260
assert before > 0.5 >= after

# %% [markdown]
# ## Exercise 2
#
# Samplers skip steps, from $t$ to some $s < t$ far below it. For that they need $q(x_t \mid x_s)$.
# Find its mean and variance from $\bar\alpha_t$ and $\bar\alpha_s$ alone.
#
# ### Solution
#
# The product of $\sqrt{\alpha_i}$ from $s+1$ to $t$ is $\sqrt{\bar\alpha_t/\bar\alpha_s}$, and the
# variance must fill what is missing from $1 - \bar\alpha_t$:
#
# $$q(x_t \mid x_s) = \mathcal N\Big(\sqrt{\bar\alpha_t/\bar\alpha_s}\;x_s,\
# \big(1 - \bar\alpha_t/\bar\alpha_s\big) I\Big).$$
#
# With $s = t - 1$ that is the single step again. In the framework it is called `transition`.

# %%
s, t = 100, 300
ratio = alpha_bar[t - 1] / alpha_bar[s - 1]
scale, variance = transition(linear.level(torch.tensor(s - 1)), linear.level(torch.tensor(t - 1)))
assert torch.allclose(scale, ratio.sqrt(), rtol=1e-12)
assert torch.allclose(variance, 1 - ratio, rtol=1e-12)

one = alpha_bar[t - 1] / alpha_bar[t - 2]
assert torch.allclose(1 - one, beta[t - 1], rtol=1e-10)

stepped = torch.full((walks,), 0.8, dtype=torch.float64) * alpha_bar[s - 1].sqrt()
stepped = stepped + (1 - alpha_bar[s - 1]).sqrt() * noise_1d.normal("to s", ()).double()
stepped = ratio.sqrt() * stepped + (1 - ratio).sqrt() * noise_1d.normal("to t", ()).double()
assert abs(stepped.std() / std[t - 1] - 1) < 4 / (2 * walks) ** 0.5

# %% [markdown]
# ## Exercise 3
#
# The data have values from −1 to 1, and a variance $s^2$ below 1. What is the variance of $x_t$ over
# all pictures and all noise? For which $s$ does it stay the same for all $t$?
#
# ### Solution
#
# $\bar\alpha_t s^2 + 1 - \bar\alpha_t$: it goes from $s^2$ to 1, and is constant for $s = 1$. That is
# why the process is called variance preserving. Measured, with the mean of all pixels removed:

# %%
spread = (many - many.mean()).var()
figure, axes = plt.subplots(figsize=(8, 3))
axes.plot(alpha_bar * spread + 1 - alpha_bar, color="black")
for t in shown:
    x_t = diffuse(many - many.mean(), z, linear.level(torch.tensor(t - 1)))
    expected = (alpha_bar[t - 1] * spread + 1 - alpha_bar[t - 1]).item()
    axes.plot(t, x_t.var(), "o", color="tab:red")
    assert abs(x_t.var() / expected - 1) < 0.02
axes.set(xlabel="$t$", ylabel=r"$\mathrm{Var}(x_t)$", xlim=(0, T + 10))
print(f"s² of the sprites: {spread:.3f}")

# %% [markdown]
# **What to remember.** One step is $\sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z$. A jump is
# $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. A schedule is judged by its SNR,
# and $\bar\alpha_T$ must be near 0. Next: a network that undoes it.

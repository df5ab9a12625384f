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
# # 3 · Drawing
#
# [Notebook 2](02_denoising.ipynb) trained a network to see noise. Here it draws: from pure noise,
# step by step, to a picture. By hand first (DDPM's Algorithm 2), then with fewer and fewer steps.
# Two slips show what a bar in the formula is for, and how its last step differs.
#
# The symbols are those of [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239) (DDPM). Here the
# list of all $\bar\alpha_t$ gets $\bar\alpha_0 = 1$ (no noise) in front, so `alpha_bar[t]` is
# $\bar\alpha_t$.
#
# It takes little more than a minute of one processor core if notebook 2 was run in this folder before; if
# not, eight more for its training.

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
from unnoise.diffusion.denoiser import Clip, thresholded
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import (
    DDIM,
    Ancestral,
    DPMSolver,
    Heun,
    Sampler,
    Walk,
    sample,
    steps_for,
)
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 1400))  # of training
TINY = STEPS < 100  # the test suite only wants to see that all cells run


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
network, schedule = model.model.denoiser.network, model.model.schedule
alpha_bar = torch.cat((torch.ones(1), schedule.alphas_cumprod))
shape = (3, 16, 16)


# %% [markdown]
# ## What the network is asked
#
# One thing first. Pixels beyond −1 … 1 are no picture. So the guess that follows from the answer,
# $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon_\theta)/\sqrt{\bar\alpha_t}$, is clipped to that
# range, and $\varepsilon_\theta$ is changed so that it fits. DDPM's own code does so as well. It matters most
# in the first steps: there $\sqrt{\bar\alpha_t}$ is tiny, so that a small error of $\varepsilon$ is a large one
# of $x_0$ (Exercise 1 of notebook 2).


# %%
def picture_of(x, t, eps):
    """x_0, if eps is the noise in x_t."""
    return (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()


@torch.no_grad()
def eps_theta(x, t):
    """The guess of the noise in x_t, changed so that the picture lies within −1 … 1."""
    x0_hat = picture_of(x, t, network(x, torch.tensor(float(t - 1)))).clamp(-1, 1)
    return (x - alpha_bar[t].sqrt() * x0_hat) / (1 - alpha_bar[t]).sqrt()


# %% [markdown]
# ## One step back
#
# If the picture $x_0$ were known, $x_{t-1}$ would be known up to a Gaussian (DDPM, eq. 6). The
# network's guess of $\varepsilon$ stands in for $x_0$, and out comes line 4 of Algorithm 2:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Big(x_t - \frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\;
# \varepsilon_\theta(x_t, t)\Big) + \sigma_t z, \qquad z \sim \mathcal N(0, I).$$
#
# In the last step $z = 0$. In words: take a little of the noise away, scale up, and add a little *new* noise,
# of variance $\sigma_t^2 = \beta_t = 1 - \alpha_t$.
#
# A thousand calls of the network take long. We skip times, and go from $t$ to some $s < t$. Everything
# stays as it is, with $\alpha_t = \bar\alpha_t/\bar\alpha_s$ (Exercise 2 of notebook 1). Below
# $S = 100$ steps. All $S = 990$ would be the paper's Algorithm 2, less the ten noisiest times, at which
# this schedule has nothing but noise.


# %%
def levels(S):
    """S pairs (t, s): from 990 down to 0 in equal steps."""
    t = torch.linspace(990, 990 / S, S).round().long().tolist()
    return list(pairwise([*t, 0]))


def reverse_mean(x, eps, alpha, alpha_bar):
    """The mean of x_{t-1}."""
    return (x - (1 - alpha) / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt()


def algorithm_2(eps_theta, x, z, S, mean=reverse_mean, sigma2=None, last=0, watch=None):
    """Draw. x is x_T, and z() is new noise; the last step adds ``last`` times its noise, that is none."""
    for t, s in levels(S):
        alpha = alpha_bar[t] / alpha_bar[s]
        eps = eps_theta(x, t)
        if watch is not None:
            watch(x, eps, t)
        x = mean(x, eps, alpha, alpha_bar[t])
        variance = 1 - alpha if sigma2 is None else sigma2(alpha, alpha_bar[t], alpha_bar[s])
        x = x + variance.sqrt() * z() * (1 if s > 0 else last)
    return x


def noise(n, seed=0):
    """x_T, and what returns new noise at each call, of n pictures."""
    numbers = Noise(seed=seed, ids=torch.arange(n))
    return numbers.normal("x_T", shape), numbers.normals("sampler", shape)


S, n = (3, 4) if TINY else (100, 12)
kept = []
drawn = algorithm_2(eps_theta, *noise(n), S, watch=lambda *now: kept.append(now))
grid(to_pixels(drawn), columns=n, width=960)

# %% [markdown]
# The framework has each way to draw as a *stepper*, which knows one step from level to level. `Ancestral` is
# line 4. Same noise, same picture:


# %%
def by_the_framework(stepper, S, x, z):
    """The same walk, from the framework's parts."""
    walked = [schedule.level(torch.tensor(t - 1)) for t, _ in levels(S)] + [CLEAN]
    with torch.no_grad():
        denoise = thresholded(model.model.denoiser, Clip())
        return sample(Walk(denoise, schedule, z), stepper, walked, x)


by_hand = algorithm_2(eps_theta, *noise(2), 4)
assert torch.allclose(by_the_framework(Ancestral("beta"), 4, *noise(2)), by_hand, atol=1e-2)

# %% [markdown]
# ## On the way
#
# Above $x_t$ for the first picture, below the guess $\hat x_0$ at that time.

# %%
rows = [[], []]
for x, eps, t in kept[:: max(1, S // 14)]:
    rows[0].append(x[:1])
    rows[1].append(picture_of(x[:1], t, eps[:1]))
grid(to_pixels(torch.cat(rows[0] + rows[1])), columns=len(rows[0]), width=960)

# %% [markdown]
# The first guess is rubbish. Then comes a coloured fog, a mean of all that it might become. In the fourth
# column $x_t$ still looks like pure noise, but outline and colour are settled; what follows is details.
#
# ## Why noise is added
#
# It looks odd to add noise when noise is to go. Leave it out ($\sigma_t = 0$) and see. Rows:
# $\sigma_t^2 = \beta_t$; the smaller
# $\sigma_t^2 = \tilde\beta_t = \frac{1-\bar\alpha_s}{1-\bar\alpha_t}\beta_t$, which the paper
# finds as good; and none.


# %%
def beta_tilde(alpha, alpha_bar_t, alpha_bar_s):
    """The variance of x_s if x_0 is known (DDPM, eq. 7)."""
    return (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)


def none(alpha, alpha_bar_t, alpha_bar_s):
    """No noise."""
    return torch.zeros_like(alpha)


smaller = algorithm_2(eps_theta, *noise(n), S, sigma2=beta_tilde)
without = algorithm_2(eps_theta, *noise(n), S, sigma2=none)
for name, pictures in (("beta", drawn), ("beta_tilde", smaller), ("none", without)):
    print(f"{name:10}  standard deviation between pictures {pictures.std(0).mean():.2f}")
grid(to_pixels(torch.cat((drawn, smaller, without))), columns=n, width=960)

# %% [markdown]
# The first two rows are alike. The last has lost its variety: pale things all of them, one creature four times,
# and three others twice. The standard deviation between pictures (mean over pixels) falls from 0.62 to 0.51.
#
# Is that the network's fault? Take data for which the best answer is known: numbers
# $x_0 \sim \mathcal N(0, s^2)$ with $s = 0.25$. There $E[\varepsilon \mid x_t] =
# \sqrt{1-\bar\alpha_t}\;x_t / v_t$ with $v_t = \bar\alpha_t s^2 + 1 - \bar\alpha_t$, exactly.
# How wide are the numbers that are drawn?

# %%
s_data = 0.25


def exact(x, t):
    """E[eps | x_t] for x_0 of N(0, s_data²)."""
    return (1 - alpha_bar[t]).sqrt() * x / (alpha_bar[t] * s_data**2 + 1 - alpha_bar[t])


numbers = Noise(seed=1, ids=torch.arange(4000))


def histogram(axes, values, label):
    """Of numbers, with the density of the data in black."""
    axes.hist(values, bins=80, range=(-1, 1), histtype="step", density=True, label=label)
    x = torch.linspace(-1, 1, 200)
    axes.plot(x, torch.distributions.Normal(0.0, s_data).log_prob(x).exp(), color="black", lw=0.8)
    axes.set(xlabel="$x_0$", xlim=(-1, 1), ylim=(0, 6))


width = {}
figure, panels = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
for axes, name, sigma2 in zip(
    panels, (r"\beta_t", r"\tilde\beta_t", "0"), (None, beta_tilde, none), strict=True
):
    x = algorithm_2(exact, numbers.normal("x_T", ()), numbers.normals("z", ()), 100, sigma2=sigma2)
    width[name] = x.std().item()
    histogram(axes, x, None)
    axes.set_title(rf"$\sigma_t^2 = {name}$", fontsize=10)
panels[0].set_ylabel("density")
print("standard deviations", " ".join(f"{value:.4f}" for value in width.values()), "of", s_data)
plt.show()
assert abs(width[r"\beta_t"] / s_data - 1) < 0.05
assert abs(width[r"\tilde\beta_t"] / s_data - 1) < 0.15
assert width["0"] < 0.05 * s_data

# %% [markdown]
# Without the noise all these numbers end at their mean, though the guess is perfect. The first part of the step is a
# *mean* of $x_{t-1}$, so it is less spread than $x_{t-1}$ should be; $\sigma_t z$ gives back what is
# missing. Sprites are no single Gaussian but many heaps, so the network's pictures do not all become one; but
# fewer heaps are reached.
#
# ## A common slip: $\sqrt{1-\alpha_t}$ in place of $\sqrt{1-\bar\alpha_t}$
#
# One bar is forgotten, and the code runs. What the network tells is the whole noise of $x_t$, of size
# $\sqrt{1-\bar\alpha_t}$. Divided by the much smaller $\sqrt{1-\alpha_t}$, far too much of it is taken
# away at each step. Rows: right, and without the bar.


# %%
def without_the_bar(x, eps, alpha, alpha_bar):
    """Wrong."""
    return (x - (1 - alpha) / (1 - alpha).sqrt() * eps) / alpha.sqrt()


wrong = algorithm_2(eps_theta, *noise(n), S, mean=without_the_bar)
for name, pictures in (("right", drawn), ("without", wrong)):
    print(f"{name:10}  standard deviation between pictures {pictures.std(0).mean():.2f}")
grid(to_pixels(torch.cat((drawn, wrong))), columns=n, width=960)

# %% [markdown]
# Who sees only the second row sees no mistake; the pictures are even cleaner. Beside the first one notices that they
# are simpler things, and most of them yellow. Variety is lost again: 0.58 in place of 0.62.
#
# For the numbers from $\mathcal N(0, s^2)$ the answer is known, and the slip shows at once. There
# $\varepsilon$ is a multiple of $x$, so a step is $x \leftarrow k_t x + \sigma_t z$, and the variance goes
# $V \leftarrow k_t^2 V + \sigma_t^2$: no chance is involved at all. Now with all 990 steps. Left: what
# multiplies $\varepsilon_\theta$. Middle and right: the numbers that are drawn.


# %%
def width_of(mean, S):
    """The standard deviation that Algorithm 2 ends with, from V ← k²V + σ²."""
    one, V = torch.ones((), dtype=torch.float64), 1.0
    for t, s in levels(S):
        alpha = alpha_bar[t] / alpha_bar[s]
        k = mean(one, exact(one, t), alpha, alpha_bar[t])
        V = k**2 * V + (1 - alpha) * (s > 0)
    return V.sqrt().item()


figure, (left, *panels) = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
times = range(1, 990)
beta = 1 - alpha_bar[1:990] / alpha_bar[:989]
left.semilogy(times, beta / (1 - alpha_bar[1:990]).sqrt(), label=r"$\sqrt{1-\bar\alpha_t}$")
left.semilogy(times, beta / beta.sqrt(), color="tab:red", label=r"$\sqrt{1-\alpha_t}$")
left.set(xlabel="$t$", ylabel=r"what multiplies $\varepsilon_\theta$")
left.legend()
for axes, name, mean in zip(
    panels, ("right", "without the bar"), (reverse_mean, without_the_bar), strict=True
):
    x = algorithm_2(exact, numbers.normal("x_T", ()), numbers.normals("z", ()), 990, mean=mean)
    expected = width_of(mean, 990)
    histogram(axes, x, None)
    axes.set_title(name, fontsize=10)
    print(f"{name:16} standard deviation {x.std():.4f}, expected {expected:.4f}; data {s_data}")
    assert abs(x.std() / expected - 1) < 0.05
plt.show()
assert abs(width_of(reverse_mean, 990) / s_data - 1) < 0.01
assert width_of(without_the_bar, 990) < 0.4 * s_data

# %% [markdown]
# Around $t = 500$ the wrong factor is about 12 times too large, and the numbers end up three times too narrow: 0.087 in
# place of 0.25. So test a sampler on data for which the answer is known. Pictures hide such mistakes.
#
# ## A common slip: noise in the last step
#
# The last step leads to the picture itself, and the picture is its mean. Who adds $\sigma_1 z$ there
# as well puts grain on everything. With all $T = 1000$ steps it is too little to see, and spoils only
# what is measured. With fewer steps the last one is longer, and so is its $\sigma$. Below, 12 steps
# without and with it.

# %%
coarse = 2 if TINY else 12
grained = [algorithm_2(eps_theta, *noise(n), coarse, last=last) for last in (0, 1)]
for k in (990, S, coarse):
    sigma = (1 - alpha_bar[levels(k)[-1][0]]).sqrt() * 127.5
    print(f"{k:4} steps: the noise of the last one is {sigma:.1f} of 255 grey levels")
grid(to_pixels(torch.cat(grained)), columns=n, width=960)

# %% [markdown]
# ## Fewer steps: DDIM
#
# A hundred calls are still many. [Song, Meng & Ermon 2021](https://arxiv.org/abs/2010.02502) found another
# way back (eq. 12 with $\sigma = 0$). Take both guesses, picture and noise, and mix them anew, as a
# picture at time $s$ would be mixed:
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s}\;\varepsilon_\theta(x_t, t).$$
#
# No noise is drawn, and yet nothing collapses: the noise in $x_s$ is that of $x_t$, so it has the
# size that it should. The same $x_T$ always becomes the same picture.


# %%
def ddim(eps_theta, x, S):
    """Draw without noise on the way."""
    for t, s in levels(S):
        eps = eps_theta(x, t)
        x0_hat = picture_of(x, t, eps)
        x = alpha_bar[s].sqrt() * x0_hat + (1 - alpha_bar[s]).sqrt() * eps
    return x


start, z = noise(2)
by_hand = ddim(eps_theta, start, 4)
assert torch.allclose(by_the_framework(DDIM(), 4, start, z), by_hand, atol=1e-2)
exact_width = ddim(exact, numbers.normal("x_T", ()), 100).std().item()
print(f"the numbers, by DDIM in 100 steps: standard deviation {exact_width:.4f} of {s_data}")
assert abs(exact_width / s_data - 1) < 0.05

few = (1, 2) if TINY else (5, 10, 20, 50)
rows = [ddim(eps_theta, noise(n)[0], k) for k in few]
grid(to_pixels(torch.cat(rows)), columns=n, width=960)

# %% [markdown]
# DDIM in 5, 10, 20 and 50 steps, a row each, from the same noise. In most columns more steps change details only. In
# some the picture becomes another, as in the first.
#
# ## Fewer still: DPM-Solver++
#
# DDIM follows a curve, the *probability-flow ODE* ([notebook 5](05_scores.ipynb)), in straight pieces: it
# takes $\hat x_0$ as constant during a step. [DPM-Solver++](https://arxiv.org/abs/2211.01095) (Algorithm 2 of
# that paper) sees from the step before how $\hat x_0$ moves, and takes it half a step further. Time is counted
# in half the ln SNR, $\lambda_t = \tfrac12 \ln \frac{\bar\alpha_t}{1-\bar\alpha_t}$. With
# $h = \lambda_s - \lambda_t$, and $h'$ and $\hat x_0'$ from the step before,
#
# $$D = \hat x_0 + \frac{h}{2h'}\,(\hat x_0 - \hat x_0'), \qquad
# x_s = \sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}}\;x_t + \sqrt{\bar\alpha_s}\,(1 - e^{-h})\,D.$$
#
# In the first step and in the last one, $D = \hat x_0$.


# %%
def dpm_solver(eps_theta, x, S):
    """DPM-Solver++(2M)."""
    lam = (alpha_bar / (1 - alpha_bar)).log() / 2
    before = None
    for t, s in levels(S):
        h, x0_hat = lam[s] - lam[t], picture_of(x, t, eps_theta(x, t))
        D = x0_hat
        if before is not None and s > 0:
            h_before, x0_before = before
            D = x0_hat + h / (2 * h_before) * (x0_hat - x0_before)
        x = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt() * x
        x = x + alpha_bar[s].sqrt() * (1 - (-h).exp()) * D
        before = h, x0_hat
    return x


by_hand = dpm_solver(eps_theta, start, 5)
assert torch.allclose(by_the_framework(DPMSolver(), 5, start, z), by_hand, atol=1e-2)

# %% [markdown]
# How near does each come to the true end of the curve? For numbers from $\mathcal N(0, s^2)$ the end is known:
# $x/\sqrt{v_t}$ stays the same all the way, so each $x_T$ comes to $x_T\sqrt{v_1/v_T}$ at $t = 1$; the last step is
# $\hat x_0$ for all. A `Sampler` is a stepper with
# its number of steps and their spacing, here even in ln SNR.
# [Heun's method](https://arxiv.org/abs/2206.00364) asks twice in each step.

# %%
oracle, many = GaussianOracle(mu=0.0, s=s_data), (10, 20, 40, 80, 160)
figure, axes = plt.subplots(figsize=(8, 3.4))
error = {}
for name, stepper in (("Heun", Heun()), ("DDIM", DDIM()), ("DPM-Solver++", DPMSolver())):
    error[name] = []
    for calls in many:
        k = steps_for(calls, stepper)
        ends = Sampler(stepper, k, "log_snr")(oracle, schedule, (), numbers)
        first, *_, last, _ = schedule.grid(k, "log_snr")
        truth = oracle(oracle.along_the_ode(numbers.normal("x_T", ()), first, last), last).x0
        error[name].append((ends - truth).square().mean().sqrt().item())
    axes.loglog(many, error[name], "o-", label=name)
    print(f"{name:13}", " ".join(f"{value:8.5f}" for value in error[name]))
for order in (1, 2):
    axes.loglog(many, [0.5 * (10 / k) ** order / 4**order for k in many], ":", color="grey", lw=1)
axes.set(xlabel="calls of the network", ylabel="error of $x_0$", xticks=many, xticklabels=many)
axes.minorticks_off()
axes.legend()
for name, ratio in (("DDIM", 2), ("DPM-Solver++", 4)):
    assert abs(error[name][-2] / error[name][-1] / ratio - 1) < 0.15

# %% [markdown]
# From 40 calls on, twice the calls halve the error of DDIM, and about quarter that of the other two (dotted: slopes
# 1 and 2). DPM-Solver++ is
# nearer after 40 calls than DDIM after 160. Heun's method needs short steps to be any good.
#
# ## Which sampler?
#
# Exact is not the same as good. The curve of a network that was trained for minutes has errors, and
# fresh noise washes them out. So the recipe's own sampler is DPM-Solver++ *with* noise, in 20 steps.
# Rows: Algorithm 2, DDIM, DPM-Solver++ and the recipe's sampler, all with 10 calls; then the recipe's with
# its 20. `model.sample` starts picture number $k$ from the same noise each time, so rows can be compared.


# %%
def drawn_by(stepper, steps):
    """Pixels of n pictures; Clip keeps each guess of x_0 within −1 … 1."""
    return model.sample(n, sampler=Sampler(stepper, steps, "log_snr", Clip())).pixels


ten = 2 if TINY else 10
rows = [drawn_by(stepper, ten) for stepper in (Ancestral(), DDIM(), DPMSolver())]
rows += [model.sample(n, steps=steps).pixels for steps in (ten, 2 * ten)]
grid(torch.cat(rows), columns=n, width=960)

# %% [markdown]
# Ten steps are too few for Algorithm 2: its noise is still there. DDIM and DPM-Solver++ find the same pictures, each of
# one strong colour. The recipe's sampler has more colours and more to tell, and in 20 steps also cleaner lines.
#
# On the command line: `unnoise-sample run=… sampler=ddim steps=20 n=64`. How good each is, in numbers,
# says `unnoise-evaluate run=… grid=samplers`.
#
# ## Exercise 1
#
# Show that line 4 of Algorithm 2 is the mean of $q(x_{t-1} \mid x_t, x_0)$ (DDPM, eq. 7),
#
# $$\tilde\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0 +
# \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,$$
#
# with $\hat x_0$ in place of $x_0$.
#
# ### Solution
#
# Put in $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon)/\sqrt{\bar\alpha_t}$. In front of
# $\varepsilon$ stands $-\beta_t/(\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t})$. In front of $x_t$:
# $\frac{1}{1-\bar\alpha_t}\big(\frac{\beta_t}{\sqrt{\alpha_t}} + \sqrt{\alpha_t}(1-\bar\alpha_{t-1})\big)
# = \frac{1}{\sqrt{\alpha_t}} \cdot \frac{1 - \alpha_t + \alpha_t - \bar\alpha_t}{1-\bar\alpha_t}
# = \frac{1}{\sqrt{\alpha_t}}$. In numbers:

# %%
x, eps = (Noise(seed, torch.arange(4)).normal("exercise", (100,)).double() for seed in (1, 2))
for t in (2, 300, 900):
    alpha, bar, before = alpha_bar[t] / alpha_bar[t - 1], alpha_bar[t], alpha_bar[t - 1]
    x0_hat = picture_of(x, t, eps)
    mu = before.sqrt() * (1 - alpha) / (1 - bar) * x0_hat
    mu = mu + alpha.sqrt() * (1 - before) / (1 - bar) * x
    assert torch.allclose(mu, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Exercise 2
#
# Between DDIM and Algorithm 2 lies a family (Song et al. 2021, eq. 12): with $\sigma^2 =
# \eta^2\,\tilde\beta_t$,
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\varepsilon + \sigma z.$$
#
# Show that $\eta = 1$ is Algorithm 2 with $\sigma_t^2 = \tilde\beta_t$.
#
# ### Solution
#
# $1-\bar\alpha_s-\tilde\beta_t = (1-\bar\alpha_s)\big(1 - \frac{1-\alpha_t}{1-\bar\alpha_t}\big)
# = \frac{\alpha_t (1-\bar\alpha_s)^2}{1-\bar\alpha_t}$, as $1 - \bar\alpha_t - 1 + \alpha_t =
# \alpha_t(1-\bar\alpha_s)$. So $\varepsilon$ has the factor
# $\sqrt{\alpha_t}\,(1-\bar\alpha_s)/\sqrt{1-\bar\alpha_t}$, and with $\hat x_0$ and $\varepsilon$ written by
# $x_t$ that is the mean of Exercise 1.

# %%
for t, s in ((300, 250), (900, 880)):
    alpha, bar, before = alpha_bar[t] / alpha_bar[s], alpha_bar[t], alpha_bar[s]
    x0_hat = picture_of(x, t, eps)
    sigma2 = beta_tilde(alpha, bar, before)
    direct = before.sqrt() * x0_hat + (1 - before - sigma2).sqrt() * eps
    assert torch.allclose(direct, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Exercise 3
#
# Show that DPM-Solver++ with $D = \hat x_0$ in every step is DDIM.
#
# ### Solution
#
# $e^{-h} = \sqrt{\frac{\bar\alpha_t\,(1-\bar\alpha_s)}{\bar\alpha_s\,(1-\bar\alpha_t)}}$, so $x_s =
# \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}}\,(x_t -
# \sqrt{\bar\alpha_t}\,\hat x_0)$, and the last bracket is $\sqrt{1-\bar\alpha_t}\,\varepsilon$.

# %%
for t, s in ((300, 250), (900, 880)):
    x0_hat = picture_of(x, t, eps)
    h = ((alpha_bar[s] / (1 - alpha_bar[s])).log() - (alpha_bar[t] / (1 - alpha_bar[t])).log()) / 2
    solver = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt() * x
    solver = solver + alpha_bar[s].sqrt() * (1 - (-h).exp()) * x0_hat
    straight = alpha_bar[s].sqrt() * x0_hat + (1 - alpha_bar[s]).sqrt() * eps
    assert torch.allclose(solver, straight, atol=1e-9)

# %% [markdown]
# ## Exercise 4
#
# DDIM turns each $x_T$ into one picture, so pictures can be mixed by mixing their noises. With
# $(1-w)\,x_T + w\,y_T$, or with $\cos(\phi)\,x_T + \sin(\phi)\,y_T$?
#
# ### Solution
#
# Variances add: $(1-w)^2 + w^2$ is only $\tfrac12$ in the middle, noise that is too weak for $t$, such as the
# network has never seen. $\cos^2 + \sin^2 = 1$ always. Above the sum by $w$, paler in the middle; below by $\phi$:

# %%
one, other = noise(6)[0][[0, 5 if not TINY else 1]]
w = torch.linspace(0, 1, 9)[:, None, None, None]
phi = w * torch.pi / 2
lines, circle = (1 - w) * one + w * other, phi.cos() * one + phi.sin() * other
print(f"variances in the middle: {lines[4].var():.2f} and {circle[4].var():.2f}")
assert abs(lines[4].var() - 0.5) < 0.1
assert abs(circle[4].var() - 1) < 0.2
pictures = ddim(eps_theta, torch.cat((lines, circle)), 3 if TINY else 20)
grid(to_pixels(pictures), columns=9, width=800)

# %% [markdown]
# **What to remember.** A step back takes some of the guessed noise away and adds new noise, since
# what it computes is a mean. It divides by $\sqrt{1-\bar\alpha_t}$, with the bar. The last step adds
# nothing. DDIM follows a curve and needs no noise; solvers of curves need fewer steps. Next: how good
# is the model, [in bits](04_likelihood.ipynb)?

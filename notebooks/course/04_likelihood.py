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
# # 4 · The bound and the likelihood
#
# How good is a model? One answer needs no eyes: how probable does it think real pictures are? A
# diffusion model has a bound on that, which is a sum over the steps. Here it is computed term by term,
# in bits; first for numbers of which all is known, then for sprites. It shows what the simple loss of
# [notebook 2](02_denoising.ipynb) leaves out, and what a learned variance is good for. At the end the
# density itself is computed, by an ODE.
#
# The symbols are those of [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239) (DDPM), with
# $\bar\alpha_0 = 1$ in front, so `alpha_bar[t]` is $\bar\alpha_t$. All is computed in float64, since variances
# span many orders of magnitude.
#
# It takes about a minute of one processor core if notebook 2 was run in this folder before; if not, eight
# more for its training.

# %%
import math
import os
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unnoise
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.diffusion.denoiser import Clip, thresholded
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.likelihood import bound, hutchinson, ode_bits_per_dim, ode_log_density
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
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
denoise, schedule = thresholded(model.model.denoiser, Clip()), model.model.schedule
network = model.model.denoiser.network
alpha_bar = torch.cat((torch.ones(1, dtype=torch.float64), schedule.alphas_cumprod))
n = 4 if TINY else 8
pixels = model.images("validation").read(torch.arange(n))
x0 = to_signal(pixels).double()

# %% [markdown]
# ## Bits per dimension
#
# A picture has $D = 768$ numbers, each a byte. Who has a probability $p(x_0)$ for every picture can
# store one in $-\log_2 p(x_0)$ bits (nearly), so $-\frac1D \log_2 p(x_0)$ is bits per dimension: less
# is better. Who knows nothing takes 8. An ordinary packer:

# %%
packed = [8 * len(zlib.compress(each.numpy().tobytes(), 9)) / each.numel() for each in pixels]
print(f"zlib: {sum(packed) / n:.2f} bits/dim")

# %% [markdown]
# ## The bound
#
# Draw backwards as in [notebook 3](03_drawing.ipynb): that defines $p(x_0)$, a huge integral. From
# below it can be bounded by comparing, at each step, with the posterior that knows $x_0$ (DDPM, eq. 5):
#
# $$-\ln p(x_0) \le \mathbb E_q\Big[\underbrace{\mathrm{KL}\big(q(x_T|x_0)\,\|\,\mathcal N(0, I)\big)}_{L_T} + \sum_t
# \underbrace{\mathrm{KL}\big(q(x_{s}|x_t,x_0)\,\|\,p_\theta(x_{s}|x_t)\big)}_{L_{s}}
# \underbrace{-\ln p_\theta(x_0|x_1)}_{L_0}\Big].$$
#
# The expectation is over the noise; below, one $x_t$ a step stands for it.
# $p_\theta$ is the sampler: its mean is that of $q$ with the guess $\hat x_0$ in place of $x_0$, and its
# variance $\sigma_t^2$ is ours to choose. All are Gaussians, so each term is a formula. For two of them, per
# number,
#
# $$\mathrm{KL} = \tfrac12\Big(r - 1 - \ln r + \frac{(\mu_q - \mu_p)^2}{\sigma_p^2}\Big), \qquad
# r = \frac{\sigma_q^2}{\sigma_p^2}.$$
#
# Here $\sigma_q^2$ is $\tilde\beta_t$, and the means differ by $c_t\,(x_0 - \hat x_0)$ with
# $c_t = \sqrt{\bar\alpha_s}\,\beta_t/(1-\bar\alpha_t)$.
#
# Again not all thousand steps, but $S$ of them, from $t$ to $s$, closer together at little noise, where bits
# are.


# %%
def levels(S):
    """S pairs (t, s), from T down to 0."""
    t = (schedule.times(S, "quadratic") + 1).tolist()
    return list(pairwise([*t, 0]))


def kl(gap2, variance_q, variance_p):
    """Of Gaussians, in nats; ``gap2`` is the squared distance of their means."""
    r = variance_q / variance_p
    return 0.5 * (r - 1 - r.log() + gap2 / variance_p)


def constants(t, s):
    """beta, beta_tilde and c of a step."""
    beta = 1 - alpha_bar[t] / alpha_bar[s]
    beta_tilde = (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * beta
    return beta, beta_tilde, alpha_bar[s].sqrt() * beta / (1 - alpha_bar[t])


# %% [markdown]
# ## Where the truth is known
#
# Numbers $x_0 \sim \mathcal N(0, s^2)$ cannot be stored in less than their entropy,
# $\tfrac12 \ln(2\pi e s^2)$ nats. The best guess $\hat x_0 = E[x_0 \mid x_t]$ misses by
# $E(x_0 - \hat x_0)^2 = \operatorname{Var}(x_0 \mid x_t) = s^2 (1-\bar\alpha_t)/v_t$ with
# $v_t = \bar\alpha_t s^2 + 1 - \bar\alpha_t$. So every term is known too. How far above the entropy is their
# sum? That depends on $\sigma_t^2$: $\beta_t$, $\tilde\beta_t$, or (Exercise 3)
# $\tilde\beta_t + c_t^2 \operatorname{Var}(x_0 \mid x_t)$. For the last step, to $x_0$ itself, we take
# $\operatorname{Var}(x_0 \mid x_t)$ each time.

# %%
s_data = 0.25
entropy = 0.5 * math.log(2 * math.pi * math.e * s_data**2)


def posterior_variance(t):
    """Var(x_0 | x_t)."""
    return s_data**2 * (1 - alpha_bar[t]) / (alpha_bar[t] * s_data**2 + 1 - alpha_bar[t])


def gaussian_bound(S, choose):
    """L_T + sum of L_t + L_0, in nats, in the mean over x_0."""
    *steps, (first, _) = levels(S)
    a = alpha_bar[steps[0][0]]
    total = kl(a * s_data**2, 1 - a, torch.ones_like(a))
    for t, s in steps:
        beta, beta_tilde, c = constants(t, s)
        gap2 = c**2 * posterior_variance(t)
        total = total + kl(gap2, beta_tilde, choose(beta, beta_tilde, gap2))
    return total + 0.5 * (2 * math.pi * math.e * posterior_variance(first)).log()


choices = {
    r"$\beta_t$": lambda beta, beta_tilde, gap2: beta,
    r"$\tilde\beta_t$": lambda beta, beta_tilde, gap2: beta_tilde,
    "best": lambda beta, beta_tilde, gap2: beta_tilde + gap2,
}
few = (5, 10, 20, 50, 100, 200, 500)
figure, axes = plt.subplots(figsize=(8, 3.2))
excess = {}
for name, choose in choices.items():
    excess[name] = [(gaussian_bound(S, choose).item() - entropy) / math.log(2) for S in few]
    if name != "best":
        axes.loglog(few, excess[name], "o-", label=name)
    print(f"{name:17}", " ".join(f"{value:9.2e}" for value in excess[name]))
axes.set(xlabel="$S$", ylabel="bits above the entropy", xticks=few, xticklabels=few)
axes.minorticks_off()
axes.legend()
assert all(abs(value) < 1e-9 for value in excess["best"])
assert excess[r"$\beta_t$"][-1] < excess[r"$\beta_t$"][0] / 10

# %% [markdown]
# With the best variance the bound *is* the entropy, whatever $S$: even five steps lose nothing. With $\beta_t$ the
# excess falls as $1/S$. And $\tilde\beta_t$ is right if $x_0$ is known, but $\hat x_0$ is a guess. In five steps that
# costs 175 bits, and 0.57 are left even in 500: in the very last steps, each of which takes much of the noise that is
# left, it is too small, however many steps there are.
#
# ## Sprites
#
# Now the network's guesses, clipped to −1 … 1 as in notebook 3, one $x_t$ for each step; $\sigma_t^2 = \beta_t$.
# The last term asks for the probability of a *byte*: all of the bell between half a level below it and half a
# level above (DDPM, eq. 13).


# %%
@torch.no_grad()
def guesses(x0, S, seed=0):
    """x0_hat of every step, from one x_t each."""
    noise, kept = Noise(seed, torch.arange(len(x0))), []
    for k, (t, _) in enumerate(levels(S)):
        eps = noise.normal("bound", x0.shape[1:], draw=k).double()
        x_t = alpha_bar[t].sqrt() * x0 + (1 - alpha_bar[t]).sqrt() * eps
        eps_theta = network(x_t.float(), torch.tensor(float(t - 1))).double()
        x0_hat = (x_t - (1 - alpha_bar[t]).sqrt() * eps_theta) / alpha_bar[t].sqrt()
        kept.append(x0_hat.clamp(-1, 1))
    return kept


def bits(nats):
    """Nats of each number (B, …) to bits per dimension (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def prior_term(x0, S):
    """L_T."""
    a = alpha_bar[levels(S)[0][0]]
    return bits(kl(a * x0**2, 1 - a, torch.ones_like(a)))


def decoder_term(x0, x0_hat, variance):
    """L_0."""
    edges = [(x0 + side / 255 - x0_hat) / variance.sqrt() for side in (-1, 1)]
    low = torch.where(x0 < -0.999, -math.inf, edges[0])
    high = torch.where(x0 > 0.999, math.inf, edges[1])
    mass = torch.special.ndtr(high) - torch.special.ndtr(low)
    flipped = torch.special.ndtr(-low) - torch.special.ndtr(-high)  # exact in the other tail
    return bits(-torch.where(low > 0, flipped, mass).clamp(min=1e-300).log())


S = 4 if TINY else 100
x0_hats = guesses(x0, S)
L_t = []
for (t, s), x0_hat in zip(levels(S)[:-1], x0_hats[:-1], strict=True):
    beta, beta_tilde, c = constants(t, s)
    L_t.append(bits(kl((c * (x0 - x0_hat)) ** 2, beta_tilde, beta)))
L_t = torch.stack(L_t)
L_T = prior_term(x0, S)
L_0 = decoder_term(x0, x0_hats[-1], constants(*levels(S)[-1])[0])
total = L_T + L_t.sum(0) + L_0

steps = [schedule.level(torch.tensor(t - 1)) for t, _ in levels(S)] + [CLEAN]
with torch.no_grad():
    theirs = bound(denoise, steps, x0.float(), Noise(0, torch.arange(n)), "beta")
assert torch.allclose(theirs.prior, L_T, atol=1e-4)
assert torch.allclose(theirs.steps.T, L_t, rtol=1e-2, atol=1e-4)
assert torch.allclose(theirs.decoder, L_0, rtol=1e-2)
print(f"L_T {L_T.mean():.5f}   sum of L_t {L_t.sum(0).mean():.3f}   L_0 {L_0.mean():.3f}")
print(f"the bound, in all: {total.mean():.3f} bits/dim")
grid(pixels, columns=n, width=960, captions=[f"{each:.2f}" for each in total])

# %% [markdown]
# 4.81 bits for each number, and for each picture what stands below it. A packer that has never seen a sprite needs
# 2.52! Sprites are drawn in few flat colours; their bytes repeat exactly, and that the packer sees. The network,
# trained for minutes, knows each byte to within a few levels. The last step alone costs 1.53.
#
# Where are the bits? Each dot is the term of one step; the line is the sum of all from $T$ down to $t$.

# %%
times = [t for t, _ in levels(S)]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3), layout="constrained")
left.loglog(times[:-1], L_t.mean(1), ".")
left.plot(times[-1], L_0.mean(), "s", color="tab:red")
left.set(xlabel="$t$", ylabel="$L_t$ in bits/dim")
right.semilogx(times, torch.cat((L_t.mean(1), L_0.mean()[None])).cumsum(0) + L_T.mean())
right.set(xlabel="$t$", ylabel="bits/dim from $T$ down to $t$")
plt.show()

# %% [markdown]
# What do the bits buy? The guesses $\hat x_0$ from which, counted from $T$, so much of all bits has been spent:

# %%
spent = torch.cat((L_t.mean(1), L_0.mean()[None])).cumsum(0)
shares = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5)
where = [int((spent >= share * spent[-1]).nonzero()[0]) for share in shares]
print("t =", ", ".join(str(times[k]) for k in where))
shown = torch.cat([x0_hats[k][one : one + 1] for one in (0, n - 3) for k in where])
grid(to_pixels(shown), columns=8, width=960, captions=[f"{share:.1%}" for share in shares] * 2)

# %% [markdown]
# Five hundredths of the bits pay for nearly all that we see. Half of them are spent from $t = 4$ on, where the noise
# is less than two grey levels. A model that counts well need not draw well, nor the other way round.
#
# ## The simple loss against the bound
#
# In terms of $\varepsilon$ a term is (DDPM, eq. 12), up to a constant,
#
# $$L_s = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}\;\lVert\varepsilon -
# \varepsilon_\theta\rVert^2,$$
#
# and the simple loss leaves the factor out. The factor for single steps, with its mean set to 1:

# %%
beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
weight = beta**2 / (2 * beta * (1 - beta) * (1 - alpha_bar[1:]))
figure, axes = plt.subplots(figsize=(8, 3))
axes.semilogy(range(1, 990), (weight / weight[:989].mean())[:989], label="bound")
axes.axhline(1, color="tab:orange", label="simple loss")
axes.set(xlabel="$t$", ylabel="weight of step $t$")
axes.legend()
print(f"weight of t = 1 over that of t = 300: {weight[0] / weight[299]:.0f}")
assert weight[0] > 10 * weight[299]

# %% [markdown]
# The bound would have the network learn the finest grain above all. The simple loss cares more for outlines, and
# that is what we see; the recipe's own choice of $t$ (notebook 2) leans that way too. So the same network looks
# better and counts worse.
#
# ## Learned variances
#
# $\sigma_t^2 = \beta_t$ is best if $x_0$ is itself noise from $\mathcal N(0, I)$, $\tilde\beta_t$ if it is one known
# picture (DDPM, §3.2).
# [Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672) (eq. 15) let the network choose between:
#
# $$\sigma_t^2 = \exp\big(v \ln \beta_t + (1 - v) \ln \tilde\beta_t\big).$$
#
# Their $v$ is an output of the network for each number. Ours is one $v_t$ for each step, learned by the
# gradient of the bound from other pictures than those that are measured. Few steps have the most to
# gain.


# %%
def gaps(x0, S):
    """For each step: beta, beta_tilde, and the mean squared distance of the two means."""
    rows = []
    for (t, s), x0_hat in zip(levels(S)[:-1], guesses(x0, S)[:-1], strict=True):
        beta, beta_tilde, c = constants(t, s)
        rows.append(torch.stack((beta, beta_tilde, (c * (x0 - x0_hat)).square().mean())))
    return torch.stack(rows).unbind(1)


def between(v, beta, beta_tilde):
    """The variance for v."""
    return (v * beta.log() + (1 - v) * beta_tilde.log()).exp()


training = to_signal(model.images("train").read(torch.arange(n))).double()
few, found, variances = (3, 4) if TINY else (8, 20, 60), {}, {}
for S in few:
    beta, beta_tilde, gap2 = gaps(training, S)
    v = torch.full_like(beta, 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([v], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        kl(gap2, beta_tilde, between(v, beta, beta_tilde)).sum().backward()
        optimizer.step()
    learned = between(v.detach(), beta, beta_tilde)
    best = beta_tilde + gap2  # where the slope of the KL by its variance is 0
    assert torch.allclose(learned.log(), best.log(), atol=0.2) or TINY
    variances[S] = beta, beta_tilde, learned

    gap2 = gaps(x0, S)[2]
    for name, variance in (("beta", beta), ("beta_tilde", beta_tilde), ("learned", learned)):
        found.setdefault(name, []).append(kl(gap2, beta_tilde, variance).sum().item() / math.log(2))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3), layout="constrained")
S = few[1]
for one, name in zip(variances[S], (r"$\beta_t$", r"$\tilde\beta_t$", "learned"), strict=True):
    left.loglog([t for t, _ in levels(S)[:-1]], one, ".-", label=name)
left.set(xlabel="$t$", ylabel=rf"$\sigma_t^2$, {S} steps")
left.legend()
for name, values in found.items():
    right.loglog(few, values, "o-", label=name.replace("_", " "))
    print(f"{name:10}", " ".join(f"{value:8.2f}" for value in values), "bits/dim")
right.set(xlabel="steps", ylabel=r"sum of $L_t$ in bits/dim", xticks=few, xticklabels=few)
right.set(yticks=(3, 5, 10, 20), yticklabels=(3, 5, 10, 20))
right.minorticks_off()
plt.show()
assert (
    all(
        a <= min(b, c)
        for a, b, c in zip(found["learned"], found["beta"], found["beta_tilde"], strict=True)
    )
    or TINY
)

# %% [markdown]
# The learned variance is near $\tilde\beta_t$ where there is much noise, and near $\beta_t$ where there is little:
# there the network's own error counts most. It saves 1.26 bits against $\beta_t$ with 8 steps, and still 0.25 with 60.
#
# In the framework: `unnoise-train experiment=sprites_learned_variance`, which trains $v$ as a second output
# of the network, and `unnoise-evaluate measure=likelihood run=…`, which gives the bound over all levels.
#
# ## Exactly, by the ODE
#
# The probability-flow ODE ([notebook 5](05_scores.ipynb)) turns each picture into one noise. With
# $y = x_t/\sqrt{\bar\alpha_t}$ and $\hat\sigma = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}$ it is
# $dy/d\hat\sigma = \varepsilon_\theta$, and the density changes as the flow spreads or gathers:
#
# $$\ln p(y_0) = \ln p(y_T) + \int \operatorname{div} \varepsilon_\theta \; d\hat\sigma.$$
#
# No bound any more, for real numbers. (To levels of 256 noise is added first, and the mean over it is a bound
# again, if a close one.) For numbers from $\mathcal N(0.3, s^2)$ the truth is known:

# %%
oracle = GaussianOracle(mu=0.3, s=s_data)
x = torch.linspace(-0.5, 1.1, 41, dtype=torch.float64)[:, None]
log_density = ode_log_density(oracle, schedule, x, hutchinson(torch.ones_like(x)))
v = s_data**2 + (1 - alpha_bar[1]) / alpha_bar[1]  # at the cleanest level a little noise is left
truth = -((x[:, 0] - 0.3) ** 2) / (2 * v) - 0.5 * (2 * math.pi * v).log()
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(x, truth.exp(), color="black", label="truth")
axes.plot(x, log_density.exp(), "o", markersize=4, label="by the ODE")
axes.set(xlabel="$x_0$", ylabel="$p(x_0)$")
axes.legend()
assert torch.allclose(log_density, truth, atol=2e-3)

# %% [markdown]
# And for the sprites. The divergence is estimated by random signs, $v^\top (d\varepsilon_\theta/dy)\,v$
# (Hutchinson), one pass of autograd each.

# %%
some = 2 if TINY else 4
by_ode = ode_bits_per_dim(
    denoise, schedule, x0[:some].float(), Noise(0, torch.arange(some)), 0.1 if TINY else 1e-3
)
for name, values in (("ODE", by_ode), ("bound", total), ("zlib", packed)):
    print(f"{name:6}", " ".join(f"{each:6.2f}" for each in values[:some]))

# %% [markdown]
# By the ODE the pictures cost about 0.4 bits less for each number. Both agree which of them are dear. The difference
# is not only what the bound loses: sampler and ODE are two ways to draw with one network, so $p$ is not the same.
#
# ## A common slip: the density for the probability
#
# A byte has a probability, a real number only a density. So noise within half a level to both sides is added
# first, and then the density is multiplied by the width of a level, here $2/255$ as the values go from −1
# to 1: $-\log_2 \tfrac{2}{255} = 6.99$ bits for each number. Without that:

# %%
wrong = by_ode + math.log2(2 / 255)
print("with   ", " ".join(f"{each:6.2f}" for each in by_ode))
print("without", " ".join(f"{each:6.2f}" for each in wrong))

# %% [markdown]
# Pictures in less than no bits at all. Here it shows. In a comparison of two models that scale their pixels
# differently it does not. The other slip of this kind is nats taken for bits, a factor of $\ln 2 = 0.69$.
#
# ## Exercise 1
#
# In notebook 1 an end of the schedule was wrong: $\bar\alpha_T = 0.1322$. How many bits per dimension
# does $L_T$ cost there?
#
# ### Solution
#
# $L_T = \tfrac12\big(\bar\alpha_T x_0^2 + (1-\bar\alpha_T) - 1 - \ln(1-\bar\alpha_T)\big)/\ln 2$, mean
# over the pixels. It is the price of starting from the wrong noise.

# %%
a = torch.tensor(0.1322, dtype=torch.float64)
price = bits(kl(a * x0**2, 1 - a, torch.ones_like(a))).mean()
print(f"L_T = {price:.4f} bits/dim, {768 * price:.0f} bits a picture; here it was {L_T.mean():.6f}")
assert 100 * L_T.mean() < price

# %% [markdown]
# ## Exercise 2
#
# Show that with $\sigma_t^2 = \tilde\beta_t$ a term is a difference of two SNRs
# ([Kingma et al. 2021](https://arxiv.org/abs/2107.00630), eq. 13):
# $L_s = \tfrac12\big(\mathrm{SNR}(s) - \mathrm{SNR}(t)\big)\,(x_0 - \hat x_0)^2$.
#
# ### Solution
#
# $r = 1$, so only $c_t^2 (x_0-\hat x_0)^2 / (2\tilde\beta_t)$ is left, and
# $\frac{c_t^2}{\tilde\beta_t} = \frac{\bar\alpha_s \beta_t}{(1-\bar\alpha_t)(1-\bar\alpha_s)}
# = \frac{\bar\alpha_s - \bar\alpha_t}{(1-\bar\alpha_t)(1-\bar\alpha_s)}
# = \frac{\bar\alpha_s}{1-\bar\alpha_s} - \frac{\bar\alpha_t}{1-\bar\alpha_t}$.

# %%
snr = alpha_bar / (1 - alpha_bar)
for t, s in ((2, 1), (300, 250), (900, 899)):
    _, beta_tilde, c = constants(t, s)
    assert torch.allclose(c**2 / beta_tilde, snr[s] - snr[t], rtol=1e-9)

# %% [markdown]
# ## Exercise 3
#
# Which variance makes a term smallest, if the means differ by $g^2$ in the mean square? Check it
# against its neighbours.
#
# ### Solution
#
# The slope of $\tfrac12(\tilde\beta/\sigma^2 - 1 - \ln(\tilde\beta/\sigma^2) + g^2/\sigma^2)$ by $\ln\sigma^2$ is
# $\tfrac12(1 - (\tilde\beta + g^2)/\sigma^2)$. It is 0 for $\sigma^2 = \tilde\beta + g^2$
# ([Bao et al. 2022](https://arxiv.org/abs/2201.06503)): what the posterior has, and the network's own error.

# %%
beta_tilde, g2 = torch.tensor(0.02, dtype=torch.float64), torch.tensor(0.005, dtype=torch.float64)
best = kl(g2, beta_tilde, beta_tilde + g2)
for factor in (0.9, 0.99, 1.01, 1.1):
    assert kl(g2, beta_tilde, factor * (beta_tilde + g2)) > best

# %% [markdown]
# **What to remember.** The bound is a sum of distances between Gaussians, most of it where the noise is
# least. The simple loss weighs the steps otherwise, for looks. A good variance is $\tilde\beta_t$ plus the
# network's own error. The ODE gives the density itself. Next: [the score](05_scores.ipynb), which
# that ODE follows.

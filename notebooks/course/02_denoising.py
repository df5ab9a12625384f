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
# # 2 · Learning to denoise
#
# [Notebook 1](01_noise.ipynb) added noise. Here a network learns to see it. Its whole task is one
# question: *here is a noisy picture; which noise is in it?* The loop that trains it is written out by
# hand, then left to the framework.
#
# The symbols are those of [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), called DDPM
# below. The papers count $t = 1 \dots T$ and Python from 0, so `alpha_bar[t - 1]` is
# $\bar\alpha_t$, and the network is given $t - 1$. The schedule is the cosine of notebook 1.
#
# It takes about nine minutes of one processor core; eight of them train the recipe, if the folder has no
# finished run of it.

# %%
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import unnoise
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.networks.blocks import sinusoidal_embedding
from unnoise.networks.unet import UNet
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 1400))  # of training
TINY = STEPS < 100  # the test suite only wants to see that all cells run
BY_HAND = 2 if TINY else 80  # steps of the loop by hand
CHANNELS = 8 if TINY else 16

T = 1000
schedule = schedules.cosine(T)
alpha_bar = schedule.alphas_cumprod.float()
source = Sprites(size=2000, validation_size=500)
sprites, validation = source.images("train"), source.images("validation")

# %% [markdown]
# ## The question
#
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. Who knows $\varepsilon$ knows
# the picture: solve for $x_0$ (DDPM, eq. 15),
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}}.$$
#
# Below, the same five sprites as $x_0$, $\varepsilon$ (as a picture) and $x_t$ for $t = 300$. The
# network sees the last row and $t$, and is to answer with the second.


# %%
def column(a):
    """Numbers (B,) so that they multiply pictures (B, C, H, W)."""
    return a[:, None, None, None]


def noisy(x0, t, eps):
    """x_t."""
    a = column(alpha_bar[t - 1])
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def picture_of(x_t, t, eps):
    """x_0, if eps is the noise in x_t."""
    a = column(alpha_bar[t - 1])
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


ids = torch.arange(5)
x0 = to_signal(validation.read(ids))
eps = Noise(seed=0, ids=ids).normal("eps", x0.shape[1:])
t = torch.full((5,), 300)
x_t = noisy(x0, t, eps)
assert torch.allclose(picture_of(x_t, t, eps), x0, atol=1e-5)
grid(to_pixels(torch.cat((x0, eps / 2, x_t))), columns=5, width=480)

# %% [markdown]
# ## The time embedding
#
# The answer depends on $t$: at $t = 10$ the noise is a faint grain, at $t = 900$ it is all there is.
# So the network is told $t$. One number that runs to 1000 is a bad input for it. It gets many
# waves of it, slow and fast, like the hands of a clock:
#
# $$\big[\sin(t f_1), \dots, \sin(t f_{16}),\ \cos(t f_1), \dots, \cos(t f_{16})\big],
# \qquad f_i = 10000^{-(i-1)/15}.$$
#
# The fast waves tell 500 from 501, and the slow ones tell 100 from 900.

# %%
times = torch.arange(T)
f = 10000 ** (-torch.arange(16) / 15)
embedding = torch.cat([(times[:, None] * f).sin(), (times[:, None] * f).cos()], dim=1)
assert torch.allclose(embedding, sinusoidal_embedding(times, 32), atol=1e-3)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.imshow(embedding.T, aspect="auto", cmap="RdBu", interpolation="nearest")
left.set(xlabel="$t$", ylabel="entry of the embedding")
for one in (100, 500, 900):
    right.plot(embedding @ embedding[one] / 16, label=f"$t = {one}$")
right.set(xlabel="$t$", ylabel="likeness (dot product)")
right.legend()
plt.show()

# %% [markdown]
# On the right: neighbours in time have like embeddings, so what is learned at $t = 500$ helps at
# $t = 510$.
#
# ## The network
#
# Question and answer have the same shape, so the network goes from picture to picture. A **U-Net**
# looks at small parts at full size, at large parts at half and quarter size, and puts both together:
# what was computed on the way down is handed across to the way up. It is made of residual blocks,
# and each of them is told the time:
#
# $$h = \mathrm{conv}_1(\mathrm{silu}(\mathrm{norm}_1(x))) + W e_t, \qquad
# \mathrm{out} = \mathrm{shortcut}(x) + \mathrm{conv}_2(\mathrm{silu}(\mathrm{norm}_2(h))).$$

# %%
torch.manual_seed(0)
shape = (3, 16, 16)
size = {"channels": CHANNELS, "multipliers": (1, 2, 2), "blocks": 1, "attention_resolutions": (8,)}
network = UNet(shape, 3, **size)

block = network.down[0].block
h, e_t = torch.randn(2, CHANNELS, 16, 16), torch.randn(2, 4 * CHANNELS)
inner = block.conv1(F.silu(block.norm1(h))) + block.time(e_t)[:, :, None, None]
out = block.shortcut(h) + block.conv2(F.silu(block.norm2(inner)))
assert torch.allclose(out, block(h, e_t), atol=1e-5)

parts = [network.conv_in, *network.down, *network.middle, *network.up]
sizes = []
watching = [part.register_forward_hook(lambda p, i, o: sizes.append(o.shape[1:])) for part in parts]
answer = network(x_t, (t - 1).float())
for each in watching:
    each.remove()

figure, axes = plt.subplots(figsize=(9, 2.8))
for k, (channels, height, _) in enumerate(sizes):
    colour = plt.cm.viridis(channels / max(c for c, _, _ in sizes) * 0.8)
    axes.bar(k, height, bottom=-height / 2, width=0.7, color=colour)
    axes.text(k, height / 2 + 0.6, channels, ha="center", fontsize=8)
axes.axis("off")
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
assert answer.abs().max() == 0

# %% [markdown]
# Each bar is what one part of the network puts out, from left to right: as high as its pictures are
# (16, 8 or 4 pixels), with its number of channels above. At 8 × 8 and in the middle there is
# attention too, by which each place looks at all others.
#
# The last line of the code: at the start the answer is exactly 0, because the last convolution
# starts at 0. So the first loss is known before it is computed. It is $E\,\varepsilon^2 = 1$.
#
# ## The training loop
#
# Algorithm 1 of DDPM:
#
# > **repeat**
# > &nbsp; $x_0 \sim q(x_0)$
# > &nbsp; $t \sim \mathrm{Uniform}(\{1, \dots, T\})$
# > &nbsp; $\varepsilon \sim \mathcal N(0, I)$
# > &nbsp; take a gradient step on
# > $\nabla_\theta \lVert \varepsilon - \varepsilon_\theta(\sqrt{\bar\alpha_t}\,x_0 +
# > \sqrt{1-\bar\alpha_t}\,\varepsilon,\ t)\rVert^2$
# >
# > **until** converged
#
# Line by line in Python, for 16 pictures at a time. The square is a mean over all pixels and
# pictures, not a sum: that only scales the step.


# %%
def drawn_for(step, size=16):
    """x_0, t and eps of a step: each picture comes once."""
    ids = torch.arange(step * size, (step + 1) * size)
    noise = Noise(seed=0, ids=ids)
    x0 = to_signal(sprites.read(ids % len(sprites)))
    t = (T * noise.uniform("t")).long() + 1
    return x0, t, noise.normal("eps", x0.shape[1:])


def trained(network, steps, rate=2e-3, zero=True):
    """Algorithm 1; returns the loss of each step, and the length of the gradient."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses, lengths = [], []
    for step in range(steps):
        x0, t, eps = drawn_for(step)
        eps_theta = network(noisy(x0, t, eps), (t - 1).float())
        loss = (eps - eps_theta).square().mean()
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        lengths.append(torch.cat([p.grad.flatten() for p in network.parameters()]).norm().item())
    return torch.tensor(losses), torch.tensor(lengths)


losses, lengths = trained(network, BY_HAND)
print(f"first loss {losses[0]:.3f}, mean of the last 25 {losses[-25:].mean():.3f}")
assert abs(losses[0] - 1) < 0.05
assert losses[-25:].mean() < 0.5 or TINY


# %%
def smooth(values, width=25):
    """Means of neighbours, for a plot."""
    return values.unfold(0, min(width, len(values)), 1).mean(1)


figure, axes = plt.subplots(figsize=(8, 3))
axes.semilogy(losses, color="tab:blue", alpha=0.3, linewidth=0.7)
axes.semilogy(smooth(losses), color="tab:blue")
axes.set(xlabel="step", ylabel="loss")
plt.show()

# %% [markdown]
# The curve falls fast and then is mostly scatter, for each step has other $t$, and the loss depends
# on $t$ much more than on the step. So ask for each $t$ on its own, with pictures that were not
# trained on. There is something to compare with. The best answer that only scales its
# input, $\hat\varepsilon = c_t x_t$, has (Exercise 2) the loss
#
# $$\frac{\bar\alpha_t s^2}{\bar\alpha_t s^2 + 1 - \bar\alpha_t},$$
#
# where $s^2$ is the mean square of the data's values.


# %%
@torch.no_grad()
def loss_at(eps_theta, t, count=16 if TINY else 32):
    """Mean of the loss over real pictures, all at this t."""
    ids = torch.arange(count)
    x0 = to_signal(validation.read(ids))
    eps = Noise(seed=1, ids=ids).normal("eps", x0.shape[1:])
    t = torch.full((count,), t)
    return (eps - eps_theta(noisy(x0, t, eps), (t - 1).float())).square().mean().item()


network.eval()
some = (3, 10, 30, 60, 100, 200, 300, 450, 600, 750, 900, 980)
by_t = torch.tensor([loss_at(network, t) for t in some])
s2 = to_signal(validation.read(torch.arange(500))).square().mean()
scaled = alpha_bar * s2 / (alpha_bar * s2 + 1 - alpha_bar)
figure, axes = plt.subplots(figsize=(8, 3.2))
axes.loglog(some, by_t, "o-", label="network")
axes.loglog(range(1, T + 1), scaled, color="grey", linestyle=":", label="$c_t x_t$")
axes.set(xlabel="$t$", ylabel="loss")
axes.legend()
print(" ".join(f"{t}: {value:.3f}" for t, value in zip(some, by_t, strict=True)))

# %% [markdown]
# At $t = 3$ the noise is a hundredth of the picture, and nobody could see it well. At $t = 980$ there
# is little else, and it can almost be copied from the input. In between the network has to know what
# sprites look like. After so few steps it knows a little: in the middle it beats scaling, at both
# ends it does not.
#
# ## What it sees
#
# Put its answer $\varepsilon_\theta$ in place of $\varepsilon$ in the first formula: that is the
# network's guess $\hat x_0$ of the picture. Rows: $x_t$, and $\hat x_0$. Columns: $t = 10$ to $950$.


# %%
def guesses(eps_theta, number, shown=(10, 100, 200, 300, 400, 500, 600, 700, 800, 900, 950)):
    """Two rows of pictures: x_t, and the guess of x_0, of one real picture."""
    t = torch.tensor(shown)
    x0 = to_signal(validation.read(torch.tensor([number]))).expand(len(t), -1, -1, -1)
    x_t = noisy(x0, t, Noise(seed=2, ids=torch.tensor([number])).normal("eps", x0.shape[1:]))
    with torch.no_grad():
        x0_hat = picture_of(x_t, t, eps_theta(x_t, (t - 1).float()))
    return torch.cat((x_t, x0_hat))


rows = torch.cat([guesses(network, number) for number in (0, 11)])
grid(to_pixels(rows), columns=len(rows) // 4, width=960)

# %% [markdown]
# With little noise the guess is sharp. With more it becomes a blur, and in the end it is rubbish: there
# $\sqrt{\bar\alpha_t}$ is tiny, and a small error of $\varepsilon$ is a large one of $x_0$ (Exercise 1).
#
# The blur stays in the best of networks. A squared error makes it so: the best answer to it is the mean
# of all pictures that fit, $\hat x_0 = E[x_0 \mid x_t]$. Where nothing of the picture is left, all fit,
# and the best answer is the mean of the whole data set, below. So one such guess is not a drawing; the
# next notebook makes many.

# %%
mean = to_signal(sprites.read(torch.arange(2000))).mean(0, keepdim=True)
grid(to_pixels(mean), columns=1, width=120)

# %% [markdown]
# ## A common slip: the gradients are not set to zero
#
# `loss.backward()` *adds* to what stands in each `.grad`. Without `optimizer.zero_grad()` step 100
# follows the sum of a hundred gradients, 99 of which are about weights that are gone. No error, no
# warning. Below, the run of above, and the same again (same start, pictures, noise) without that
# line:

# %%
torch.manual_seed(0)
runs = {True: (losses, lengths), False: trained(UNet(shape, 3, **size), BY_HAND, zero=False)}

figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
for zero, name in ((True, "set to zero"), (False, "not set to zero")):
    for one, values in zip(axes, runs[zero], strict=True):
        one.semilogy(smooth(values), label=name)
axes[0].set(xlabel="step", ylabel="loss")
axes[1].set(xlabel="step", ylabel="length of the gradient")
axes[1].legend()
right, wrong = (runs[zero][0][-25:].mean().item() for zero in (True, False))
print(f"mean loss of the last 25 steps: {right:.3f}, and {wrong:.3f} if not set to zero")
assert wrong > right or TINY

# %% [markdown]
# The loss falls as long as all gradients point the same way. Then it climbs, beyond the 1 of a network
# that says nothing. The gradient that the optimizer sees grows and grows; Adam divides by its size, so
# nothing overflows, and nothing warns.
#
# ## The framework's way: the parts
#
# The same step, from the framework's parts. A `Denoiser` is a network and what its output means
# (here: $\varepsilon$); an objective is a loss. The two losses are the same number.

# %%
denoiser, objective = Denoiser(network, EpsilonPrediction()), SimpleLoss()
ids = torch.arange(16)
noise, x0 = Noise(seed=0, ids=ids), to_signal(sprites.read(ids))
u = noise.uniform("t")  # the quantile of t
with torch.no_grad():
    loss = objective(denoiser, schedule, x0, u, None, noise)

    x0, t, eps = drawn_for(0)
    by_hand = (eps - network(noisy(x0, t, eps), (t - 1).float())).square().flatten(1).mean(1)
assert torch.allclose(loss, by_hand, rtol=1e-4)

# %% [markdown]
# ## The framework's way: the command
#
# One command trains, and leaves a run directory. It does what the loop above does, and what a good
# run needs besides: the learning rate rises for 100 steps and then falls to 0; gradients that are too
# long are cut; and an average of the weights over the last hundred steps or so is kept (EMA), which
# draws better than any one of them. Killed, it goes on where it was with `resume=true`.
# The recipe is called `experiment=sprites`. It takes a wider network than ours, and a trick: of the
# times $t$, those with half-hidden pictures (ln SNR near 0) come more often than others. The
# cell below looks first whether the folder has a finished run.


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
print(run.name)

# %%
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
logged = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
model = unnoise.load(run)


def eps_theta(x_t, t):
    """The averaged weights of the run."""
    return model.model.denoiser.network(x_t, t)


by_t_run = torch.tensor([loss_at(eps_theta, t) for t in some])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.semilogy(*zip(*logged, strict=True))
left.set(xlabel="step", ylabel="loss in training")
right.loglog(some, by_t, "o-", label="by hand")
right.loglog(some, by_t_run, "o-", label="the command")
right.loglog(range(1, T + 1), scaled, color="grey", linestyle=":", label="$c_t x_t$")
right.set(xlabel="$t$", ylabel="loss", ylim=(1e-3, 2))
right.legend()
print(" ".join(f"{t}: {value:.3f}" for t, value in zip(some, by_t_run, strict=True)))

# %% [markdown]
# On the right: a wider network, more steps, and the average of its weights. It is better at each $t$,
# most of all in the middle. Its guesses for the same two pictures, sharp to $t = 500$ and more:

# %%
rows = torch.cat([guesses(eps_theta, number) for number in (0, 11)])
grid(to_pixels(rows), columns=len(rows) // 4, width=960)

# %% [markdown]
# And it can draw: `model.sample` starts from noise and asks the network again and again. How that
# works, and why, is for the next notebook.

# %%
model.sample(10, steps=2 if TINY else 20).grid(columns=10)

# %% [markdown]
# ## Exercise 1
#
# The network may say what the picture is, $\hat x_0$, in place of the noise. Both are the same
# answer in other words. If the squared error of $\varepsilon$ is $L$, what is the squared error of
# $x_0$? At which $t$ does it explode?
#
# ### Solution
#
# $x_0 - \hat x_0 = -\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}\;(\varepsilon - \hat\varepsilon)$, so the error
# is $L\,(1-\bar\alpha_t)/\bar\alpha_t = L / \mathrm{SNR}(t)$. It explodes towards $T$, where SNR is
# nearly 0. The plain loss on $\varepsilon$ is a weighted loss on $x_0$, with little weight
# where there is much noise.

# %%
x0, t, eps = drawn_for(3)
x_t = noisy(x0, t, eps)
with torch.no_grad():
    eps_hat = eps_theta(x_t, (t - 1).float())
error_eps = (eps - eps_hat).square().flatten(1).mean(1)
error_x0 = (x0 - picture_of(x_t, t, eps_hat)).square().flatten(1).mean(1)
a = alpha_bar[t - 1]
assert torch.allclose(error_x0, error_eps * (1 - a) / a, rtol=1e-2)
for t in (100, 500, 900, 1000):
    print(f"t = {t}: the factor is {(1 - alpha_bar[t - 1]) / alpha_bar[t - 1]:.3g}")

# %% [markdown]
# ## Exercise 2
#
# Find the $c_t$ for which $\hat\varepsilon = c_t x_t$ has the least mean squared error, and that error.
# Let $s^2 = E\,x_0^2$ (mean over pixels). Check it with noise.
#
# ### Solution
#
# $E(\varepsilon - c\,x_t)^2 = 1 - 2c\sqrt{1-\bar\alpha_t} + c^2 v$ with
# $v = E\,x_t^2 = \bar\alpha_t s^2 + 1 - \bar\alpha_t$. It is least for $c_t = \sqrt{1-\bar\alpha_t}/v$,
# and there it is $1 - (1-\bar\alpha_t)/v = \bar\alpha_t s^2/v$: the dotted curve. The network must be
# below it, or it has learned nothing about pictures.

# %%
ids = torch.arange(500)
x0 = to_signal(validation.read(ids))
eps = Noise(seed=4, ids=ids).normal("eps", x0.shape[1:])
s2 = x0.square().mean()
for t in (10, 100, 500):
    a = alpha_bar[t - 1]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    v = a * s2 + 1 - a
    c = (1 - a).sqrt() / v
    measured = (eps - c * x_t).square().mean()
    assert abs(measured / (a * s2 / v) - 1) < 0.02
    assert measured < (eps - 1.1 * c * x_t).square().mean()
    assert measured < (eps - 0.9 * c * x_t).square().mean()
assert bool((by_t_run < scaled[torch.tensor(some) - 1])[3:-1].all()) or TINY

# %% [markdown]
# ## Exercise 3
#
# Not setting gradients to zero has one good use. A batch of 16 does not fit into memory, but 8 pictures
# do. How do you get the gradient of the 16?
#
# ### Solution
#
# Two times `backward()`, each on *half* the mean loss of 8 pictures, and then one step. The command
# does it for `accumulate=2`.


# %%
def gradient(network):
    """All gradients, in one row."""
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def mean_loss(x0, t, eps):
    """L_simple of a batch."""
    return (eps - network(noisy(x0, t, eps), (t - 1).float())).square().mean()


batch = drawn_for(5)
network.zero_grad()
mean_loss(*batch).backward()
whole = gradient(network)

network.zero_grad()
for half in (slice(0, 8), slice(8, 16)):
    (mean_loss(*(part[half] for part in batch)) / 2).backward()
assert torch.allclose(gradient(network), whole, atol=1e-4 * whole.abs().max())

# %% [markdown]
# **What to remember.** Training is four lines: a picture, a time, a noise, and the squared error of the
# guess of that noise. The guess is a mean, so it is blurred where much is hidden. Gradients are set to
# zero before each step. Next: [drawing](03_drawing.ipynb).

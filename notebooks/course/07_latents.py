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
# # 7 · Latents
#
# A photograph has a million numbers, and most of them are no news: neighbours agree. A *latent
# diffusion model* first squeezes the picture into fewer numbers $z$, by an autoencoder, and diffuses
# there ([Rombach et al. 2022](https://arxiv.org/abs/2112.10752)). Stable Diffusion is one.
#
# Here we build the ideas from the simplest autoencoder up, look at three kinds of bottleneck in a few
# lines each, measure a scale that is easy to forget, and then draw sprites in a latent. Four to five
# minutes of one processor core; the times that the commands print below are of a busy one.

# %%
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unnoise
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.kl import Posterior
from unnoise.networks.autoencoders.quantizers import FSQ, Codebook
from unnoise.networks.unet import UNet
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 450))  # of training in the latent
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
    seldom = ["callbacks.samples.every=100000", "callbacks.samples.count=16", "logger=none"]
    seldom += ["callbacks.checkpoints.every=100000", "validation_images=128"]
    fast = ["optimizer=muon", "optimizer.lr=2e-3", "warmup_steps=20", "lr_decay=cosine"]
    named = [f"name={name}", "resume=true"]
    print(unnoise_command("train", *arguments, *named, *fast, *seldom))
    return max(Path("outputs", name).iterdir())


# %% [markdown]
# ## The simplest autoencoder
#
# An encoder $E$ makes $k$ numbers of a picture $x$, a decoder $D$ makes a picture of them, and both
# learn to make $\lVert x - D(E(x)) \rVert^2$ small. If both are linear, the best answer has been known for
# long: the $k$ principal components. Training must come to the same error, and can never go below it
# (Baldi & Hornik 1989).

# %%
sprites = Sprites(size=300 if TINY else 2000, validation_size=500)
x = to_signal(sprites.images("train").images).flatten(1)
x = x - x.mean(0)
k = 8
U, S, V = torch.linalg.svd(x, full_matrices=False)
best = S[k:].square().sum() / x.numel()  # what the components beyond the first k held

E = (Noise(0, torch.arange(k)).normal("E", (768,)) / 28).requires_grad_()
D = (Noise(1, torch.arange(768)).normal("D", (k,)) / 28).requires_grad_()
adam = torch.optim.Adam([E, D], lr=0.01)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 400)
for _ in range(400):
    loss = (x - x @ E.T @ D.T).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    decay.step()
print(f"linear autoencoder {loss:.5f}, principal components {best:.5f}, k = {k} of 768 numbers")
assert best <= loss < 1.02 * best

# %% [markdown]
# The error falls with $k$, but slowly. Below: originals, then 8, 64 and 256 components.

# %%
test = sprites.images("validation").images[:10]
mean = to_signal(sprites.images("train").images).flatten(1).mean(0)
y = to_signal(test).flatten(1) - mean
rows = [test]
for components in (8, 64, 256):
    P = V[:components]
    rows.append(to_pixels((y @ P.T @ P + mean).unflatten(1, (3, 16, 16))))
grid(torch.cat(rows), columns=10)

# %%
figure, axes = plt.subplots(figsize=(6, 3))
left_over = S.square().flip(0).cumsum(0).flip(0) / x.numel()
axes.semilogy(left_over, label="principal components")
axes.axvline(256, color="grey", ls=":", label="numbers in the latent below")
axes.set(xlabel="numbers kept, k", ylabel="mean square error", ylim=(1e-5, 1))
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## Three bottlenecks
#
# **A normal distribution (KL).** The encoder gives a mean $\mu$ and a variance $\sigma^2$ for each
# number of the latent; $z = \mu + \sigma\varepsilon$ is drawn from them. Being far from $\mathcal N(0, 1)$
# costs the divergence ([Kingma & Welling 2014](https://arxiv.org/abs/1312.6114), appendix B)
#
# $$\mathrm{KL} = \sum \tfrac12 \left(\mu^2 + \sigma^2 - 1 - \ln \sigma^2\right).$$
#
# So the latent cannot hide in huge values without noise. Three ways to the same number: the formula, the
# library, and the definition $\mathbb E_q[\ln q(z) - \ln p(z)]$ as a mean of draws.

# %%
mu, sigma = torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.3])
by_hand = 0.5 * (mu**2 + sigma**2 - 1 - sigma.log() * 2).sum()
posterior = Posterior(mu.view(1, 2, 1, 1), 2 * sigma.log().view(1, 2, 1, 1))
z = mu + sigma * Noise(0, torch.arange(200_000)).normal("z", (2,))
q = torch.distributions.Normal(mu, sigma)
p = torch.distributions.Normal(0.0, 1.0)
each = (q.log_prob(z) - p.log_prob(z)).sum(1)
error = each.std() / math.sqrt(len(each))
print(f"formula {by_hand:.4f}, mean of draws {each.mean():.4f} ± {error:.4f} nats")
assert torch.allclose(posterior.kl[0], by_hand, atol=1e-6)
assert abs(each.mean() - by_hand) < 4 * error

# %% [markdown]
# **Codes (VQ).** Each place of the latent becomes the nearest of $K$ vectors $e_k$ of a codebook
# ([van den Oord, Vinyals & Kavukcuoglu 2017](https://arxiv.org/abs/1711.00937)). "The nearest" has no gradient. The trick is to pretend that it
# has: forwards $z_q = e_k$, backwards the gradient goes *straight through* to $z$. In code that is
# `z + (z_q - z).detach()`. A second term, $\beta \lVert z - \mathrm{sg}[e_k] \rVert^2$, keeps $z$ near its
# vector. The vectors themselves follow the mean of the latents that chose them.

# %%
book = Codebook(size=4, width=2, commitment=0.25)
book.vectors.copy_(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]))
z = Noise(2, torch.arange(6)).normal("z", (2, 1, 1)).requires_grad_()
rows = z.flatten(1)
nearest = torch.cdist(rows, book.vectors).argmin(1)
z_q = rows + (book.vectors[nearest] - rows).detach()
commitment = 0.25 * (rows - book.vectors[nearest]).square().sum(1)
latent = book(z)
assert torch.equal(latent.codes.flatten(), nearest)
assert torch.allclose(latent.z.flatten(1), z_q, atol=1e-6)
assert torch.allclose(latent.penalty, commitment, atol=1e-6)
(gradient,) = torch.autograd.grad((3 * latent.z).sum(), z)
assert torch.equal(gradient, torch.full_like(z, 3.0))  # as if nothing had been rounded

# %% [markdown]
# **Rounding (FSQ).** Simpler still: squash each number by tanh, and round it to one of $L$ levels
# ([Mentzer et al. 2023](https://arxiv.org/abs/2309.15505)). No codebook, no second loss, and hardly a code that is never used. With 5 levels and
# 3 numbers there are $5^3 = 125$ codes.

# %%
levels = 5
z = torch.linspace(-3, 3, 601).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
half = (levels - 1) / 2
by_hand = (z.tanh() * half * (1 - 1e-3)).round() / half
rounded = FSQ([levels] * 3)(z)
assert torch.allclose(rounded.z, by_hand, atol=1e-6)
assert FSQ([levels] * 3).size == 125
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(z[:, 0, 0, 0], z[:, 0, 0, 0].tanh(), color="grey", label="tanh z")
axes.plot(z[:, 0, 0, 0], rounded.z[:, 0, 0, 0], label="5 levels")
axes.set(xlabel="z", ylabel="in the latent")
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## An autoencoder of sprites
#
# `experiment=sprites_kl` makes $4 \times 8 \times 8 = 256$ numbers of the $3 \times 16 \times 16 = 768$ of a
# sprite, with convolutions and the KL bottleneck. Its KL is weighed by $10^{-6}$ only: the first stage
# is to lose as little as possible, and the diffusion model does the rest.

# %%
first_steps = 2 if TINY else 280
small = ["network.channels=8", "data.size=200"] if TINY else ["data.size=4000"]
kl_run = train(
    "course_kl",
    "experiment=sprites_kl",
    "batch_size=16",
    f"max_steps={first_steps}",
    "validate_every=140",
    *small,
)
autoencoder = unnoise.load(kl_run)
seen = autoencoder.sample(12)
seen.grid(columns=4)

# %% [markdown]
# Each cell: a sprite that training never saw, its reconstruction, and four times their difference. The
# usual number is the peak signal-to-noise ratio, $10 \log_{10}(255^2/\mathrm{MSE})$, in decibels; here beside
# the principal components with as many numbers.

# %%
n = 12 if TINY else 200
seen = autoencoder.sample(n)
original = seen.prompts.float()


def psnr(pixels, original):
    """Mean over pictures, in dB, and its standard error."""
    mse = (pixels.float() - original).square().flatten(1).mean(1)
    each = 10 * (255**2 / mse).log10()
    return float(each.mean()), float(each.std() / math.sqrt(len(each)))


y = to_signal(seen.prompts).flatten(1) - mean
linear = to_pixels((y @ V[:256].T @ V[:256] + mean).unflatten(1, (3, 16, 16)))
for what, pixels in (("sprites_kl", seen.pixels), ("256 principal components", linear)):
    print("{}: PSNR {:.2f} ± {:.2f} dB".format(what, *psnr(pixels, original)))

# %% [markdown]
# The linear map wins by far. Sprites are small and simple, and its best answer comes from a formula, where
# the network has had 280 steps, on another error at that: the mean of $|x - \hat x|$ and a distance between
# features. But a principal component sees the whole picture, so that its 256 numbers are no picture. The
# latent of the network is an $8 \times 8$ picture of four channels, and a U-Net can work on it. And for a
# photograph of a million numbers 256 components of whole pictures are far too few, and their matrix has
# $10^{12}$ numbers.

# %%
codec_model = autoencoder.model
with torch.no_grad():
    found = codec_model.autoencoder.posterior(to_signal(seen.prompts[:8]))
z = found.mean
low, high = z.amin((0, 2, 3), keepdim=True), z.amax((0, 2, 3), keepdim=True)
channels = ((z - low) / (high - low) * 255).to(torch.uint8)
grey = channels.repeat_interleave(2, 2).repeat_interleave(2, 3).transpose(0, 1)
picture_rows = torch.cat([seen.prompts[:8], grey.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)])
grid(picture_rows, columns=8)

# %% [markdown]
# Above the sprites, below the four channels of their latents: small pictures.
#
# ## Diffusion in the latent
#
# Nothing changes but what $x_0$ is: the latent $z$. One thing must be right, though. All schedules are
# made for data of variance 1. Here $z$ has whatever variance the autoencoder likes. So the library
# measures mean and deviation of each channel over the whole training set, before step 0, and diffuses
# $(z - \text{mean})/\text{deviation}$. The deviation is that of the drawn $z$:
#
# $$\operatorname{Var} z = \operatorname{Var} \mu + \mathbb E\, \sigma^2.$$

# %%
small = ["network.channels=8", "network.head_size=null", "sampler.steps=2"] if TINY else []
small += [f"data.size={200 if TINY else 4000}"]  # the pictures of both stages
ldm_run = train(
    "course_ldm",
    "experiment=sprites_ldm",
    f"autoencoder={kl_run}",
    f"max_steps={STEPS}",
    "validate_every=225",
    *small,
)
model = unnoise.load(ldm_run)

# %%
codec = model.model.codec
images = model.images("train")
some = images.read(torch.arange(0, len(images), 1 if TINY else 4))
mu, logvar = codec.moments(some).chunk(2, dim=1)
by_hand = (mu.var((0, 2, 3)) + logvar.exp().mean((0, 2, 3))).sqrt()
print("deviation of each channel, of some sprites:", [f"{value:.3f}" for value in by_hand])
print(
    "that the run measured, over all of them:   ",
    [f"{1 / v:.3f}" for v in codec.scale.flatten()],
)
assert torch.allclose(by_hand, 1 / codec.scale.flatten(), rtol=0.1)

# %%
pictures = model.sample(32, steps=2 if TINY else 25, seed=1)
pictures.grid(columns=8)

# %% [markdown]
# Bodies, fruits and flames, after 450 steps; faces would take longer.
#
# What has the latent saved? The network sees a quarter of the places. Processor time of one call on 16 pictures,
# and on 16 latents, of the same U-Net:

# %%
places = {"pixels, 3×16×16": (3, 16, 16), "latents, 4×8×8": (4, 8, 8)}
for what, shape in places.items():
    network = UNet(
        shape, shape[0], channels=32, multipliers=(1, 2, 2), blocks=1, attention_resolutions=(8,)
    )
    batch, t = torch.zeros(16, *shape), torch.zeros(16)
    with torch.no_grad():
        network(batch, t)  # the first call also allocates
        start = time.process_time()
        for _ in range(5):
            network(batch, t)
    print(f"{what}: {(time.process_time() - start) / 5 * 1000:.0f} ms")

# %% [markdown]
# At this size that is all there is to gain, and what the autoencoder loses has to be paid. At
# 256 × 256 pixels and a factor of 8 it is what makes the model possible; [latents](../guide/latents.md)
# counts the work.
#
# ## Exercises
#
# **1.** For which $\mu$ and $\sigma$ is KL smallest? How many nats does $\mu = 1$, $\sigma = 1$ cost a number of
# the latent? Find both on paper, and check by gradients.
#
# **2.** Somebody forgets the scale: their latents have a deviation of 5. At a level with $\alpha$ and
# $\sigma$, by how much does $\ln\mathrm{SNR}$ differ from what the schedule says? Where on
# `schedules.cosine()` is the true SNR 1?
#
# **3.** FSQ with the levels [8, 5, 5, 5] has how many codes? Which values can the first number take?
# (It has an even number of levels.)

# %% [markdown]
# ### Solution
#
# **1.** $\partial/\partial\mu = \mu$ and $\partial/\partial\sigma = \sigma - 1/\sigma$ vanish at $\mu = 0$, $\sigma = 1$, where KL is 0. At
# $\mu = \sigma = 1$ it is $\tfrac12(1 + 1 - 1 - 0) = 0.5$ nats.

# %%
point = torch.tensor([0.0, 1.0], requires_grad=True)


def kl(mu, sigma):
    """Of N(mu, sigma²) to N(0, 1), in nats."""
    return Posterior(mu.view(1, 1, 1, 1), 2 * sigma.log().view(1, 1, 1, 1)).kl[0]


(slope,) = torch.autograd.grad(kl(*point), point)
assert torch.allclose(slope, torch.zeros(2), atol=1e-6)
assert abs(float(kl(torch.tensor(1.0), torch.tensor(1.0))) - 0.5) < 1e-6

# %% [markdown]
# **2.** The signal has the variance $25\,\alpha^2$, so $\ln\mathrm{SNR}$ is $2 \ln 5 \approx 3.22$ higher at every level:
# less noise than was meant. The true SNR is 1 where the schedule says $-3.22$, near its end. The model spends
# most of its training on levels that hide little.

# %%
level = schedules.cosine(T=1000).level(torch.arange(1000))
true = (25 * level.alpha**2 / level.sigma**2).log()
assert torch.allclose(true - level.log_snr, torch.full_like(true, 2 * math.log(5)), atol=1e-6)
meant, is_so = (int(each.abs().argmin()) for each in (level.log_snr, true))
print(f"SNR 1 was meant at t = {meant}, and is at t = {is_so} of 1000")
assert meant < 520
assert is_so > 850

# %% [markdown]
# **3.** $8 \cdot 5 \cdot 5 \cdot 5 = 1000$ codes. Eight levels are $-4 \dots 3$ over 4: one more below 0 than above.

# %%
quantizer = FSQ([8, 5, 5, 5])
z = torch.linspace(-8, 8, 4001).view(-1, 1, 1, 1).expand(-1, 4, 1, 1)
values = quantizer(z).z[:, 0].unique()
assert quantizer.size == 1000
assert torch.allclose(values, torch.arange(-4, 4) / 4)

# %% [markdown]
# Where to go from here: `unnoise-evaluate measure=autoencoder run=… diffusion=…` says what a latent
# loses and what it is like, `experiment=scenes_sd` is Stable Diffusion in small, and the next notebook puts
# diffusion beside three other families.

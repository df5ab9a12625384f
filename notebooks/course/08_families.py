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
# # 8 · Four families: GAN, VAE, flow, diffusion
#
# Diffusion is one of four ways to learn a distribution from pictures. Here each of the other three is
# written down in a few lines and checked by an answer that is known. Then all four learn the same sprites
# for about the same processor time, and one evaluator measures them. At the end: diffusion in *one* step.
#
# About ten minutes of one processor core, five of them training.

# %%
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.models.gan import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    relativistic,
)
from unnoise.networks.flows import RealNVP

TINY = "NOTEBOOK_STEPS" in os.environ  # the test suite only wants to see that all cells run
MINUTES = 0.001 if TINY else 1  # of training, for each family


def unnoise_command(name, *arguments):
    """Run ``unnoise-NAME ARGUMENTS`` as in a terminal, and return what it prints."""
    code = f"from unnoise.cli.{name} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


# %% [markdown]
# ## GAN: two networks at play
#
# A *generator* $G$ makes pictures of noise $z$. A *discriminator* $D$ gives a score to real and to
# generated ones, and learns to tell them apart; $G$ learns to fool it (Goodfellow et al. 2014). The loss used
# here compares a real picture with a generated one (Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2):
#
# $$L_D = \mathbb E\,\operatorname{softplus}\big(-(D(x) - D(G(z)))\big), \qquad
# \operatorname{softplus}(a) = \ln(1 + e^a).$$
#
# If $D$ cannot tell them apart the scores are equal, and the loss is $\ln 2$. To keep the play calm, steep
# discriminators pay a penalty on real pictures, $R_1 = \tfrac\gamma2\,\lVert\nabla_x D(x)\rVert^2$ (Mescheder, Geiger &
# Nowozin 2018); $R_2$ is the same on generated pictures. For a linear $D(x) = w \cdot x$ it is $\tfrac\gamma2 \lVert w \rVert^2$ everywhere.

# %%
real, fake = torch.tensor([1.3, 0.2]), torch.tensor([1.3, -0.5])
by_hand = (1 + (-(real - fake)).exp()).log()
assert torch.allclose(relativistic(real, fake), by_hand)
assert abs(float(by_hand[0]) - math.log(2)) < 1e-6
w, gamma = torch.tensor([3.0, 4.0]), 0.1
x = torch.randn(5, 2, requires_grad=True)
penalty = gradient_penalty(x @ w, x, gamma)
assert torch.allclose(penalty, torch.full((5,), gamma / 2 * 25))

# %% [markdown]
# ### Mode collapse
#
# Nothing in the play asks $G$ for *all* of the data. With the plain loss it may make one kind of picture
# well, until $D$ has learned it, and then run to the next: *mode collapse*. We see it best in two
# dimensions: eight small heaps on a ring. To provoke it, the generator on the left
# learns ten times as fast as $D$.

# %%
turns = torch.arange(8) * math.pi / 4
heaps = 2 * torch.stack((turns.cos(), turns.sin()), dim=1)


def layers(inputs, outputs, width=64):
    """Two hidden layers."""
    hidden = [nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width)]
    return nn.Sequential(*hidden, nn.LeakyReLU(0.2), nn.Linear(width, outputs))


def play(pairing, gamma, rates, betas, steps=10 if TINY else 600):
    """Train both, and return 1000 points of the generator."""
    torch.manual_seed(0)
    G, D = layers(2, 2), layers(2, 1)
    of_G, of_D = (
        torch.optim.Adam(net.parameters(), rate, betas)
        for net, rate in zip((G, D), rates, strict=True)
    )
    for _ in range(steps):
        x = heaps[torch.randint(8, (128,))] + 0.05 * torch.randn(128, 2)
        x, y = x.requires_grad_(), G(torch.randn(128, 2))
        made = y.detach().requires_grad_()
        of_real, of_fake = D(x)[:, 0], D(made)[:, 0]
        loss = discriminator_loss(pairing, of_real, of_fake)
        if gamma:
            loss = loss + gradient_penalty(of_real, x, gamma)
            loss = loss + gradient_penalty(of_fake, made, gamma)
        of_D.zero_grad()
        loss.mean().backward()
        of_D.step()
        with torch.no_grad():
            of_real = D(x)[:, 0]
        of_G.zero_grad()
        generator_loss(pairing, D(y)[:, 0], of_real).mean().backward()
        of_G.step()
    with torch.no_grad():
        return G(torch.randn(1000, 2))


plain = play("plain", gamma=0.0, rates=(2e-3, 2e-4), betas=(0.5, 0.999))
calm = play("relativistic", gamma=0.2, rates=(2e-3, 2e-3), betas=(0.0, 0.99))
figure, both = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True)
for axes, points, name in zip(
    both, (plain, calm), ("plain loss", "relativistic, R1 + R2"), strict=True
):
    far, nearest = torch.cdist(points, heaps).min(1)
    hit = int((torch.bincount(nearest[far < 0.3], minlength=8) >= 20).sum())
    axes.scatter(*points.T, s=3)
    axes.scatter(*heaps.T, s=60, marker="x", color="tab:red")
    axes.set(title=f"{name}: {hit} of 8 heaps", xlabel="x", ylabel="y", xlim=(-4, 4), ylim=(-4, 4))
figure.tight_layout()

# %% [markdown]
# A heap (a red cross) counts if at least 20 of 1000 points lie within 0.3 of it. Right: the same generator
# with the calmer loss, and rates that are equal. Loss, penalty and rates were all changed at once, so this shows
# what can happen, not why; exercise 1 changes only the rates.
#
# ## VAE: a bound on the likelihood
#
# A *variational autoencoder* says that a picture comes of a latent: $p(x) = \int p(x \mid z)\,p(z)\,dz$. The
# integral cannot be computed. But any distribution $q(z \mid x)$ of an encoder gives a bound (the ELBO,
# Kingma & Welling 2014, eq. 3):
#
# $$-\ln p(x) \;\le\; \underbrace{\mathbb E_q[-\ln p(x \mid z)]}_{\text{reconstruction}} +
# \underbrace{\mathrm{KL}(q(z \mid x) \,\|\, p(z))}_{\text{what } z \text{ costs}},$$
#
# and the gap is $\mathrm{KL}(q(z \mid x)\,\|\,p(z \mid x))$. Where all is normal we can see that: $z \sim \mathcal N(0, 1)$,
# $x = 2z + \varepsilon$ with $\varepsilon \sim \mathcal N(0, 0.5^2)$. Then $p(x) = \mathcal N(0, 4.25)$, and $p(z \mid x)$ has the
# mean $2x/4.25$ and the variance $0.25/4.25$.

# %%
a, s, x = 2.0, 0.5, torch.tensor(1.7)
exact = -torch.distributions.Normal(0.0, math.sqrt(a**2 + s**2)).log_prob(x)


def bound(mean, variance):
    """Reconstruction + KL for q = N(mean, variance), in nats; both in closed form."""
    square = (x - a * mean) ** 2 + a**2 * variance
    reconstruction = square / (2 * s**2) + math.log(s * math.sqrt(2 * math.pi))
    return reconstruction + 0.5 * (mean**2 + variance - 1 - torch.log(torch.tensor(variance)))


best = bound(a * x / 4.25, 0.25 / 4.25)
worse = bound(a * x / 4.25 + 0.2, 0.1)
print(
    f"-ln p(x) = {exact:.4f}; the bound of the best q: {best:.4f}, of another one: {worse:.4f} nats"
)
assert torch.allclose(best, exact, atol=1e-5)
assert worse > exact

# %% [markdown]
# ## Flow: a change of variables
#
# A *normalizing flow* is an invertible network $z = f(x)$. Its density is exact (Dinh, Sohl-Dickstein &
# Bengio 2017, §3.1):
#
# $$\ln p(x) = \ln \mathcal N(f(x); 0, I) + \ln \left|\det \frac{\partial f}{\partial x}\right|.$$
#
# A determinant of 768 × 768 numbers at each step would be too slow. So a *coupling layer* leaves half of the
# numbers as they are, and moves the others by $z_2 = (x_2 - \mu(x_1))\,e^{-\alpha(x_1)}$. Its Jacobian is a triangle,
# and $\ln|\det|$ is just $-\sum \alpha$. Against autograd's whole Jacobian:

# %%
torch.manual_seed(0)
flow = RealNVP((2, 4, 4), width=8, couplings=2).double()
for weight in flow.parameters():
    weight.data = 0.2 * torch.randn_like(weight)
x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
z, log_det = flow.encode(x)
jacobian = torch.autograd.functional.jacobian(
    lambda y: flow.encode(y.view(1, 2, 4, 4))[0].flatten(), x.flatten()
)
whole = torch.linalg.slogdet(jacobian)[1]
print(f"ln |det|: coupling layers {float(log_det[0]):.8f}, 32 × 32 Jacobian {float(whole):.8f}")
assert torch.allclose(log_det[0], whole, atol=1e-8)
assert torch.allclose(flow(z), x, atol=1e-8)  # and back

# %% [markdown]
# ## Five trainings, one evaluator
#
# Now all learn the same sprites for the same processor time, a minute each, and one evaluator measures them. That is
# one command. It times a step of each family, trains what is not trained yet for as many steps as fit, draws, and
# measures. (Left out with `~` are runs of the guide's longer comparison.)

# %%
left_out = ["flow_matching", "consistency", "plain_GAN"]
options = [f"minutes=[{MINUTES}]", "n=300", "likelihood=16", "precision=fp32"]
if TINY:
    left_out += ["diffusion", "GAN", "TarFlow", "RealNVP"]
    options += [
        "n=20",
        "reference_count=30",
        "data=sprites",
        "data.size=60",
        "data.validation_size=40",
        "likelihood=2",
    ]
printed = unnoise_command(
    "evaluate", "grid=families", *options, *(f"~runs.{each}" for each in left_out)
)
print(printed[printed.index("pictures against") - 4 :])

# %% [markdown]
# The columns: how many calls of a network a picture takes, and how many seconds; how long the training took; the
# size of the network. `fd`, the Fréchet distance between the features of drawn and of real pictures (less is
# better; Heusel et al. 2017). *Precision*: the share of pictures that lie among the real ones; *recall*: the share
# of real ones that lie among the drawn (Kynkäänniemi et al. 2019). `recognised`: drawn so well that the nearest sprite
# of the game is less than 50 of 255 levels away; `modes`: the share of the combinations of kind, colour and
# item that were drawn at least once. `bits`: exact for a flow, a bound for a VAE, by the ODE for diffusion.
# The errors are of the drawing. The last two rows are controls: real pictures, and noise.

# %%
(sheet,) = Path("outputs", "evaluation").glob("comparison*_pictures.png")
figure, axes = plt.subplots(figsize=(10, 4.5))
axes.imshow(plt.imread(sheet))
axes.axis("off")
figure.tight_layout()

# %% [markdown]
# What a minute shows is what each family learns *first*. Diffusion has outlines and colours. The VAE has blurred
# shapes, as the mean of many pictures is its safest answer. The flows must explain every pixel, and leave noise of single
# pixels. The GAN has found one pattern that deceives its discriminator for a while: its pictures lie among real ones in
# features (precision), but cover none of them (recall 0). (So early a GAN has good and bad moments: the run in the guide
# has a precision of 0.02.) None draws a sprite that would be recognised.
#
# And *bits per dimension* are no measure of pictures: the VAE has the fewest and blurs, diffusion has the most and
# looks best. (A bound or a density is about all pixels of real pictures, also about noise that nobody sees.)

# %%
(plot,) = [
    p for p in Path("outputs", "evaluation").glob("comparison*.png") if "pictures" not in p.stem
]
figure, axes = plt.subplots(figsize=(7, 4))
axes.imshow(plt.imread(plot))
axes.axis("off")
figure.tight_layout()

# %% [markdown]
# Distance against the time that a picture takes. Who is in a hurry takes a VAE or a flow; diffusion pays for its
# place with twenty calls of the network.
#
# What a minute cannot show is which family is best: one seed each, networks of different sizes, and
# none at its end. After five minutes the order is another one; the guide on [families](../guide/families.md) has the
# table.
#
# ## Diffusion in one step
#
# Can diffusion draw in one call, too? A *consistency function* $f(x, \sigma)$ leads from any noisy $x$ directly to
# the end of its path along the probability-flow ODE (Song et al. 2023). For data $x_0 \sim \mathcal N(0, s^2)$ and
# $x = x_0 + \sigma\varepsilon$ it is known: along the ODE $x/\sqrt{s^2 + \sigma^2}$ stays the same, so that
#
# $$f(x, \sigma) = \frac{x\,s}{\sqrt{s^2 + \sigma^2}}.$$
#
# One denoising step gives something else: $\mathbb E[x_0 \mid x] = x\,s^2/(s^2 + \sigma^2)$, the mean of all answers. From
# much noise that is nearly 0: a blur.

# %%
s, sigma = 0.5, 10.0
oracle = GaussianOracle(mu=0.0, s=s)


def level(sigma):
    """x = x0 + sigma·ε."""
    one, value = torch.ones((), dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    return NoiseLevel(t=value, alpha=one, sigma=value)


noise = Noise(0, torch.arange(20_000)).normal("x_T", (1,)).double()
x = math.sqrt(s**2 + sigma**2) * noise
mean = oracle(x, level(sigma)).x0
in_one_step = x * s / math.sqrt(s**2 + sigma**2)
walked, sigmas = x, [*torch.linspace(math.log(sigma), math.log(1e-3), 500).exp().tolist(), 0.0]
for now, to in pairwise(sigmas):  # Euler's steps, dx/dσ = ε
    walked = walked + (to - now) * oracle(walked, level(now)).eps
assert torch.allclose(in_one_step, walked, atol=0.02)
assert torch.allclose(in_one_step, oracle.along_the_ode(x, level(sigma), level(0.0)), atol=1e-9)
assert abs(float(in_one_step.std()) - s) < 0.01
figure, axes = plt.subplots(figsize=(6, 3))
bins = torch.linspace(-2, 2, 80).tolist()
for values, name in (
    (walked, "ODE, 500 steps"),
    (in_one_step, "consistency, one step"),
    (mean, "denoised once"),
):
    axes.hist(values.flatten().tolist(), bins, density=True, histtype="step", label=name)
axes.set(xlabel="x", ylabel="density", ylim=(0, 2))
axes.legend()
figure.tight_layout()

# %% [markdown]
# The first two lie on each other. `experiment=sprites_ect from=RUN` learns such an $f$ from a trained diffusion
# model; see [one step](../guide/one_step.md).
#
# ## Exercises
#
# **1.** Is it the loss or the rates that made the mode collapse? Call `play` with the plain loss and equal rates
# of 2e-3.
#
# **2.** By how much does the bound of `bound(mean, variance)` exceed $-\ln p(x)$? Write down the gap as a KL
# divergence of two normal distributions, and check it for the worse $q$ above.
#
# **3.** Show that $f(x, \sigma)$ is *consistent*: a step along the ODE from $\sigma$ to any $\sigma'$, followed by $f$ from there,
# gives the same. And what is $f(x, 0)$?

# %% [markdown]
# ### Solution
#
# **1.** The rates, here: the plain loss reaches the heaps when both learn as fast. (Runs of a GAN differ by their seeds,
# so one more run is a hint, not a proof.)

# %%
equal = play("plain", gamma=0.0, rates=(2e-3, 2e-3), betas=(0.5, 0.999))
far, nearest = torch.cdist(equal, heaps).min(1)
hit = int((torch.bincount(nearest[far < 0.3], minlength=8) >= 20).sum())
figure, axes = plt.subplots(figsize=(4, 4))
axes.scatter(*equal.T, s=3)
axes.scatter(*heaps.T, s=60, marker="x", color="tab:red")
title = f"plain loss, equal rates: {hit} of 8"
axes.set(title=title, xlabel="x", ylabel="y", xlim=(-4, 4), ylim=(-4, 4))
figure.tight_layout()

# %% [markdown]
# **2.** $\mathrm{KL}(\mathcal N(m, v)\,\|\,\mathcal N(M, V)) = \tfrac12\big((m - M)^2/V + v/V - 1 - \ln(v/V)\big)$ with $M = 2x/4.25$ and
# $V = 0.25/4.25$.

# %%
x = torch.tensor(1.7)
V, m_off, v = 0.25 / 4.25, 0.2, 0.1
gap = 0.5 * (m_off**2 / V + v / V - 1 - math.log(v / V))
assert abs(float(worse - exact) - gap) < 1e-5

# %% [markdown]
# **3.** Along the ODE $x/\sqrt{s^2 + \sigma^2}$ stays the same, so $x' = x\sqrt{(s^2 + \sigma'^2)/(s^2 + \sigma^2)}$ and the root cancels. And
# $f(x, 0) = x$: a clean picture stays as it is.

# %%
s = 0.5


def f(x, sigma):
    """The consistency function of N(0, s²)."""
    return x * s / math.sqrt(s**2 + sigma**2)


x = torch.linspace(-20, 20, 9, dtype=torch.float64)
for to in (3.0, 0.4, 0.0):
    moved = oracle.along_the_ode(x, level(10.0), level(to))
    assert torch.allclose(f(moved, to), f(x, 10.0), atol=1e-9)
assert torch.equal(f(x, 0.0), x)

# %% [markdown]
# Where to go from here: the [next notebook](09_sweeps.ipynb) is about many runs at once, and what their differences mean.

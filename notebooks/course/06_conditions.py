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
# # 6 · Conditions, guidance, text
#
# So far a model drew whatever it liked. Here we say what it is to draw: by a class, by a caption, or
# by a part of a picture that has to stay. And we turn up how closely it listens: *guidance*.
#
# You need: notebooks 1 to 5, or to know what $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ and a
# network $\varepsilon_\theta(x_t, t)$ are. The notebook trains two small models and a classifier,
# eleven to twelve minutes of one (busy) processor core.

# %%
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import unnoise
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion.editing import Inpaint
from unnoise.diffusion.guidance import Guidance, classifier_guided
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.noise import Noise
from unnoise.evaluation.adherence import Agreement
from unnoise.models.classifier import NoisyClassifier
from unnoise.networks.blocks import attention
from unnoise.networks.conditioning import ClassConditioner
from unnoise.report.sheets import grid

STEPS = int(os.environ.get("NOTEBOOK_STEPS", 700))  # of training
TINY = STEPS < 100  # the test suite only wants to see that all cells run
DRAWING = 2 if TINY else 15  # steps of the sampler


def unnoise_command(name, *arguments):
    """Run ``unnoise-NAME ARGUMENTS`` as in a terminal, and return what it prints."""
    code = f"from unnoise.cli.{name} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def train(*arguments):
    """Train; if it was trained before, only say so. Returns the run's directory."""
    small = ["network.channels=8", "network.head_size=null", "sampler.steps=2"] if TINY else []
    seldom = ["callbacks.samples.every=100000", "callbacks.samples.count=16", "logger=none"]
    seldom += ["callbacks.checkpoints.every=100000", "validate_every=350", "validation_images=128"]
    found = unnoise_command(
        "train", *arguments, f"max_steps={STEPS}", *seldom, "resume=true", *small
    )
    print(found)
    name = next(each for each in arguments if each.startswith("name=")).removeprefix("name=")
    return max(Path("outputs", name).iterdir())


# %% [markdown]
# ## A class as a condition
#
# The sprites have five classes. The network gets one more input: a learned vector for the class $c$,
# which is added to the vector of the time. Nothing else changes, so it predicts
# $\varepsilon_\theta(x_t, t, c)$.
#
# One more vector stands for "no class", the *null condition* $\varnothing$. In training some of the
# classes are replaced by it at random (Ho & Salimans 2022, Algorithm 1; there the share is called
# $p_\text{uncond}$). So one network learns two models: $\varepsilon_\theta(x_t, t, c)$ and
# $\varepsilon_\theta(x_t, t, \varnothing)$.

# %%
sprites = Sprites().images("validation")
classes = Sprites().class_names()
grid(sprites.read(torch.arange(10)), 10, captions=[classes[k] for k in sprites.labels[:10]])

# %% [markdown]
# Written out, the condition is a row of a table. Row 5 is the null condition.

# %%
conditioner = ClassConditioner(classes=5, width=4)
ids = torch.arange(10_000)
labels, p_uncond = ids % 5, 0.2
keep = Noise(seed=0, ids=ids).uniform("drop") >= p_uncond
by_hand = conditioner.table.weight[torch.where(keep, labels, 5)]
assert torch.equal(conditioner({"label": labels}, keep).vector, by_hand)
print(f"null conditions: {1 - keep.float().mean():.3f} of all, p_uncond is {p_uncond}")

# %%
class_run = train(
    "experiment=sprites", "conditioning=class", f"condition_dropout={p_uncond}", "name=course_class"
)
model = unnoise.load(class_run)
model.sample(20, steps=DRAWING).grid(columns=10)

# %% [markdown]
# ## Guidance
#
# A model that was trained for minutes listens, but not always closely. Guidance makes it listen more.
# It takes both predictions for the same $x_t$, and goes on in the direction from the one without the
# condition to the one with it:
#
# $$\tilde\varepsilon = \varepsilon_u + s\,(\varepsilon_c - \varepsilon_u), \qquad
# \varepsilon_c = \varepsilon_\theta(x_t, t, c),\quad
# \varepsilon_u = \varepsilon_\theta(x_t, t, \varnothing).$$
#
# With $s = 1$ it is off, with $s = 0$ the condition is ignored. Two conventions are in use. This
# library, like Stable Diffusion, names $s$. Ho & Salimans (2022, eq. 6) write
# $(1 + w)\,\varepsilon_c - w\,\varepsilon_u$. It is the same with $s = 1 + w$.

# %%
diffusion, schedule = model.model, model.model.schedule
ids = torch.arange(5)
x0 = to_signal(sprites.read(ids))
level = schedule.level(torch.tensor(400))
x_t = diffuse(x0, Noise(seed=0, ids=ids).normal("eps", x0.shape[1:]), level)
batch, all_of_them = {"label": sprites.labels[ids]}, torch.ones(5, dtype=torch.bool)

with torch.no_grad():
    condition, null = (diffusion.condition(batch, keep) for keep in (all_of_them, ~all_of_them))
    eps_c = diffusion.denoiser(x_t, level, condition).eps
    eps_u = diffusion.denoiser(x_t, level, null).eps
    s = 3.0
    by_hand = eps_u + s * (eps_c - eps_u)
    w = s - 1
    assert torch.allclose(by_hand, (1 + w) * eps_c - w * eps_u, atol=1e-4)
    guided = diffusion.guided(batch, 5, Guidance(scale=s))
    assert torch.allclose(by_hand, guided(x_t, level).eps, atol=1e-4)

# %% [markdown]
# Why that direction? The score of $p(x_t \mid c)$ is $-\varepsilon_c/\sigma_t$. So the guided
# prediction is the score of $p(x_t \mid c)^s\,p(x_t)^{1-s}$, which by Bayes' rule is
# $p(x_t)\,p(c \mid x_t)^s$ up to a constant. The picture has to look like $c$ not once but $s$ times.
#
# That has a price. The pictures become more typical, and less varied. Below are the same noises with
# $s = 1$, $2$ and $4$, three pictures a class.

# %%
SCALES, EACH = (1, 2, 4), 1 if TINY else 15  # pictures of a class
drawn = {s: model.sample(5 * EACH, guidance=s, steps=DRAWING, seed=1).pixels for s in SCALES}
order = [5 * k + c for c in range(5) for k in range(min(3, EACH))]
grid(torch.cat([pixels[order] for pixels in drawn.values()]), columns=len(order), width=900)

# %% [markdown]
# Rows: $s = 1, 2, 4$. Columns: three heroes, three non-heroes, three foods, three spells, three that
# face sideways.
#
# To put a number on it we need somebody who says what a picture shows: a classifier, trained on real
# sprites. `unnoise-classifier` trains one, on clean and on noisy pictures (we use that below).

# %%
steps, size = (2, 8) if TINY else (300, 64)
print(unnoise_command("classifier", "data=sprites", f"steps={steps}", f"batch_size={size}"))
classifier_file = max(Path("outputs/classifiers").glob("sprites_label_*/classifier.pt"))
classifier = NoisyClassifier.load(classifier_file)

# %% [markdown]
# *Adherence* is the share of pictures that show the class they were drawn for. For *diversity* we
# take the mean distance between two pictures of the same class, as a share of that of real ones.


# %%
def distance(pixels, labels):
    """Root mean square distance of pairs of a class, of values 0 … 1; and its standard error."""
    x = pixels.flatten(1).float() / 255
    each = []
    for c in range(5):
        within = x[labels == c]
        if len(within) > 1:
            each.append(torch.pdist(within).mean() / math.sqrt(x.shape[1]))
    each = torch.stack(each) if each else torch.zeros(2)
    return each.mean(), each


asked = torch.arange(5 * EACH) % 5
real, real_each = distance(sprites.images[:500], sprites.labels[:500])
rows = []
for s, pixels in drawn.items():
    right = int((classifier.predict(pixels) == asked).sum())
    agreement = Agreement(right, len(pixels))
    mean, each = distance(pixels, asked)
    ratio = each / real_each[: len(each)]
    error = ratio.std() / math.sqrt(len(ratio))
    rows.append((s, agreement.share, *agreement.interval, float(mean / real), float(error)))
    low, high = agreement.interval
    print(
        f"s = {s}: {right} of {len(pixels)} show their class (95 % interval {low:.0%} … {high:.0%}),"
        f" diversity {mean / real:.2f} ± {error:.2f} of that of real ones"
    )

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
scales, share, low, high, variety, error = map(list, zip(*rows, strict=True))
spans = [
    [a - b for a, b in zip(share, low, strict=True)],
    [b - a for a, b in zip(share, high, strict=True)],
]
left.errorbar(scales, share, spans, marker="o", capsize=3)
left.set(xlabel="guidance s", ylabel="adherence", ylim=(0, 1.05))
right.errorbar(scales, variety, error, marker="o", capsize=3, color="tab:orange")
right.set(xlabel="guidance s", ylabel="diversity (real: 1)", ylim=(0, 1.2))
figure.tight_layout()

# %% [markdown]
# Look at the intervals before you conclude: 75 pictures are few. In this run adherence rises from 55 % to
# 85 %, and the intervals of $s = 1$ and $s = 4$ lie apart; those of 2 and 4 do not. Diversity falls a little
# at each step, so nothing is for free. After a longer training there is less to gain. With more pictures
# the same is one command, `unnoise-evaluate measure=adherence run=… guidance=[1,2,4] n=500`.
#
# ## By a classifier
#
# The older way needs no condition in the model at all (Dhariwal & Nichol 2021, Algorithm 2). A
# classifier of *noisy* pictures says how probable the class is, and its gradient moves the prediction:
#
# $$\tilde\varepsilon = \varepsilon_u - s\,\sigma_t\,\nabla_{x_t} \ln p(c \mid x_t).$$
#
# We take the null condition as the model without a condition.

# %%
c = batch["label"]
x = x_t.clone().requires_grad_()
slope = torch.autograd.grad(classifier.log_probability(x, level, c).sum(), x)[0]
sigma = float(level.sigma)
by_hand = eps_u - 2.0 * sigma * slope
with torch.no_grad():
    towards = classifier_guided(
        diffusion.under(null), partial(classifier.log_probability, labels=c), Guidance(scale=2.0)
    )
    assert torch.allclose(by_hand, towards(x_t, level).eps, atol=1e-4)

# %%
ids = torch.arange(10)
c = ids // 2
without = diffusion.condition({"label": c}, torch.zeros(10, dtype=torch.bool))
sampler = diffusion.changed(model.sampler, DRAWING, None)
rows = []
for s in (0.0, 4.0):
    guide = partial(classifier.log_probability, labels=c)
    denoise = classifier_guided(diffusion.under(without), guide, Guidance(scale=s))
    with torch.no_grad():
        rows.append(sampler(denoise, schedule, diffusion.codec.shape, Noise(2, ids)))
grid(to_pixels(torch.cat(rows)), columns=10)

# %% [markdown]
# Above, without: whatever the noise becomes. Below, pushed by the classifier: two heroes, two
# non-heroes, two foods, two spells, two that face sideways; or what this classifier takes for them.
#
# ## Text
#
# A caption is a row of *tokens*. A frozen text encoder turns each into a vector; here MiniLM, which
# comes with the package, so that no network is needed. In the U-Net each pixel asks all tokens at
# once, by *cross-attention* (Rombach et al. 2022, §3.3): a query $q$ of the pixel is compared with a
# key $k_i$ of each token, and the values $v_i$ come in with these weights:
#
# $$\text{attention}(q) = \sum_i \frac{e^{q \cdot k_i/\sqrt d}}{\sum_j e^{q \cdot k_j/\sqrt d}}\, v_i.$$

# %%
heads, pixels, tokens, d = 2, 16, 5, 8
q, k, v = (
    Noise(seed, torch.arange(heads)).normal("qkv", (n, d))[None]
    for seed, n in ((0, pixels), (1, tokens), (2, tokens))
)
mask = torch.tensor([[True, True, True, False, False]])  # a caption of three tokens, and padding
scores = q @ k.transpose(-2, -1) / math.sqrt(d)
scores[..., ~mask[0]] = -math.inf
weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
assert torch.allclose(weights @ v, attention(q, k, v, mask), atol=1e-6)
assert torch.allclose(weights.sum(-1), torch.ones(1, heads, pixels))

# %%
size = 64 if TINY else 3000  # captions that the encoder reads; each takes it about 15 ms
text_run = train("experiment=sprites", "conditioning=text", f"data.size={size}", "name=course_text")
speaker = unnoise.load(text_run)
encoder = speaker.model.conditioner.encoder
for text in ("a red knight", "a red knight with a gold sword"):
    print(
        f"{text!r}: {tuple(encoder.encode([text])[0].shape)} tokens × width, start and end included"
    )

# %%
captions = [
    "a red knight with a gold sword",
    "a blue knight with a gold sword",
    "a green wizard with an iron staff",
    "a purple slime",
    "a red apple",
    "a blue fireball",
]
n = 6
rows = [
    speaker.sample(n, captions=captions, guidance=s, steps=DRAWING, seed=3).pixels for s in (1, 4)
]
grid(torch.cat(rows), columns=n, captions=captions * 2, width=900)

# %% [markdown]
# Above $s = 1$, below $s = 4$. After so short a training the model knows colours and outlines, and
# misses details; the whole recipe is `unnoise-train experiment=sprites_text`.
#
# ## Inpainting
#
# A condition may also be a part of the picture. That takes no training. At each step the known part
# of $x_s$ is replaced by the known picture at that noise level (Lugmayr et al. 2022, eq. 8):
#
# $$x_s \leftarrow m \odot x_s + (1 - m) \odot (\alpha_s x_0 + \sigma_s \varepsilon),$$
#
# $m$ being 1 where the picture is painted anew. Each step is taken several times, with noise added in
# between, so that both parts get to know each other.

# %%
number = next(i for i, text in enumerate(sprites.captions) if "knight" in text)
picture, caption = sprites.read(torch.tensor([number])), sprites.captions[number]
mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
mask[..., :8, :] = True  # the upper half
edit = Inpaint(to_signal(picture), mask, resample=1 if TINY else 4)
painted = speaker.sample(5, captions=[caption], edit=edit, guidance=2, steps=DRAWING).pixels
outside = ~mask.expand(5, 3, -1, -1)
assert torch.equal(painted[outside], picture.expand(5, -1, -1, -1)[outside])
hidden = picture.masked_fill(mask, 128)
grid(
    torch.cat((picture, hidden, painted)), 7, captions=[caption, "what is given", *["painted"] * 5]
)

# %% [markdown]
# ## Exercises
#
# **1.** Let $p(x \mid c) = \mathcal N(1, 0.5)$ and $p(x) = \mathcal N(0, 1)$ (mean, variance). Which
# normal distribution is $p(x \mid c)^s\,p(x)^{1-s}$ for $s = 3$? Is it narrower than
# $p(x \mid c)$?
#
# **2.** A paper says "we use guidance $w = 0.5$", in the convention of Ho & Salimans. Which `guidance`
# do you give to `unnoise-sample`? Check it with `eps_c` and `eps_u`.
#
# **3.** A *negative caption* takes the place of $\varnothing$. Write the guided prediction for the
# caption "a red knight" away from "a blue knight" with $s = 3$, by two calls of
# `speaker.model.denoiser`.

# %% [markdown]
# ### Solution
#
# **1.** Exponents of normal densities add up: the precision (one over the variance) is
# $\Lambda = s/0.5 + (1-s)/1 = 4$, and the mean $(s \cdot 1/0.5)/\Lambda = 1.5$. So the variance is
# 0.25, half of that of $p(x \mid c)$, and the mean has gone *beyond* that of the class. Check: the
# slope of the logarithm must be that of $\mathcal N(1.5, 0.25)$ everywhere.

# %%
s, v_c = 3.0, 0.5
precision = s / v_c + (1 - s) / 1.0
mean = s * 1.0 / v_c / precision
x = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
log_density = s * -((x - 1) ** 2) / (2 * v_c) + (1 - s) * -(x**2) / 2
(slope,) = torch.autograd.grad(log_density.sum(), x)
assert torch.allclose(slope, -(x - mean) * precision, atol=1e-9)
assert (mean, 1 / precision) == (1.5, 0.25)

# %% [markdown]
# **2.** $s = 1 + w = 1.5$: `unnoise-sample run=… guidance=1.5`.

# %%
with torch.no_grad():
    found = diffusion.guided(batch, 5, Guidance(scale=1.5))(x_t, level).eps
assert torch.allclose(found, 1.5 * eps_c - 0.5 * eps_u, atol=1e-4)

# %% [markdown]
# **3.** As before, with another $\varepsilon_u$.

# %%
yes = torch.ones(5, dtype=torch.bool)
red, blue = ["a red knight"] * 5, ["a blue knight"] * 5
with torch.no_grad():
    eps_red, eps_blue = (
        speaker.model.denoiser(x_t, level, speaker.model.condition({"caption": each}, yes)).eps
        for each in (red, blue)
    )
    by_hand = eps_blue + 3 * (eps_red - eps_blue)
    both = {"caption": red, "negative": blue}
    found = speaker.model.guided(both, 5, Guidance(scale=3.0))(x_t, level).eps
assert torch.allclose(by_hand, found, atol=1e-4)
assert not torch.allclose(eps_red, eps_blue, atol=1e-6) or TINY

# %% [markdown]
# Where to go from here: `unnoise-figure figure=guidance run=…` draws scales against classes, and
# [conditions](../guide/conditions.md) has sketches, styles, low resolutions and other edits. The next
# notebook is about *where* to diffuse: in a latent.

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
# # 2 · Aprender a quitar el ruido
#
# El [cuaderno 1](01_noise.es.ipynb) sumó ruido. Aquí una red aprende a verlo. Toda su tarea es una sola
# pregunta: *he aquí una imagen ruidosa; ¿qué ruido hay en ella?* El bucle que la entrena se escribe a mano
# y luego se deja al framework.
#
# Los símbolos son los de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), que abajo se llama
# DDPM. Los artículos cuentan $t = 1 \dots T$ y Python desde 0; así, `alpha_bar[t - 1]` es
# $\bar\alpha_t$, y la red recibe $t - 1$. El calendario es el coseno del cuaderno 1.
#
# Tarda unos nueve minutos de un núcleo del procesador; ocho de ellos entrenan la receta, si en la carpeta
# no hay una ejecución terminada de ella.

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
# ## La pregunta
#
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. Quien conoce $\varepsilon$ conoce
# la imagen: despeje $x_0$ (DDPM, ec. 15),
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}}.$$
#
# Abajo, los mismos cinco sprites como $x_0$, $\varepsilon$ (en forma de imagen) y $x_t$ para $t = 300$. La
# red ve la última fila y $t$, y debe responder con la segunda.


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
# ## La codificación del tiempo
#
# La respuesta depende de $t$: en $t = 10$ el ruido es un grano tenue, en $t = 900$ es todo lo que hay. Por
# eso se le dice $t$ a la red. Un solo número que llega hasta 1000 es una mala entrada para ella. Recibe
# muchas ondas de él, lentas y rápidas, como las agujas de un reloj:
#
# $$\big[\sin(t f_1), \dots, \sin(t f_{16}),\ \cos(t f_1), \dots, \cos(t f_{16})\big],
# \qquad f_i = 10000^{-(i-1)/15}.$$
#
# Las ondas rápidas distinguen 500 de 501, y las lentas distinguen 100 de 900.

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
# A la derecha: los vecinos en el tiempo tienen codificaciones parecidas; así, lo que se aprende en
# $t = 500$ ayuda en $t = 510$.
#
# ## La red
#
# Pregunta y respuesta tienen la misma forma, de modo que la red va de imagen a imagen. Una **U-Net** mira
# partes pequeñas a tamaño completo, partes grandes a la mitad y a un cuarto del tamaño, y junta ambas
# cosas: lo que se calculó al bajar se entrega a la subida. Está hecha de bloques residuales, y a cada uno
# se le dice el tiempo:
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
# Cada barra es lo que produce una parte de la red, de izquierda a derecha: tan alta como sus imágenes (16,
# 8 o 4 píxeles), con su número de canales encima. En 8 × 8 y en el medio hay también atención, con la que
# cada lugar mira a todos los demás.
#
# La última línea del código: al principio la respuesta es exactamente 0, porque la última convolución
# empieza en 0. Así, la primera pérdida se conoce antes de calcularla. Es $E\,\varepsilon^2 = 1$.
#
# ## El bucle de entrenamiento
#
# Algoritmo 1 de DDPM:
#
# > **repetir**
# > &nbsp; $x_0 \sim q(x_0)$
# > &nbsp; $t \sim \mathrm{Uniform}(\{1, \dots, T\})$
# > &nbsp; $\varepsilon \sim \mathcal N(0, I)$
# > &nbsp; dar un paso de gradiente en
# > $\nabla_\theta \lVert \varepsilon - \varepsilon_\theta(\sqrt{\bar\alpha_t}\,x_0 +
# > \sqrt{1-\bar\alpha_t}\,\varepsilon,\ t)\rVert^2$
# >
# > **hasta** converger
#
# Línea por línea en Python, con 16 imágenes a la vez. El cuadrado es una media sobre todos los píxeles e
# imágenes, no una suma: eso solo cambia la escala del paso.


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
# La curva cae rápido y después casi solo oscila, pues cada paso tiene otros $t$, y la pérdida depende mucho
# más de $t$ que del paso. Pregunte entonces por cada $t$ por separado, con imágenes que no se usaron para
# entrenar. Hay con qué comparar. La mejor respuesta que solo multiplica su entrada,
# $\hat\varepsilon = c_t x_t$, tiene (Ejercicio 2) la pérdida
#
# $$\frac{\bar\alpha_t s^2}{\bar\alpha_t s^2 + 1 - \bar\alpha_t},$$
#
# donde $s^2$ es la media de los cuadrados de los valores de los datos.


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
# En $t = 3$ el ruido es una centésima de la imagen, y nadie lo vería bien. En $t = 980$ casi no hay otra
# cosa, y casi se puede copiar de la entrada. Entre ambos la red tiene que saber cómo son los sprites.
# Después de tan pocos pasos sabe un poco: en el medio supera a la multiplicación, en los dos extremos no.
#
# ## Lo que ve
#
# Ponga su respuesta $\varepsilon_\theta$ en lugar de $\varepsilon$ en la primera fórmula: esa es la
# conjetura $\hat x_0$ de la red sobre la imagen. Filas: $x_t$ y $\hat x_0$. Columnas: $t = 10$ a $950$.


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
# Con poco ruido la conjetura es nítida. Con más se vuelve borrosa, y al final no sirve: allí
# $\sqrt{\bar\alpha_t}$ es diminuto, y un error pequeño de $\varepsilon$ es uno grande de $x_0$ (Ejercicio
# 1).
#
# Lo borroso queda aun en la mejor de las redes. Lo causa el error cuadrático: su mejor respuesta es la
# media de todas las imágenes que encajan, $\hat x_0 = E[x_0 \mid x_t]$. Donde no queda nada de la imagen,
# todas encajan, y la mejor respuesta es la media de todo el conjunto de datos, abajo. Por eso una sola de
# estas conjeturas no es un dibujo; el próximo cuaderno hace muchas.

# %%
mean = to_signal(sprites.read(torch.arange(2000))).mean(0, keepdim=True)
grid(to_pixels(mean), columns=1, width=120)

# %% [markdown]
# ## Un error común: no se ponen a cero los gradientes
#
# `loss.backward()` *suma* a lo que hay en cada `.grad`. Sin `optimizer.zero_grad()`, el paso 100 sigue la
# suma de cien gradientes, de los cuales 99 son de pesos que ya no existen. Ningún error, ningún aviso.
# Abajo, el entrenamiento de antes, y otra vez el mismo (mismo comienzo, imágenes, ruido) sin esa línea:

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
# La pérdida cae mientras todos los gradientes apuntan hacia el mismo lado. Luego sube, más allá del 1 de
# una red que no dice nada. El gradiente que ve el optimizador crece y crece; Adam lo divide por su tamaño,
# de modo que nada se desborda y nada avisa.
#
# ## A la manera del framework: las partes
#
# El mismo paso, con las partes del framework. Un `Denoiser` es una red y lo que significa su salida (aquí:
# $\varepsilon$); un objetivo es una pérdida. Las dos pérdidas son el mismo número.

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
# ## A la manera del framework: el comando
#
# Un comando entrena y deja un directorio con la ejecución. Hace lo que hace el bucle de arriba, y lo demás
# que pide un buen entrenamiento: la tasa de aprendizaje sube durante 100 pasos y luego cae a 0; los
# gradientes demasiado largos se recortan; y se guarda una media de los pesos de los últimos cien pasos, más
# o menos (EMA), que dibuja mejor que cualquiera de ellos. Interrumpido, sigue donde estaba con
# `resume=true`. La receta se llama `experiment=sprites`. Usa una red más ancha que la nuestra, y un truco:
# entre los tiempos $t$, los de imágenes medio ocultas (ln SNR cerca de 0) salen más que los otros. La celda
# de abajo mira primero si la carpeta tiene una ejecución terminada.


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
# A la derecha: una red más ancha, más pasos, y la media de sus pesos. Es mejor en cada $t$, sobre todo en
# el medio. Sus conjeturas para las mismas dos imágenes, nítidas hasta $t = 500$ y más:

# %%
rows = torch.cat([guesses(eps_theta, number) for number in (0, 11)])
grid(to_pixels(rows), columns=len(rows) // 4, width=960)

# %% [markdown]
# Y sabe dibujar: `model.sample` parte del ruido y consulta a la red muchas veces. Cómo funciona, y por
# qué, es asunto del próximo cuaderno.

# %%
model.sample(10, steps=2 if TINY else 20).grid(columns=10)

# %% [markdown]
# ## Ejercicio 1
#
# La red puede decir cuál es la imagen, $\hat x_0$, en lugar del ruido. Ambas son la misma respuesta con
# otras palabras. Si el error cuadrático de $\varepsilon$ es $L$, ¿cuál es el error cuadrático de $x_0$?
# ¿En qué $t$ explota?
#
# ### Solución
#
# $x_0 - \hat x_0 = -\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}\;(\varepsilon - \hat\varepsilon)$; así, el error
# es $L\,(1-\bar\alpha_t)/\bar\alpha_t = L / \mathrm{SNR}(t)$. Explota hacia $T$, donde la SNR es casi 0.
# La pérdida simple en $\varepsilon$ es una pérdida ponderada en $x_0$, con poco peso donde hay mucho
# ruido.

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
# ## Ejercicio 2
#
# Halle el $c_t$ para el que $\hat\varepsilon = c_t x_t$ tiene el menor error cuadrático medio, y ese error.
# Sea $s^2 = E\,x_0^2$ (media sobre los píxeles). Compruébelo con ruido.
#
# ### Solución
#
# $E(\varepsilon - c\,x_t)^2 = 1 - 2c\sqrt{1-\bar\alpha_t} + c^2 v$ con
# $v = E\,x_t^2 = \bar\alpha_t s^2 + 1 - \bar\alpha_t$. Es mínimo para $c_t = \sqrt{1-\bar\alpha_t}/v$, y
# allí vale $1 - (1-\bar\alpha_t)/v = \bar\alpha_t s^2/v$: la curva punteada. La red debe estar por debajo
# de ella, o no ha aprendido nada sobre imágenes.

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
# ## Ejercicio 3
#
# No poner a cero los gradientes tiene un buen uso. Un lote de 16 no cabe en la memoria, pero 8 imágenes sí.
# ¿Cómo se obtiene el gradiente de las 16?
#
# ### Solución
#
# Dos veces `backward()`, cada una con la *mitad* de la pérdida media de 8 imágenes, y luego un paso. El
# comando lo hace con `accumulate=2`.


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
# **Para recordar.** Entrenar son cuatro líneas: una imagen, un tiempo, un ruido, y el error cuadrático de
# la conjetura sobre ese ruido. La conjetura es una media; por eso es borrosa donde mucho está oculto. Los
# gradientes se ponen a cero antes de cada paso. A continuación: [dibujar](03_drawing.es.ipynb).

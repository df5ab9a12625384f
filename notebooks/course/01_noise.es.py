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
# # 1 · Ruido: el proceso directo y sus calendarios
#
# Un modelo de difusión aprende a deshacer el ruido. Por eso el ruido va primero: cómo se suma, cuánto
# queda de una imagen después de $t$ pasos, y qué errores estropean un modelo antes de entrenar ninguna
# red. Aquí no se entrena nada; el cuaderno tarda menos de un minuto.
#
# Los símbolos son los de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), que abajo se llama
# DDPM. Los artículos cuentan $t = 1 \dots T$. Python cuenta desde 0; así, `alpha_bar[t - 1]` es
# $\bar\alpha_t$.
#
# A continuación: [aprender a quitar el ruido](02_denoising.es.ipynb).

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
# ## Las imágenes
#
# Sprites hechos por código: 16 × 16 píxeles, tres colores por píxel, en cinco clases. Una imagen es una
# lista de 768 números. El conjunto de datos tiene bytes de 0 … 255; las matemáticas quieren números de
# −1 a 1.

# %%
sprites = Sprites().images("train")
pixels = sprites.read(torch.arange(40))
x0 = to_signal(pixels)
print(x0.shape, x0.min().item(), x0.max().item())
grid(pixels, columns=10)

# %% [markdown]
# ## Un paso pequeño
#
# Cada paso debilita un poco la imagen y suma un poco de ruido gaussiano (DDPM, ec. 2):
#
# $$q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),
# \qquad x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z,\quad z \sim \mathcal N(0, I).$$
#
# $\beta_t$ es la varianza del ruido que se suma en el paso $t$. DDPM usa $T = 1000$ de esos valores,
# sobre una recta de $10^{-4}$ a $0.02$. La lista de todos los $\beta_t$ se llama calendario (*schedule*).
#
# El ruido viene de `Noise(seed, ids)`: cada número es función de la semilla, del número de la imagen y
# de su finalidad. Así, la misma celda sortea siempre el mismo ruido.

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
# De izquierda a derecha, $t = 1, 50, 100, 200, 300, 400, 500, 600, 800, 1000$. En $t = 200$ todavía se
# ven los ojos; en $t = 400$ queda un indicio de los colores.
#
# ## El salto
#
# Mil pasos para cada ejemplo de entrenamiento serían lentos. No hacen falta: una suma de gaussianas es
# gaussiana. Con $\alpha_t = 1 - \beta_t$ y $\bar\alpha_t = \prod_{i \le t} \alpha_i$ (DDPM, ec. 4):
#
# $$q(x_t \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),
# \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon.$$
#
# Por qué: si $x_{t-1}$ tiene varianza $1 - \bar\alpha_{t-1}$ alrededor de su media, un paso la convierte
# en $\alpha_t (1 - \bar\alpha_{t-1}) + (1 - \alpha_t) = 1 - \bar\alpha_t$.
#
# Primero a mano, y luego como lo hace el framework. En él, todo calendario es una lista de niveles
# $x_t = \alpha_t x_0 + \sigma_t \varepsilon$: **su** `level.alpha` es $\sqrt{\bar\alpha_t}$ y su
# `level.sigma` es $\sqrt{1-\bar\alpha_t}$.

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
# Ahora cada fila conserva un solo $\varepsilon$, y por eso el grano queda en su lugar. En cada $t$ la
# distribución es la misma que arriba. ¿Lo es? Camine 4000 veces desde el mismo valor $x_0 = 0.8$, y
# compare la media y la desviación estándar con la forma cerrada. Abajo: caminatas (líneas finas), la
# media cerrada y una desviación estándar a cada lado (líneas gruesas).

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
# ## Un error común: $(1-\beta_t)$ en lugar de $\sqrt{1-\beta_t}$
#
# La media de un paso es $\sqrt{1-\beta_t}\,x_{t-1}$. Algunos tutoriales y diapositivas escriben
# $(1-\beta_t)\,x_{t-1}$. Entonces la varianza ya no tiende a 1. Tiende al $v$ con
# $v = (1-\beta)^2 v + \beta$, que es $v = 1/(2-\beta) \approx 0.5$. Un muestreador que parte de
# $\mathcal N(0, I)$ partiría de donde el modelo nunca fue entrenado.

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
# ## Calendarios
#
# La rapidez con que cae $\bar\alpha_t$ es una elección. Con $\tau = t/T$:
#
# - lineal: $\beta_t$ sobre una recta (DDPM, §4);
# - cuadrático: $\sqrt{\beta_t}$ sobre una recta. La difusión latente lo llama "lineal";
# - coseno: $\bar\alpha_t \propto \cos^2\!\big(\tfrac{\pi}{2}\,\tfrac{\tau + s}{1 + s}\big)$ con
#   $s = 0.008$ ([Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672), ec. 17);
# - sigmoide: $\bar\alpha_t$ cae como una sigmoide
#   ([Jabri, Fleet & Chen 2022](https://arxiv.org/abs/2212.11972), algoritmo 3).
#
# El coseno a mano. Sus $\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}$ se cortan en $0.999$, para que el
# último paso no divida entre 0 en el proceso inverso.

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
# A la derecha está lo que importa, la relación señal-ruido (SNR):
#
# $$\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t}.$$
#
# La red se entrena con la misma frecuencia en cada $t$. Así, una curva plana cerca de ln SNR = 0 gasta
# muchos pasos donde la imagen está medio oculta, y es ahí donde más se puede aprender. El calendario
# lineal pasa de prisa por esa zona; su último tercio es casi ruido puro. El mismo sprite con los cuatro
# calendarios, en el orden de la leyenda:

# %%
level = linear.level(torch.arange(T))
assert torch.allclose(level.log_snr, (alpha_bar / (1 - alpha_bar)).log(), atol=1e-9)

times = torch.linspace(0, T - 1, 12).long()
rows = [diffuse(x0[:1], eps[:1], each.level(t)) for each in every.values() for t in times]
grid(to_pixels(torch.cat(rows)), columns=len(times), width=960)

# %% [markdown]
# ## El final del calendario
#
# El muestreo parte de $\mathcal N(0, I)$. Eso solo es correcto si no queda nada de la imagen en $T$:
# $\bar\alpha_T \approx 0$. La tabla muestra $\bar\alpha_T$, y $\sqrt{\bar\alpha_T}$, la parte de la
# imagen en $x_T$.

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
# La quinta línea es una trampa. Para ahorrar tiempo se baja $T$ a 200 y se dejan $\beta_1$ y $\beta_T$
# como están. Entonces $\bar\alpha_T = 0.1322$: el 36 % de la imagen sigue ahí al final. El modelo aprende
# que $x_T$ muestra una imagen, y luego recibe ruido puro. El remedio es multiplicar $\beta$ por
# $1000/T$. Un solo $x_T$ parece ruido en ambos casos, pero no para quien promedia: abajo, la media de 100
# sorteos de $x_T$ para cada uno de ocho sprites, tres veces más fuerte; primero sin el factor, después
# con él.

# %%
bad, good = (schedules.DiscreteSchedule(betas) for betas in (unscaled, scaled))
z = Noise(seed=2, ids=torch.arange(800)).normal("eps", x0.shape[1:])
repeated, last = x0[20:28].repeat_interleave(100, dim=0), torch.tensor(199)
means = [
    diffuse(repeated, z, each.level(last)).unflatten(0, (8, 100)).mean(1) for each in (bad, good)
]
grid(to_pixels(3 * torch.cat(means)), columns=8, width=800)

# %% [markdown]
# En la primera fila están todos los sprites. Un número también lo dice: la correlación de $x_T$ con
# $x_0$, sobre todos los píxeles de 512 imágenes. El azar solo da cerca de
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
# ## Ejercicio 1
#
# ¿En qué $t$ hay tanto ruido como imagen, SNR = 1, con el calendario lineal, y con el coseno? Escriba una
# función de $\bar\alpha_1 \dots \bar\alpha_T$ que devuelva el primer $t$ con $\mathrm{SNR}(t) \le 1$.
#
# ### Solución
#
# SNR = 1 significa $\bar\alpha_t = \tfrac12$. El coseno lo tiene en el medio, en $\tau \approx 0.5$.

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
# ## Ejercicio 2
#
# Los muestreadores saltan pasos, de $t$ a algún $s < t$ muy por debajo. Para eso necesitan
# $q(x_t \mid x_s)$. Halle su media y su varianza solo a partir de $\bar\alpha_t$ y $\bar\alpha_s$.
#
# ### Solución
#
# El producto de los $\sqrt{\alpha_i}$ de $s+1$ a $t$ es $\sqrt{\bar\alpha_t/\bar\alpha_s}$, y la varianza
# debe completar lo que falta hasta $1 - \bar\alpha_t$:
#
# $$q(x_t \mid x_s) = \mathcal N\Big(\sqrt{\bar\alpha_t/\bar\alpha_s}\;x_s,\
# \big(1 - \bar\alpha_t/\bar\alpha_s\big) I\Big).$$
#
# Con $s = t - 1$ es otra vez el paso único. En el framework se llama `transition`.

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
# ## Ejercicio 3
#
# Los datos tienen valores de −1 a 1, y una varianza $s^2$ menor que 1. ¿Cuál es la varianza de $x_t$ sobre
# todas las imágenes y todo el ruido? ¿Para qué $s$ es la misma para todo $t$?
#
# ### Solución
#
# $\bar\alpha_t s^2 + 1 - \bar\alpha_t$: va de $s^2$ a 1, y es constante para $s = 1$. Por eso se dice que
# el proceso conserva la varianza. Medida, sin la media de todos los píxeles:

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
# **Para recordar.** Un paso es $\sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z$. Un salto es
# $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. Un calendario se juzga por su SNR, y
# $\bar\alpha_T$ debe estar cerca de 0. A continuación: una red que deshace el ruido.

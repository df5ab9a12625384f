# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Dibujar
#
# El [cuaderno 2](02_denoising.es.ipynb) entrenó una red para ver el ruido. Aquí ella dibuja: del puro ruido, paso a
# paso, a una imagen. Primero a mano (el Algoritmo 2 de DDPM), luego con cada vez menos pasos. Dos deslices
# muestran para qué sirve una barra en la fórmula, y en qué es distinto el último paso.
#
# Los símbolos son los de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239) (DDPM). Aquí la lista de todos
# los $\bar\alpha_t$ recibe $\bar\alpha_0 = 1$ (ningún ruido) al principio; así, `alpha_bar[t]` es
# $\bar\alpha_t$.
#
# Tarda poco más de un minuto de un núcleo del procesador, si antes se ejecutó el cuaderno 2 en esta carpeta; si
# no, ocho más para su entrenamiento.

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
# ## Qué se le pregunta a la red
#
# Antes, una cosa. Los píxeles fuera de −1 … 1 no son imagen. Por eso la conjetura que se sigue de la respuesta,
# $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon_\theta)/\sqrt{\bar\alpha_t}$, se recorta a ese intervalo, y
# $\varepsilon_\theta$ se cambia para que concuerde con ella. El código del propio DDPM también lo hace. Importa
# sobre todo en los primeros pasos: allí $\sqrt{\bar\alpha_t}$ es diminuto, de modo que un error pequeño de
# $\varepsilon$ es uno grande de $x_0$ (Ejercicio 1 del cuaderno 2).


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
# ## Un paso hacia atrás
#
# Si se conociera la imagen $x_0$, se conocería $x_{t-1}$ salvo una gaussiana (DDPM, ec. 6). La conjetura de la red
# sobre $\varepsilon$ ocupa el lugar de $x_0$, y resulta la línea 4 del Algoritmo 2:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Big(x_t - \frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\;
# \varepsilon_\theta(x_t, t)\Big) + \sigma_t z, \qquad z \sim \mathcal N(0, I).$$
#
# En el último paso $z = 0$. En palabras: quite un poco del ruido, aumente la escala y sume un poco de ruido
# *nuevo*, de varianza $\sigma_t^2 = \beta_t = 1 - \alpha_t$.
#
# Mil llamadas a la red tardan mucho. Saltamos tiempos, y vamos de $t$ a algún $s < t$. Todo queda como está, con
# $\alpha_t = \bar\alpha_t/\bar\alpha_s$ (Ejercicio 2 del cuaderno 1). Abajo, $S = 100$ pasos. Todos los $S = 990$
# serían el Algoritmo 2 del artículo, menos los diez tiempos más ruidosos, en los que este calendario no tiene más
# que ruido.


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
# El framework tiene cada manera de dibujar como un *stepper*, que conoce un paso de un nivel a otro. `Ancestral` es
# la línea 4. El mismo ruido, la misma imagen:


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
# ## En el camino
#
# Arriba, $x_t$ de la primera imagen; abajo, la conjetura $\hat x_0$ en ese tiempo.

# %%
rows = [[], []]
for x, eps, t in kept[:: max(1, S // 14)]:
    rows[0].append(x[:1])
    rows[1].append(picture_of(x[:1], t, eps[:1]))
grid(to_pixels(torch.cat(rows[0] + rows[1])), columns=len(rows[0]), width=960)

# %% [markdown]
# La primera conjetura es basura. Luego viene una niebla de color, una media de todo lo que la imagen puede llegar a
# ser. En la cuarta columna $x_t$ todavía parece puro ruido, pero contorno y color ya están decididos; lo que sigue
# son detalles.
#
# ## Por qué se suma ruido
#
# Parece raro sumar ruido cuando es el ruido lo que debe irse. Déjelo fuera ($\sigma_t = 0$) y mire. Filas:
# $\sigma_t^2 = \beta_t$; la varianza menor
# $\sigma_t^2 = \tilde\beta_t = \frac{1-\bar\alpha_s}{1-\bar\alpha_t}\beta_t$, que el artículo encuentra igual de
# buena; y ninguna.


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
# Las dos primeras filas se parecen. La última ha perdido la variedad: solo cosas pálidas, una criatura cuatro veces y
# otras tres dos veces. La desviación típica entre imágenes (media sobre los píxeles) cae de 0,62 a 0,51.
#
# ¿Es culpa de la red? Tome datos para los que se conoce la mejor respuesta: números
# $x_0 \sim \mathcal N(0, s^2)$ con $s = 0.25$. Allí $E[\varepsilon \mid x_t] =
# \sqrt{1-\bar\alpha_t}\;x_t / v_t$ con $v_t = \bar\alpha_t s^2 + 1 - \bar\alpha_t$, exactamente.
# ¿Qué anchura tienen los números dibujados?

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
# Sin el ruido todos estos números acaban en su media, aunque la conjetura sea perfecta. La primera parte del paso es una *media* de
# $x_{t-1}$; por eso está menos dispersa de lo que $x_{t-1}$ debe estar; $\sigma_t z$ devuelve lo que falta. Los
# sprites no son una sola gaussiana, sino muchos grupos; por eso las imágenes de la red no se vuelven todas la misma,
# pero se alcanzan menos grupos.
#
# ## Un desliz común: $\sqrt{1-\alpha_t}$ en lugar de $\sqrt{1-\bar\alpha_t}$
#
# Se olvida una barra, y el código corre. Lo que dice la red es todo el ruido de $x_t$, de tamaño
# $\sqrt{1-\bar\alpha_t}$. Dividido por $\sqrt{1-\alpha_t}$, que es mucho menor, en cada paso se quita demasiado.
# Filas: correcto, y sin la barra.


# %%
def without_the_bar(x, eps, alpha, alpha_bar):
    """Wrong."""
    return (x - (1 - alpha) / (1 - alpha).sqrt() * eps) / alpha.sqrt()


wrong = algorithm_2(eps_theta, *noise(n), S, mean=without_the_bar)
for name, pictures in (("right", drawn), ("without", wrong)):
    print(f"{name:10}  standard deviation between pictures {pictures.std(0).mean():.2f}")
grid(to_pixels(torch.cat((drawn, wrong))), columns=n, width=960)

# %% [markdown]
# Quien ve solo la segunda fila no ve ningún error; las imágenes son incluso más limpias. Al lado de la primera se nota
# que son cosas más simples, y casi todas amarillas. De nuevo se ha perdido variedad: 0,58 en lugar de 0,62.
#
# Para los números de $\mathcal N(0, s^2)$ se conoce la respuesta, y el desliz se ve enseguida. Allí $\varepsilon$
# es un múltiplo de $x$, de modo que un paso es $x \leftarrow k_t x + \sigma_t z$, y la varianza sigue
# $V \leftarrow k_t^2 V + \sigma_t^2$: no interviene ningún azar. Ahora con los 990 pasos. A la izquierda: lo que
# multiplica a $\varepsilon_\theta$. En el medio y a la derecha: los números dibujados.


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
# Alrededor de $t = 500$ el factor equivocado es unas 12 veces demasiado grande, y los números acaban tres veces más estrechos:
# 0,087 en lugar de 0,25. Así que pruebe un muestreador con datos para los que se conozca la respuesta. Las imágenes
# ocultan errores así.
#
# ## Un desliz común: ruido en el último paso
#
# El último paso lleva a la propia imagen, y la imagen es su media. Quien también allí suma $\sigma_1 z$ pone grano
# en todo. Con los $T = 1000$ pasos es demasiado poco para verse, y solo estropea lo que se mide. Con menos pasos el
# último es más largo, y también su $\sigma$. Abajo, 12 pasos sin ese ruido y con él.

# %%
coarse = 2 if TINY else 12
grained = [algorithm_2(eps_theta, *noise(n), coarse, last=last) for last in (0, 1)]
for k in (990, S, coarse):
    sigma = (1 - alpha_bar[levels(k)[-1][0]]).sqrt() * 127.5
    print(f"{k:4} steps: the noise of the last one is {sigma:.1f} of 255 grey levels")
grid(to_pixels(torch.cat(grained)), columns=n, width=960)

# %% [markdown]
# ## Menos pasos: DDIM
#
# Cien llamadas siguen siendo muchas. [Song, Meng & Ermon 2021](https://arxiv.org/abs/2010.02502) encontraron otro
# camino de vuelta (ec. 12 con $\sigma = 0$). Tome las dos conjeturas, imagen y ruido, y mézclelas de nuevo, como se
# mezclaría una imagen en el tiempo $s$:
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s}\;\varepsilon_\theta(x_t, t).$$
#
# No se sortea ruido, y sin embargo nada se derrumba: el ruido en $x_s$ es el de $x_t$, así que tiene el tamaño que
# debe tener. El mismo $x_T$ se convierte siempre en la misma imagen.


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
# DDIM en 5, 10, 20 y 50 pasos, una fila cada uno, a partir del mismo ruido. En la mayoría de las columnas más pasos
# solo cambian detalles. En algunas la imagen se convierte en otra, como en la primera.
#
# ## Aún menos: DPM-Solver++
#
# DDIM sigue una curva, la *ODE del flujo de probabilidad* ([cuaderno 5](05_scores.ipynb)), en trozos rectos: toma
# $\hat x_0$ como constante durante un paso. [DPM-Solver++](https://arxiv.org/abs/2211.01095) (Algoritmo 2 de ese
# artículo) ve por el paso anterior cómo se mueve $\hat x_0$, y lo toma medio paso más adelante. El tiempo se cuenta
# en la mitad del ln SNR, $\lambda_t = \tfrac12 \ln \frac{\bar\alpha_t}{1-\bar\alpha_t}$. Con
# $h = \lambda_s - \lambda_t$, y $h'$ y $\hat x_0'$ del paso anterior,
#
# $$D = \hat x_0 + \frac{h}{2h'}\,(\hat x_0 - \hat x_0'), \qquad
# x_s = \sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}}\;x_t + \sqrt{\bar\alpha_s}\,(1 - e^{-h})\,D.$$
#
# En el primer paso y en el último, $D = \hat x_0$.


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
# ¿A qué distancia del verdadero final de la curva llega cada uno? Para números de $\mathcal N(0, s^2)$ se conoce el
# final: $x/\sqrt{v_t}$ queda igual todo el camino, de modo que cada $x_T$ llega a $x_T\sqrt{v_1/v_T}$ en $t = 1$; el
# último paso es $\hat x_0$ para todos. Un `Sampler` es un *stepper* con su número de pasos y su espaciado, aquí
# uniforme en ln SNR. El [método de Heun](https://arxiv.org/abs/2206.00364) pregunta dos veces en cada paso.

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
# Desde 40 llamadas, el doble de llamadas reduce a la mitad el error de DDIM, y a cerca de un cuarto el de los otros dos (punteado: pendientes 1 y
# 2). DPM-Solver++ está más cerca después de 40 llamadas que DDIM después de 160. El método de Heun necesita pasos
# cortos para servir de algo.
#
# ## ¿Qué muestreador?
#
# Exacto no es lo mismo que bueno. La curva de una red entrenada durante minutos tiene errores, y el ruido nuevo los
# lava. Por eso el muestreador de la propia receta es DPM-Solver++ *con* ruido, en 20 pasos. Filas: Algoritmo 2,
# DDIM, DPM-Solver++ y el muestreador de la receta, todos con 10 llamadas; después el de la receta con sus 20.
# `model.sample` empieza la imagen número $k$ siempre desde el mismo ruido; así, las filas se pueden comparar.


# %%
def drawn_by(stepper, steps):
    """Pixels of n pictures; Clip keeps each guess of x_0 within −1 … 1."""
    return model.sample(n, sampler=Sampler(stepper, steps, "log_snr", Clip())).pixels


ten = 2 if TINY else 10
rows = [drawn_by(stepper, ten) for stepper in (Ancestral(), DDIM(), DPMSolver())]
rows += [model.sample(n, steps=steps).pixels for steps in (ten, 2 * ten)]
grid(torch.cat(rows), columns=n, width=960)

# %% [markdown]
# Diez pasos son pocos para el Algoritmo 2: su ruido sigue ahí. DDIM y DPM-Solver++ encuentran las mismas imágenes, cada
# una de un solo color fuerte. El muestreador de la receta tiene más colores y más que contar, y en 20 pasos también
# líneas más limpias.
#
# En la línea de comandos: `unnoise-sample run=… sampler=ddim steps=20 n=64`. Cómo de bueno es cada uno, en números,
# lo dice `unnoise-evaluate run=… grid=samplers`.
#
# ## Ejercicio 1
#
# Muestre que la línea 4 del Algoritmo 2 es la media de $q(x_{t-1} \mid x_t, x_0)$ (DDPM, ec. 7),
#
# $$\tilde\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0 +
# \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,$$
#
# con $\hat x_0$ en lugar de $x_0$.
#
# ### Solución
#
# Ponga $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon)/\sqrt{\bar\alpha_t}$. Delante de $\varepsilon$ queda
# $-\beta_t/(\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t})$. Delante de $x_t$:
# $\frac{1}{1-\bar\alpha_t}\big(\frac{\beta_t}{\sqrt{\alpha_t}} + \sqrt{\alpha_t}(1-\bar\alpha_{t-1})\big)
# = \frac{1}{\sqrt{\alpha_t}} \cdot \frac{1 - \alpha_t + \alpha_t - \bar\alpha_t}{1-\bar\alpha_t}
# = \frac{1}{\sqrt{\alpha_t}}$. En números:

# %%
x, eps = (Noise(seed, torch.arange(4)).normal("exercise", (100,)).double() for seed in (1, 2))
for t in (2, 300, 900):
    alpha, bar, before = alpha_bar[t] / alpha_bar[t - 1], alpha_bar[t], alpha_bar[t - 1]
    x0_hat = picture_of(x, t, eps)
    mu = before.sqrt() * (1 - alpha) / (1 - bar) * x0_hat
    mu = mu + alpha.sqrt() * (1 - before) / (1 - bar) * x
    assert torch.allclose(mu, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Ejercicio 2
#
# Entre DDIM y el Algoritmo 2 hay una familia (Song et al. 2021, ec. 12): con $\sigma^2 =
# \eta^2\,\tilde\beta_t$,
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\varepsilon + \sigma z.$$
#
# Muestre que $\eta = 1$ es el Algoritmo 2 con $\sigma_t^2 = \tilde\beta_t$.
#
# ### Solución
#
# $1-\bar\alpha_s-\tilde\beta_t = (1-\bar\alpha_s)\big(1 - \frac{1-\alpha_t}{1-\bar\alpha_t}\big)
# = \frac{\alpha_t (1-\bar\alpha_s)^2}{1-\bar\alpha_t}$, pues $1 - \bar\alpha_t - 1 + \alpha_t =
# \alpha_t(1-\bar\alpha_s)$. Así, $\varepsilon$ tiene el factor
# $\sqrt{\alpha_t}\,(1-\bar\alpha_s)/\sqrt{1-\bar\alpha_t}$, y con $\hat x_0$ y $\varepsilon$ escritos por medio de
# $x_t$ eso es la media del Ejercicio 1.

# %%
for t, s in ((300, 250), (900, 880)):
    alpha, bar, before = alpha_bar[t] / alpha_bar[s], alpha_bar[t], alpha_bar[s]
    x0_hat = picture_of(x, t, eps)
    sigma2 = beta_tilde(alpha, bar, before)
    direct = before.sqrt() * x0_hat + (1 - before - sigma2).sqrt() * eps
    assert torch.allclose(direct, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Ejercicio 3
#
# Muestre que DPM-Solver++ con $D = \hat x_0$ en cada paso es DDIM.
#
# ### Solución
#
# $e^{-h} = \sqrt{\frac{\bar\alpha_t\,(1-\bar\alpha_s)}{\bar\alpha_s\,(1-\bar\alpha_t)}}$, luego $x_s =
# \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}}\,(x_t -
# \sqrt{\bar\alpha_t}\,\hat x_0)$, y el último paréntesis es $\sqrt{1-\bar\alpha_t}\,\varepsilon$.

# %%
for t, s in ((300, 250), (900, 880)):
    x0_hat = picture_of(x, t, eps)
    h = ((alpha_bar[s] / (1 - alpha_bar[s])).log() - (alpha_bar[t] / (1 - alpha_bar[t])).log()) / 2
    solver = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt() * x
    solver = solver + alpha_bar[s].sqrt() * (1 - (-h).exp()) * x0_hat
    straight = alpha_bar[s].sqrt() * x0_hat + (1 - alpha_bar[s]).sqrt() * eps
    assert torch.allclose(solver, straight, atol=1e-9)

# %% [markdown]
# ## Ejercicio 4
#
# DDIM hace de cada $x_T$ una sola imagen; así, se pueden mezclar imágenes mezclando sus ruidos. ¿Con
# $(1-w)\,x_T + w\,y_T$, o con $\cos(\phi)\,x_T + \sin(\phi)\,y_T$?
#
# ### Solución
#
# Las varianzas se suman: $(1-w)^2 + w^2$ es solo $\tfrac12$ en el medio, un ruido demasiado débil para $t$, que la red
# nunca ha visto. $\cos^2 + \sin^2 = 1$ siempre. Arriba la suma con $w$, más pálida en el medio; abajo con $\phi$:

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
# **Para recordar.** Un paso hacia atrás quita algo del ruido conjeturado y suma ruido nuevo, porque lo que calcula es una
# media. Divide por $\sqrt{1-\bar\alpha_t}$, con la barra. El último paso no suma nada. DDIM sigue una curva y no
# necesita ruido; los métodos que resuelven curvas necesitan menos pasos. A continuación: ¿cómo de bueno es el
# modelo, [en bits](04_likelihood.ipynb)?

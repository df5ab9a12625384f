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
# # 1 · Ruído: o processo direto e seus cronogramas
#
# Um modelo de difusão aprende a desfazer o ruído. Por isso o ruído vem primeiro: como ele é somado,
# quanto resta de uma imagem depois de $t$ passos, e quais erros estragam um modelo antes mesmo de
# treinar qualquer rede. Aqui nada é treinado; o caderno leva menos de um minuto.
#
# Os símbolos são os de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), chamado abaixo de
# DDPM. Os artigos contam $t = 1 \dots T$. O Python conta a partir de 0; assim, `alpha_bar[t - 1]` é
# $\bar\alpha_t$.
#
# A seguir: [aprender a remover o ruído](02_denoising.pt.ipynb).

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
# ## As imagens
#
# Sprites feitos por código: 16 × 16 pixels, três cores por pixel, em cinco classes. Uma imagem é uma
# lista de 768 números. O conjunto de dados tem bytes de 0 … 255; a matemática quer números de −1 a 1.

# %%
sprites = Sprites().images("train")
pixels = sprites.read(torch.arange(40))
x0 = to_signal(pixels)
print(x0.shape, x0.min().item(), x0.max().item())
grid(pixels, columns=10)

# %% [markdown]
# ## Um pequeno passo
#
# Cada passo enfraquece um pouco a imagem e soma um pouco de ruído gaussiano (DDPM, eq. 2):
#
# $$q(x_t \mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),
# \qquad x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z,\quad z \sim \mathcal N(0, I).$$
#
# $\beta_t$ é a variância do ruído somado no passo $t$. O DDPM usa $T = 1000$ desses valores, sobre uma
# reta de $10^{-4}$ a $0.02$. A lista de todos os $\beta_t$ se chama cronograma (*schedule*).
#
# O ruído vem de `Noise(seed, ids)`: cada número é uma função da semente, do número da imagem e da
# finalidade. Assim, a mesma célula sorteia sempre o mesmo ruído.

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
# Da esquerda para a direita, $t = 1, 50, 100, 200, 300, 400, 500, 600, 800, 1000$. Em $t = 200$ ainda
# se veem os olhos; em $t = 400$ resta um indício das cores.
#
# ## O salto
#
# Mil passos para cada exemplo de treino seriam lentos. Não são necessários: uma soma de gaussianas é
# gaussiana. Com $\alpha_t = 1 - \beta_t$ e $\bar\alpha_t = \prod_{i \le t} \alpha_i$ (DDPM, eq. 4):
#
# $$q(x_t \mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),
# \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon.$$
#
# Por quê: se $x_{t-1}$ tem variância $1 - \bar\alpha_{t-1}$ em torno de sua média, um passo faz dela
# $\alpha_t (1 - \bar\alpha_{t-1}) + (1 - \alpha_t) = 1 - \bar\alpha_t$.
#
# Primeiro à mão, depois como o framework faz. Nele, todo cronograma é uma lista de níveis
# $x_t = \alpha_t x_0 + \sigma_t \varepsilon$: **seu** `level.alpha` é $\sqrt{\bar\alpha_t}$ e seu
# `level.sigma` é $\sqrt{1-\bar\alpha_t}$.

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
# Agora cada linha mantém um só $\varepsilon$; por isso o grão fica no lugar. Em cada $t$ a distribuição
# é a mesma de antes. Será? Caminhe 4000 vezes a partir do mesmo valor $x_0 = 0.8$ e compare a média e o
# desvio padrão com a forma fechada. Abaixo: caminhadas (linhas finas), a média fechada e um desvio
# padrão para cada lado (linhas grossas).

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
# ## Um erro comum: $(1-\beta_t)$ no lugar de $\sqrt{1-\beta_t}$
#
# A média de um passo é $\sqrt{1-\beta_t}\,x_{t-1}$. Alguns tutoriais e slides escrevem
# $(1-\beta_t)\,x_{t-1}$. Então a variância deixa de tender a 1. Ela tende ao $v$ com
# $v = (1-\beta)^2 v + \beta$, que é $v = 1/(2-\beta) \approx 0.5$. Um amostrador que parte de
# $\mathcal N(0, I)$ partiria de onde o modelo nunca foi treinado.

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
# ## Cronogramas
#
# A velocidade com que $\bar\alpha_t$ cai é uma escolha. Com $\tau = t/T$:
#
# - linear: $\beta_t$ sobre uma reta (DDPM, §4);
# - quadrático: $\sqrt{\beta_t}$ sobre uma reta. A difusão latente o chama de "linear";
# - cosseno: $\bar\alpha_t \propto \cos^2\!\big(\tfrac{\pi}{2}\,\tfrac{\tau + s}{1 + s}\big)$ com
#   $s = 0.008$ ([Nichol & Dhariwal 2021](https://arxiv.org/abs/2102.09672), eq. 17);
# - sigmoide: $\bar\alpha_t$ cai como uma sigmoide
#   ([Jabri, Fleet & Chen 2022](https://arxiv.org/abs/2212.11972), algoritmo 3).
#
# O cosseno à mão. Seus $\beta_t = 1 - \bar\alpha_t / \bar\alpha_{t-1}$ são cortados em $0.999$, para
# que o último passo não divida por 0 no processo reverso.

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
# À direita está o que importa, a razão sinal-ruído (SNR):
#
# $$\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t}.$$
#
# A rede é treinada com a mesma frequência em cada $t$. Logo, uma curva plana perto de ln SNR = 0 gasta
# muitos passos onde a imagem está meio escondida, e é ali que mais se pode aprender. O cronograma linear
# passa depressa por essa região; seu último terço é quase ruído puro. O mesmo sprite nos quatro
# cronogramas, na ordem da legenda:

# %%
level = linear.level(torch.arange(T))
assert torch.allclose(level.log_snr, (alpha_bar / (1 - alpha_bar)).log(), atol=1e-9)

times = torch.linspace(0, T - 1, 12).long()
rows = [diffuse(x0[:1], eps[:1], each.level(t)) for each in every.values() for t in times]
grid(to_pixels(torch.cat(rows)), columns=len(times), width=960)

# %% [markdown]
# ## O fim do cronograma
#
# A amostragem parte de $\mathcal N(0, I)$. Isso só está certo se nada da imagem restar em $T$:
# $\bar\alpha_T \approx 0$. A tabela mostra $\bar\alpha_T$, e $\sqrt{\bar\alpha_T}$, a parte da imagem
# em $x_T$.

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
# A quinta linha é uma armadilha. Para ganhar tempo, reduz-se $T$ a 200 e deixam-se $\beta_1$ e $\beta_T$
# como estão. Então $\bar\alpha_T = 0.1322$: 36 % da imagem ainda está lá no fim. O modelo aprende que
# $x_T$ mostra uma imagem, e depois recebe ruído puro. O remédio é multiplicar $\beta$ por $1000/T$. Um
# único $x_T$ parece ruído nos dois casos, mas não para quem tira a média: abaixo, a média de 100
# sorteios de $x_T$ para cada um de oito sprites, três vezes mais forte; primeiro sem o fator, depois com
# ele.

# %%
bad, good = (schedules.DiscreteSchedule(betas) for betas in (unscaled, scaled))
z = Noise(seed=2, ids=torch.arange(800)).normal("eps", x0.shape[1:])
repeated, last = x0[20:28].repeat_interleave(100, dim=0), torch.tensor(199)
means = [
    diffuse(repeated, z, each.level(last)).unflatten(0, (8, 100)).mean(1) for each in (bad, good)
]
grid(to_pixels(3 * torch.cat(means)), columns=8, width=800)

# %% [markdown]
# Na primeira linha todos os sprites estão lá. Um número também o diz: a correlação de $x_T$ com $x_0$,
# sobre todos os pixels de 512 imagens. Só o acaso dá cerca de $\pm 1/\sqrt{512 \cdot 768} = \pm 0.002$.

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
# ## Exercício 1
#
# Em qual $t$ há tanto ruído quanto imagem, SNR = 1, no cronograma linear, e em qual no cosseno? Escreva
# uma função de $\bar\alpha_1 \dots \bar\alpha_T$ que devolva o primeiro $t$ com $\mathrm{SNR}(t) \le 1$.
#
# ### Solução
#
# SNR = 1 significa $\bar\alpha_t = \tfrac12$. No cosseno isso está no meio, em $\tau \approx 0.5$.

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
# ## Exercício 2
#
# Os amostradores saltam passos, de $t$ a algum $s < t$ bem abaixo. Para isso precisam de
# $q(x_t \mid x_s)$. Encontre sua média e sua variância apenas a partir de $\bar\alpha_t$ e
# $\bar\alpha_s$.
#
# ### Solução
#
# O produto dos $\sqrt{\alpha_i}$ de $s+1$ a $t$ é $\sqrt{\bar\alpha_t/\bar\alpha_s}$, e a variância deve
# completar o que falta para $1 - \bar\alpha_t$:
#
# $$q(x_t \mid x_s) = \mathcal N\Big(\sqrt{\bar\alpha_t/\bar\alpha_s}\;x_s,\
# \big(1 - \bar\alpha_t/\bar\alpha_s\big) I\Big).$$
#
# Com $s = t - 1$ isso é de novo o passo único. No framework chama-se `transition`.

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
# ## Exercício 3
#
# Os dados têm valores de −1 a 1 e uma variância $s^2$ menor que 1. Qual é a variância de $x_t$ sobre
# todas as imagens e todo o ruído? Para qual $s$ ela fica igual para todo $t$?
#
# ### Solução
#
# $\bar\alpha_t s^2 + 1 - \bar\alpha_t$: vai de $s^2$ a 1, e é constante para $s = 1$. Por isso o processo
# se chama "que preserva a variância". Medida, sem a média de todos os pixels:

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
# **Para lembrar.** Um passo é $\sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,z$. Um salto é
# $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. Um cronograma se julga por sua SNR, e
# $\bar\alpha_T$ deve estar perto de 0. A seguir: uma rede que desfaz o ruído.

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
# # 3 · Desenhar
#
# O [caderno 2](02_denoising.pt.ipynb) treinou uma rede para ver o ruído. Aqui ela desenha: do puro ruído, passo
# a passo, até uma imagem. Primeiro à mão (o Algoritmo 2 do DDPM), depois com cada vez menos passos. Dois
# deslizes mostram para que serve uma barra na fórmula, e em que o último passo é diferente.
#
# Os símbolos são os de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239) (DDPM). Aqui a lista de
# todos os $\bar\alpha_t$ ganha $\bar\alpha_0 = 1$ (nenhum ruído) na frente; assim, `alpha_bar[t]` é
# $\bar\alpha_t$.
#
# Leva pouco mais de um minuto de um núcleo do processador, se antes o caderno 2 foi executado nesta pasta; se
# não, mais oito para o treino dele.

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
# ## O que se pergunta à rede
#
# Antes, uma coisa. Pixels além de −1 … 1 não são imagem. Por isso o palpite que decorre da resposta,
# $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon_\theta)/\sqrt{\bar\alpha_t}$, é cortado nesse
# intervalo, e $\varepsilon_\theta$ é mudado para combinar com ele. O código do próprio DDPM também faz isso.
# Importa sobretudo nos primeiros passos: ali $\sqrt{\bar\alpha_t}$ é minúsculo, de modo que um pequeno erro de
# $\varepsilon$ é um grande erro de $x_0$ (Exercício 1 do caderno 2).


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
# ## Um passo para trás
#
# Se a imagem $x_0$ fosse conhecida, $x_{t-1}$ seria conhecido a menos de uma gaussiana (DDPM, eq. 6). O palpite
# da rede sobre $\varepsilon$ fica no lugar de $x_0$, e o resultado é a linha 4 do Algoritmo 2:
#
# $$x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Big(x_t - \frac{1-\alpha_t}{\sqrt{1-\bar\alpha_t}}\;
# \varepsilon_\theta(x_t, t)\Big) + \sigma_t z, \qquad z \sim \mathcal N(0, I).$$
#
# No último passo $z = 0$. Em palavras: tire um pouco do ruído, aumente a escala e some um pouco de
# ruído *novo*, de variância $\sigma_t^2 = \beta_t = 1 - \alpha_t$.
#
# Mil chamadas da rede demoram muito. Pulamos tempos, e vamos de $t$ a algum $s < t$. Tudo fica como está, com
# $\alpha_t = \bar\alpha_t/\bar\alpha_s$ (Exercício 2 do caderno 1). Abaixo, $S = 100$ passos. Todos os $S = 990$
# seriam o Algoritmo 2 do artigo, menos os dez tempos mais ruidosos, nos quais este cronograma não tem nada além
# de ruído.


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
# O framework tem cada maneira de desenhar como um *stepper*, que conhece um passo de um nível ao outro.
# `Ancestral` é a linha 4. O mesmo ruído, a mesma imagem:


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
# ## No caminho
#
# Em cima, $x_t$ da primeira imagem; embaixo, o palpite $\hat x_0$ nesse tempo.

# %%
rows = [[], []]
for x, eps, t in kept[:: max(1, S // 14)]:
    rows[0].append(x[:1])
    rows[1].append(picture_of(x[:1], t, eps[:1]))
grid(to_pixels(torch.cat(rows[0] + rows[1])), columns=len(rows[0]), width=960)

# %% [markdown]
# O primeiro palpite é lixo. Depois vem uma névoa colorida, uma média de tudo o que a imagem pode vir a ser. Na
# quarta coluna $x_t$ ainda parece puro ruído, mas contorno e cor já estão decididos; o que segue são detalhes.
#
# ## Por que se soma ruído
#
# Parece estranho somar ruído quando é o ruído que deve sair. Deixe-o fora ($\sigma_t = 0$) e veja. Linhas:
# $\sigma_t^2 = \beta_t$; a variância menor
# $\sigma_t^2 = \tilde\beta_t = \frac{1-\bar\alpha_s}{1-\bar\alpha_t}\beta_t$, que o artigo acha igualmente boa; e
# nenhuma.


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
# As duas primeiras linhas são parecidas. A última perdeu a variedade: só coisas pálidas, uma criatura quatro vezes e
# outras três duas vezes. O desvio padrão entre as imagens (média sobre os pixels) cai de 0,62 a 0,51.
#
# É culpa da rede? Tome dados para os quais se conhece a melhor resposta: números
# $x_0 \sim \mathcal N(0, s^2)$ com $s = 0.25$. Ali $E[\varepsilon \mid x_t] =
# \sqrt{1-\bar\alpha_t}\;x_t / v_t$ com $v_t = \bar\alpha_t s^2 + 1 - \bar\alpha_t$, exatamente.
# Que largura têm os números desenhados?

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
# Sem o ruído todos estes números acabam na sua média, embora o palpite seja perfeito. A primeira parte do passo é uma *média* de
# $x_{t-1}$; por isso é menos espalhada do que $x_{t-1}$ deve ser; $\sigma_t z$ devolve o que falta. Os sprites não
# são uma só gaussiana, mas muitos grupos; por isso as imagens da rede não se tornam todas a mesma, mas menos grupos
# são alcançados.
#
# ## Um deslize comum: $\sqrt{1-\alpha_t}$ no lugar de $\sqrt{1-\bar\alpha_t}$
#
# Esquece-se uma barra, e o código roda. O que a rede diz é todo o ruído de $x_t$, de tamanho
# $\sqrt{1-\bar\alpha_t}$. Dividido por $\sqrt{1-\alpha_t}$, que é muito menor, tira-se em cada passo ruído demais.
# Linhas: certo, e sem a barra.


# %%
def without_the_bar(x, eps, alpha, alpha_bar):
    """Wrong."""
    return (x - (1 - alpha) / (1 - alpha).sqrt() * eps) / alpha.sqrt()


wrong = algorithm_2(eps_theta, *noise(n), S, mean=without_the_bar)
for name, pictures in (("right", drawn), ("without", wrong)):
    print(f"{name:10}  standard deviation between pictures {pictures.std(0).mean():.2f}")
grid(to_pixels(torch.cat((drawn, wrong))), columns=n, width=960)

# %% [markdown]
# Quem vê só a segunda linha não vê erro nenhum; as imagens são até mais limpas. Ao lado da primeira nota-se que são
# coisas mais simples, e quase todas amarelas. Perdeu-se de novo variedade: 0,58 em vez de 0,62.
#
# Para os números de $\mathcal N(0, s^2)$ a resposta é conhecida, e o deslize aparece na hora. Ali
# $\varepsilon$ é um múltiplo de $x$, de modo que um passo é $x \leftarrow k_t x + \sigma_t z$, e a variância segue
# $V \leftarrow k_t^2 V + \sigma_t^2$: não há acaso nenhum. Agora com todos os 990 passos. À esquerda: o que
# multiplica $\varepsilon_\theta$. No meio e à direita: os números desenhados.


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
# Perto de $t = 500$ o fator errado é umas 12 vezes grande demais, e os números acabam três vezes mais estreitos: 0,087 em vez
# de 0,25. Por isso, teste um amostrador em dados para os quais se conhece a resposta. Imagens escondem erros assim.
#
# ## Um deslize comum: ruído no último passo
#
# O último passo leva à própria imagem, e a imagem é a sua média. Quem também ali soma $\sigma_1 z$ põe grão em
# tudo. Com todos os $T = 1000$ passos é pouco demais para se ver, e só estraga o que se mede. Com menos passos o
# último é mais longo, e assim também o seu $\sigma$. Abaixo, 12 passos sem esse ruído e com ele.

# %%
coarse = 2 if TINY else 12
grained = [algorithm_2(eps_theta, *noise(n), coarse, last=last) for last in (0, 1)]
for k in (990, S, coarse):
    sigma = (1 - alpha_bar[levels(k)[-1][0]]).sqrt() * 127.5
    print(f"{k:4} steps: the noise of the last one is {sigma:.1f} of 255 grey levels")
grid(to_pixels(torch.cat(grained)), columns=n, width=960)

# %% [markdown]
# ## Menos passos: DDIM
#
# Cem chamadas ainda são muitas. [Song, Meng & Ermon 2021](https://arxiv.org/abs/2010.02502) encontraram outro
# caminho de volta (eq. 12 com $\sigma = 0$). Pegue os dois palpites, imagem e ruído, e misture-os de novo, como se
# misturaria uma imagem no tempo $s$:
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s}\;\varepsilon_\theta(x_t, t).$$
#
# Não se sorteia ruído, e mesmo assim nada desmorona: o ruído em $x_s$ é o de $x_t$, e por isso tem o tamanho que
# deve ter. O mesmo $x_T$ sempre se torna a mesma imagem.


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
# DDIM em 5, 10, 20 e 50 passos, uma linha cada, a partir do mesmo ruído. Na maioria das colunas mais passos só mudam
# detalhes. Em algumas a imagem se torna outra, como na primeira.
#
# ## Menos ainda: DPM-Solver++
#
# O DDIM segue uma curva, a *ODE do fluxo de probabilidade* ([caderno 5](05_scores.ipynb)), em pedaços retos: toma
# $\hat x_0$ como constante durante um passo. O [DPM-Solver++](https://arxiv.org/abs/2211.01095) (Algoritmo 2
# daquele artigo) vê pelo passo anterior como $\hat x_0$ se move, e o toma meio passo adiante. O tempo se conta na
# metade do ln SNR, $\lambda_t = \tfrac12 \ln \frac{\bar\alpha_t}{1-\bar\alpha_t}$. Com
# $h = \lambda_s - \lambda_t$, e $h'$ e $\hat x_0'$ do passo anterior,
#
# $$D = \hat x_0 + \frac{h}{2h'}\,(\hat x_0 - \hat x_0'), \qquad
# x_s = \sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}}\;x_t + \sqrt{\bar\alpha_s}\,(1 - e^{-h})\,D.$$
#
# No primeiro passo e no último, $D = \hat x_0$.


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
# A que distância do verdadeiro fim da curva chega cada um? Para números de $\mathcal N(0, s^2)$ o fim é conhecido:
# $x/\sqrt{v_t}$ fica igual o caminho todo, de modo que cada $x_T$ chega a $x_T\sqrt{v_1/v_T}$ em $t = 1$; o
# último passo é $\hat x_0$ para todos. Um `Sampler` é um *stepper* com o seu número de passos e o espaçamento
# deles, aqui uniforme em ln SNR. O [método de Heun](https://arxiv.org/abs/2206.00364) pergunta duas vezes em cada
# passo.

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
# A partir de 40 chamadas, o dobro de chamadas reduz à metade o erro do DDIM, e a cerca de um quarto o dos outros dois (pontilhado: inclinações 1 e 2).
# O DPM-Solver++ está mais perto depois de 40 chamadas que o DDIM depois de 160. O método de Heun precisa de passos
# curtos para servir de algo.
#
# ## Qual amostrador?
#
# Exato não é o mesmo que bom. A curva de uma rede treinada por minutos tem erros, e ruído novo os lava. Por isso
# o amostrador da própria receita é o DPM-Solver++ *com* ruído, em 20 passos. Linhas: Algoritmo 2, DDIM,
# DPM-Solver++ e o amostrador da receita, todos com 10 chamadas; depois o da receita com as suas 20.
# `model.sample` começa a imagem número $k$ sempre do mesmo ruído; assim, as linhas podem ser comparadas.


# %%
def drawn_by(stepper, steps):
    """Pixels of n pictures; Clip keeps each guess of x_0 within −1 … 1."""
    return model.sample(n, sampler=Sampler(stepper, steps, "log_snr", Clip())).pixels


ten = 2 if TINY else 10
rows = [drawn_by(stepper, ten) for stepper in (Ancestral(), DDIM(), DPMSolver())]
rows += [model.sample(n, steps=steps).pixels for steps in (ten, 2 * ten)]
grid(torch.cat(rows), columns=n, width=960)

# %% [markdown]
# Dez passos são poucos para o Algoritmo 2: o seu ruído ainda está lá. DDIM e DPM-Solver++ encontram as mesmas imagens,
# cada uma de uma só cor forte. O amostrador da receita tem mais cores e mais para contar, e em 20 passos também
# linhas mais limpas.
#
# Na linha de comando: `unnoise-sample run=… sampler=ddim steps=20 n=64`. Quão bom é cada um, em números, diz
# `unnoise-evaluate run=… grid=samplers`.
#
# ## Exercício 1
#
# Mostre que a linha 4 do Algoritmo 2 é a média de $q(x_{t-1} \mid x_t, x_0)$ (DDPM, eq. 7),
#
# $$\tilde\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0 +
# \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t,$$
#
# com $\hat x_0$ no lugar de $x_0$.
#
# ### Solução
#
# Ponha $\hat x_0 = (x_t - \sqrt{1-\bar\alpha_t}\,\varepsilon)/\sqrt{\bar\alpha_t}$. Diante de $\varepsilon$ fica
# $-\beta_t/(\sqrt{\alpha_t}\sqrt{1-\bar\alpha_t})$. Diante de $x_t$:
# $\frac{1}{1-\bar\alpha_t}\big(\frac{\beta_t}{\sqrt{\alpha_t}} + \sqrt{\alpha_t}(1-\bar\alpha_{t-1})\big)
# = \frac{1}{\sqrt{\alpha_t}} \cdot \frac{1 - \alpha_t + \alpha_t - \bar\alpha_t}{1-\bar\alpha_t}
# = \frac{1}{\sqrt{\alpha_t}}$. Em números:

# %%
x, eps = (Noise(seed, torch.arange(4)).normal("exercise", (100,)).double() for seed in (1, 2))
for t in (2, 300, 900):
    alpha, bar, before = alpha_bar[t] / alpha_bar[t - 1], alpha_bar[t], alpha_bar[t - 1]
    x0_hat = picture_of(x, t, eps)
    mu = before.sqrt() * (1 - alpha) / (1 - bar) * x0_hat
    mu = mu + alpha.sqrt() * (1 - before) / (1 - bar) * x
    assert torch.allclose(mu, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Exercício 2
#
# Entre o DDIM e o Algoritmo 2 há uma família (Song et al. 2021, eq. 12): com $\sigma^2 =
# \eta^2\,\tilde\beta_t$,
#
# $$x_s = \sqrt{\bar\alpha_s}\;\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\;\varepsilon + \sigma z.$$
#
# Mostre que $\eta = 1$ é o Algoritmo 2 com $\sigma_t^2 = \tilde\beta_t$.
#
# ### Solução
#
# $1-\bar\alpha_s-\tilde\beta_t = (1-\bar\alpha_s)\big(1 - \frac{1-\alpha_t}{1-\bar\alpha_t}\big)
# = \frac{\alpha_t (1-\bar\alpha_s)^2}{1-\bar\alpha_t}$, pois $1 - \bar\alpha_t - 1 + \alpha_t =
# \alpha_t(1-\bar\alpha_s)$. Portanto $\varepsilon$ tem o fator
# $\sqrt{\alpha_t}\,(1-\bar\alpha_s)/\sqrt{1-\bar\alpha_t}$, e com $\hat x_0$ e $\varepsilon$ escritos por meio de
# $x_t$ isso é a média do Exercício 1.

# %%
for t, s in ((300, 250), (900, 880)):
    alpha, bar, before = alpha_bar[t] / alpha_bar[s], alpha_bar[t], alpha_bar[s]
    x0_hat = picture_of(x, t, eps)
    sigma2 = beta_tilde(alpha, bar, before)
    direct = before.sqrt() * x0_hat + (1 - before - sigma2).sqrt() * eps
    assert torch.allclose(direct, reverse_mean(x, eps, alpha, bar), atol=1e-9)

# %% [markdown]
# ## Exercício 3
#
# Mostre que o DPM-Solver++ com $D = \hat x_0$ em todos os passos é o DDIM.
#
# ### Solução
#
# $e^{-h} = \sqrt{\frac{\bar\alpha_t\,(1-\bar\alpha_s)}{\bar\alpha_s\,(1-\bar\alpha_t)}}$, logo $x_s =
# \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}}\,(x_t -
# \sqrt{\bar\alpha_t}\,\hat x_0)$, e o último parêntese é $\sqrt{1-\bar\alpha_t}\,\varepsilon$.

# %%
for t, s in ((300, 250), (900, 880)):
    x0_hat = picture_of(x, t, eps)
    h = ((alpha_bar[s] / (1 - alpha_bar[s])).log() - (alpha_bar[t] / (1 - alpha_bar[t])).log()) / 2
    solver = ((1 - alpha_bar[s]) / (1 - alpha_bar[t])).sqrt() * x
    solver = solver + alpha_bar[s].sqrt() * (1 - (-h).exp()) * x0_hat
    straight = alpha_bar[s].sqrt() * x0_hat + (1 - alpha_bar[s]).sqrt() * eps
    assert torch.allclose(solver, straight, atol=1e-9)

# %% [markdown]
# ## Exercício 4
#
# O DDIM faz de cada $x_T$ uma só imagem; assim, podem-se misturar imagens misturando os seus ruídos. Com
# $(1-w)\,x_T + w\,y_T$, ou com $\cos(\phi)\,x_T + \sin(\phi)\,y_T$?
#
# ### Solução
#
# As variâncias se somam: $(1-w)^2 + w^2$ é só $\tfrac12$ no meio, um ruído fraco demais para $t$, que a rede nunca
# viu. $\cos^2 + \sin^2 = 1$ sempre. Em cima a soma com $w$, mais pálida no meio; embaixo com $\phi$:

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
# **Para lembrar.** Um passo para trás tira um pouco do ruído que se supõe e soma ruído novo, porque o que ele calcula é
# uma média. Divide por $\sqrt{1-\bar\alpha_t}$, com a barra. O último passo não soma nada. O DDIM segue uma curva e
# não precisa de ruído; métodos que resolvem curvas precisam de menos passos. A seguir: [quão bom é o modelo](04_likelihood.ipynb), em bits?

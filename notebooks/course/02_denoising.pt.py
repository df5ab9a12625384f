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
# # 2 · Aprender a remover o ruído
#
# O [caderno 1](01_noise.pt.ipynb) somou ruído. Aqui uma rede aprende a vê-lo. Toda a sua tarefa é uma só
# pergunta: *eis uma imagem ruidosa; que ruído há nela?* O laço que a treina é escrito à mão e depois
# deixado ao framework.
#
# Os símbolos são os de [Ho, Jain & Abbeel 2020](https://arxiv.org/abs/2006.11239), chamado abaixo de
# DDPM. Os artigos contam $t = 1 \dots T$ e o Python a partir de 0; assim, `alpha_bar[t - 1]` é
# $\bar\alpha_t$, e a rede recebe $t - 1$. O cronograma é o cosseno do caderno 1.
#
# Leva cerca de nove minutos de um núcleo do processador; oito deles treinam a receita, se na pasta não
# houver uma execução terminada dela.

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
# ## A pergunta
#
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$. Quem conhece $\varepsilon$
# conhece a imagem: resolva para $x_0$ (DDPM, eq. 15),
#
# $$x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\;\varepsilon}{\sqrt{\bar\alpha_t}}.$$
#
# Abaixo, os mesmos cinco sprites como $x_0$, $\varepsilon$ (em forma de imagem) e $x_t$ para $t = 300$. A
# rede vê a última linha e $t$, e deve responder com a segunda.


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
# ## A codificação do tempo
#
# A resposta depende de $t$: em $t = 10$ o ruído é um grão tênue, em $t = 900$ é tudo o que há. Por isso
# se informa $t$ à rede. Um só número que vai até 1000 é uma entrada ruim para ela. Ela recebe muitas ondas
# dele, lentas e rápidas, como os ponteiros de um relógio:
#
# $$\big[\sin(t f_1), \dots, \sin(t f_{16}),\ \cos(t f_1), \dots, \cos(t f_{16})\big],
# \qquad f_i = 10000^{-(i-1)/15}.$$
#
# As ondas rápidas distinguem 500 de 501, e as lentas distinguem 100 de 900.

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
# À direita: vizinhos no tempo têm codificações parecidas; assim, o que se aprende em $t = 500$ ajuda em
# $t = 510$.
#
# ## A rede
#
# Pergunta e resposta têm a mesma forma; portanto, a rede vai de imagem a imagem. Uma **U-Net** olha partes
# pequenas em tamanho inteiro, partes grandes em metade e em um quarto do tamanho, e junta as duas coisas:
# o que foi calculado na descida é entregue à subida. Ela é feita de blocos residuais, e a cada um deles se
# informa o tempo:
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
# Cada barra é o que uma parte da rede produz, da esquerda para a direita: tão alta quanto suas imagens
# (16, 8 ou 4 pixels), com o número de canais em cima. Em 8 × 8 e no meio há também atenção, com a qual
# cada lugar olha todos os outros.
#
# A última linha do código: no começo a resposta é exatamente 0, porque a última convolução começa em 0.
# Assim, a primeira perda é conhecida antes de ser calculada. Ela é $E\,\varepsilon^2 = 1$.
#
# ## O laço de treino
#
# Algoritmo 1 do DDPM:
#
# > **repetir**
# > &nbsp; $x_0 \sim q(x_0)$
# > &nbsp; $t \sim \mathrm{Uniform}(\{1, \dots, T\})$
# > &nbsp; $\varepsilon \sim \mathcal N(0, I)$
# > &nbsp; dar um passo de gradiente em
# > $\nabla_\theta \lVert \varepsilon - \varepsilon_\theta(\sqrt{\bar\alpha_t}\,x_0 +
# > \sqrt{1-\bar\alpha_t}\,\varepsilon,\ t)\rVert^2$
# >
# > **até** convergir
#
# Linha por linha em Python, com 16 imagens de cada vez. O quadrado é uma média sobre todos os pixels e
# imagens, não uma soma: isso só muda a escala do passo.


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
# A curva cai depressa e depois quase só oscila, pois cada passo tem outros $t$, e a perda depende muito
# mais de $t$ que do passo. Pergunte então por cada $t$ em separado, com imagens que não foram usadas no
# treino. Há algo com que comparar. A melhor resposta que apenas multiplica sua entrada,
# $\hat\varepsilon = c_t x_t$, tem (Exercício 2) a perda
#
# $$\frac{\bar\alpha_t s^2}{\bar\alpha_t s^2 + 1 - \bar\alpha_t},$$
#
# onde $s^2$ é a média dos quadrados dos valores dos dados.


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
# Em $t = 3$ o ruído é um centésimo da imagem, e ninguém o veria bem. Em $t = 980$ quase não há outra
# coisa, e ele quase pode ser copiado da entrada. Entre os dois a rede precisa saber como são os sprites.
# Depois de tão poucos passos ela sabe um pouco: no meio vence a multiplicação, nas duas pontas não.
#
# ## O que ela vê
#
# Ponha sua resposta $\varepsilon_\theta$ no lugar de $\varepsilon$ na primeira fórmula: esse é o palpite
# $\hat x_0$ da rede sobre a imagem. Linhas: $x_t$ e $\hat x_0$. Colunas: $t = 10$ até $950$.


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
# Com pouco ruído o palpite é nítido. Com mais, vira um borrão, e no fim não serve para nada: ali
# $\sqrt{\bar\alpha_t}$ é minúsculo, e um erro pequeno de $\varepsilon$ é um erro grande de $x_0$
# (Exercício 1).
#
# O borrão permanece na melhor das redes. É obra do erro quadrático: sua melhor resposta é a média de todas
# as imagens que combinam, $\hat x_0 = E[x_0 \mid x_t]$. Onde nada resta da imagem, todas combinam, e a
# melhor resposta é a média de todo o conjunto de dados, abaixo. Portanto, um só desses palpites não é um
# desenho; o próximo caderno faz muitos.

# %%
mean = to_signal(sprites.read(torch.arange(2000))).mean(0, keepdim=True)
grid(to_pixels(mean), columns=1, width=120)

# %% [markdown]
# ## Um erro comum: os gradientes não são zerados
#
# `loss.backward()` *soma* ao que está em cada `.grad`. Sem `optimizer.zero_grad()`, o passo 100 segue a
# soma de cem gradientes, dos quais 99 são de pesos que já não existem. Nenhum erro, nenhum aviso. Abaixo,
# o treino de antes, e de novo o mesmo (mesmo início, imagens, ruído) sem essa linha:

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
# A perda cai enquanto todos os gradientes apontam para o mesmo lado. Depois sobe, além do 1 de uma rede que
# não diz nada. O gradiente que o otimizador vê cresce e cresce; o Adam o divide por seu tamanho, de modo
# que nada transborda e nada avisa.
#
# ## À maneira do framework: as partes
#
# O mesmo passo, com as partes do framework. Um `Denoiser` é uma rede e o que sua saída significa (aqui:
# $\varepsilon$); um objetivo é uma perda. As duas perdas são o mesmo número.

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
# ## À maneira do framework: o comando
#
# Um comando treina e deixa um diretório com a execução. Ele faz o que faz o laço acima, e o mais que um bom
# treino pede: a taxa de aprendizado sobe por 100 passos e depois cai a 0; gradientes longos demais são
# cortados; e se guarda uma média dos pesos dos últimos cem passos, mais ou menos (EMA), que desenha melhor
# que qualquer um deles. Interrompido, ele continua de onde estava com `resume=true`. A receita se chama
# `experiment=sprites`. Usa uma rede mais larga que a nossa, e um truque: entre os tempos $t$, os de imagens
# meio escondidas (ln SNR perto de 0) aparecem mais que os outros. A célula abaixo procura primeiro se a
# pasta tem uma execução terminada.


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
# À direita: uma rede mais larga, mais passos, e a média de seus pesos. É melhor em cada $t$, sobretudo no
# meio. Seus palpites para as mesmas duas imagens, nítidos até $t = 500$ e mais:

# %%
rows = torch.cat([guesses(eps_theta, number) for number in (0, 11)])
grid(to_pixels(rows), columns=len(rows) // 4, width=960)

# %% [markdown]
# E ela sabe desenhar: `model.sample` parte do ruído e consulta a rede muitas vezes. Como isso funciona, e
# por quê, é assunto do próximo caderno.

# %%
model.sample(10, steps=2 if TINY else 20).grid(columns=10)

# %% [markdown]
# ## Exercício 1
#
# A rede pode dizer qual é a imagem, $\hat x_0$, em vez do ruído. As duas são a mesma resposta em outras
# palavras. Se o erro quadrático de $\varepsilon$ é $L$, qual é o erro quadrático de $x_0$? Em qual $t$ ele
# explode?
#
# ### Solução
#
# $x_0 - \hat x_0 = -\sqrt{(1-\bar\alpha_t)/\bar\alpha_t}\;(\varepsilon - \hat\varepsilon)$; logo, o erro
# é $L\,(1-\bar\alpha_t)/\bar\alpha_t = L / \mathrm{SNR}(t)$. Ele explode perto de $T$, onde a SNR é quase
# 0. A perda simples em $\varepsilon$ é uma perda ponderada em $x_0$, com pouco peso onde há muito ruído.

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
# ## Exercício 2
#
# Encontre o $c_t$ para o qual $\hat\varepsilon = c_t x_t$ tem o menor erro quadrático médio, e esse erro.
# Seja $s^2 = E\,x_0^2$ (média sobre os pixels). Confira com ruído.
#
# ### Solução
#
# $E(\varepsilon - c\,x_t)^2 = 1 - 2c\sqrt{1-\bar\alpha_t} + c^2 v$ com
# $v = E\,x_t^2 = \bar\alpha_t s^2 + 1 - \bar\alpha_t$. É mínimo para $c_t = \sqrt{1-\bar\alpha_t}/v$, e
# ali vale $1 - (1-\bar\alpha_t)/v = \bar\alpha_t s^2/v$: a curva pontilhada. A rede deve estar abaixo
# dela, ou não aprendeu nada sobre imagens.

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
# ## Exercício 3
#
# Não zerar os gradientes tem um bom uso. Um lote de 16 não cabe na memória, mas 8 imagens cabem. Como se
# obtém o gradiente das 16?
#
# ### Solução
#
# Duas vezes `backward()`, cada uma com a *metade* da perda média de 8 imagens, e então um passo. O comando
# faz isso com `accumulate=2`.


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
# **Para lembrar.** O treino são quatro linhas: uma imagem, um tempo, um ruído, e o erro quadrático do
# palpite sobre esse ruído. O palpite é uma média; por isso é borrado onde muito está escondido. Os
# gradientes são zerados antes de cada passo. A seguir: [desenhar](03_drawing.pt.ipynb).

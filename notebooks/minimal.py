"""DDPM on one page: the mathematics and a network, without Lightning and Hydra."""

from itertools import pairwise

import torch

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion.denoiser import Clip, Denoiser, EpsilonPrediction, thresholded
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.schedules import linear
from unnoise.networks.unet import UNet
from unnoise.report.sheets import grid

STEPS = 1200  # about 5 minutes on two CPU cores
torch.manual_seed(0)
sprites, schedule = Sprites().images("train"), linear(T=1000)
network = UNet((3, 16, 16), 3, channels=32, multipliers=(1, 2, 2), attention_resolutions=(8,))
denoiser = Denoiser(network, EpsilonPrediction())
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

for step in range(1, STEPS + 1):  # Algorithm 1: training
    x0 = to_signal(sprites.read(torch.randint(len(sprites), (64,))))
    level = schedule.level(torch.randint(schedule.T, (64,)))
    eps = torch.randn_like(x0)
    eps_hat = denoiser(diffuse(x0, eps, level), level).eps
    loss = (eps - eps_hat).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    decay.step()
    print(f"\rstep {step}: loss {loss.item():.3f}", end="", flush=True)

with torch.no_grad():  # Algorithm 2: sampling, with the deterministic step of DDIM
    x = torch.randn(64, 3, 16, 16)
    for now, to in pairwise(schedule.grid(50)):
        denoised = thresholded(denoiser, Clip())(x, now)
        x = diffuse(denoised.x0, denoised.eps, to)
grid(to_pixels(x)).save("minimal.png")

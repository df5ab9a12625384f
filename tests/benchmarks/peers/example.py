"""diffusers in the benchmark against peers: the settings of its unconditional training example.

Batches of 16, AdamW (1e-4, betas 0.95 and 0.999, weight decay 1e-6), a cosine that falls from the
end of 500 warm-up steps to the last step, gradients clipped at norm 1, averaged weights with decay
1 − (1 + step)^(−3/4) up to 0.9999, DDPM's linear schedule, noise prediction. The network is ours in
diffusers' classes. Where its cosine ends follows, as ours does, from the speed so far.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from budget import Budget
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional as F
from worker import BF16, DDIM_STEPS, SIZE, arguments, batches, finish

BATCH, LR, WARMUP = 16, 1e-4, 500
NETWORK = {
    "sample_size": SIZE,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 2,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": 32,
}


def cosine(steps: int) -> list[Callable[[int], float]]:
    """diffusers' factor of the learning rate, for a run of ``steps``."""
    unused = torch.optim.SGD([torch.zeros(1)])  # making a schedule sets its optimizer's rate
    lambdas: list[Callable[[int], float]] = get_cosine_schedule_with_warmup(
        unused, WARMUP, steps
    ).lr_lambdas
    return lambdas


def main() -> None:
    given = arguments()
    lr = given.lr or LR
    accelerator = Accelerator(mixed_precision="bf16" if BF16 else "no", cpu=True)
    network = UNet2DModel(**NETWORK)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6
    )
    rate = get_cosine_schedule_with_warmup(optimizer, WARMUP, 10**9)
    average = EMAModel(network.parameters(), 0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    model, optimizer, rate = accelerator.prepare(network, optimizer, rate)
    data = batches(given.data_root, BATCH)
    next(data)  # reads the files
    budget = Budget(given.seconds)
    budget.begin()
    model.train()
    goes_on = True
    while goes_on:
        x0 = 2 * next(data) - 1
        noise = torch.randn(x0.shape)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(x0),))
        loss = F.mse_loss(model(schedule.add_noise(x0, noise, t), t).sample.float(), noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        goes_on = budget.step()
        rate.scheduler.lr_lambdas = cosine(budget.steps_in_all)

    average.copy_to(network.parameters())
    network.eval()
    pipeline = DDIMPipeline(network, DDIMScheduler.from_config(schedule.config))
    pipeline.set_progress_bar_config(disable=True)

    def draw(first: int, count: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            x = pipeline(count, num_inference_steps=DDIM_STEPS, output_type="np").images
        return (torch.from_numpy(x) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)

    packages = ("diffusers", "torch", "accelerate")
    settings = {"network": NETWORK, "batch": BATCH, "lr": lr, "warmup_steps": WARMUP}
    finish(given.out, budget, network, BATCH, packages, settings, draw, given.n)


if __name__ == "__main__":
    main()

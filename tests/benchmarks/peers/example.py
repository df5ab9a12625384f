"""diffusers in the benchmark against peers: the settings of its unconditional training example.

Batches of 16, AdamW (1e-4, betas 0.95 and 0.999, weight decay 1e-6), a cosine that falls from the
end of 500 warm-up steps to the last step, gradients clipped at norm 1, averaged weights with decay
1 − (1 + step)^(−3/4) up to 0.9999, DDPM's linear schedule, noise prediction. The network is ours in
diffusers' classes. Where its cosine ends follows, as ours does, from the speed so far.

With --tuned: TUNED, the settings of our own recipe for a short training.
"""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional as F
from worker import BF16, DDIM_STEPS, SIZE, WARMUP, arguments, batches, budget, finish

DOCUMENTED = {"batch": 16, "lr": 1e-4, "warmup": 500, "ema_decay": 0.9999}
TUNED = {"batch": 16, "lr": 1e-3, "warmup": WARMUP, "ema_decay": 0.99}
PREDICTIONS = {  # with the schedule that goes with it
    "noise": {"prediction_type": "epsilon"},
    "v": {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
}
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


def cosine(warmup: int, steps: int) -> list[Callable[[int], float]]:
    """diffusers' factor of the learning rate, for a run of ``steps``."""
    unused = torch.optim.SGD([torch.zeros(1)])  # making a schedule sets its optimizer's rate
    lambdas: list[Callable[[int], float]] = get_cosine_schedule_with_warmup(
        unused, warmup, steps
    ).lr_lambdas
    return lambdas


def main() -> None:
    given = arguments()
    settings = TUNED if given.tuned else DOCUMENTED
    settings |= {name: vars(given)[name] for name in ("lr", "batch") if vars(given)[name]}
    prediction = PREDICTIONS[given.prediction or "noise"]
    batch = settings["batch"]
    accelerator = Accelerator(mixed_precision="bf16" if BF16 else "no", cpu=True)
    network = UNet2DModel(**NETWORK)
    schedule = DDPMScheduler(num_train_timesteps=1000, **prediction)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["lr"], betas=(0.95, 0.999), weight_decay=1e-6
    )
    rate = get_cosine_schedule_with_warmup(optimizer, settings["warmup"], 10**9)
    average = EMAModel(
        network.parameters(),
        settings["ema_decay"],
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=0.75,
    )
    model, optimizer, rate = accelerator.prepare(network, optimizer, rate)
    data = batches(given.data_root, batch)
    next(data)  # reads the files
    spent = budget(given)
    spent.begin()
    model.train()
    goes_on = True
    while goes_on:
        x0 = 2 * next(data) - 1
        noise = torch.randn(x0.shape)
        t = torch.randint(0, schedule.config.num_train_timesteps, (len(x0),))
        x_t = schedule.add_noise(x0, noise, t)
        target = schedule.get_velocity(x0, noise, t) if given.prediction == "v" else noise
        loss = F.mse_loss(model(x_t, t).sample.float(), target)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        goes_on = spent.step()
        rate.scheduler.lr_lambdas = cosine(settings["warmup"], spent.steps_in_all)

    average.copy_to(network.parameters())
    network.eval()
    pipeline = DDIMPipeline(network, DDIMScheduler.from_config(schedule.config))
    pipeline.set_progress_bar_config(disable=True)

    def draw(first: int, count: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            x = pipeline(count, num_inference_steps=DDIM_STEPS, output_type="np").images
        return (torch.from_numpy(x) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)

    packages = ("diffusers", "torch", "accelerate")
    settings |= {"network": NETWORK, **prediction}
    finish(given.out, spent, network, batch, packages, settings, draw, given.n)


if __name__ == "__main__":
    main()

"""denoising-diffusion-pytorch in the benchmark against peers: its Trainer, its README's settings.

From the README: batches of 32, two to a step, learning rate 8e-5, average 0.995, mixed precision.
The rest are the package's defaults: v-prediction on the sigmoid schedule. Its loader of files in
other processes is replaced by pictures in memory, and nothing is saved or drawn while it trains.

With --tuned: TUNED, the settings of our own recipe for a short training.
"""

import tempfile

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
from PIL import Image
from torch import Tensor
from worker import BF16, DDIM_STEPS, SIZE, WARMUP, arguments, batches, budget, finish

DOCUMENTED = {"batch": 32, "parts": 2, "lr": 8e-5, "ema_update_every": 10, "ema_decay": 0.995}
TUNED = {"batch": 16, "parts": 1, "lr": 1e-3, "ema_update_every": 1, "ema_decay": 0.99}
NETWORK = {"dim": 24, "dim_mults": (1, 2, 4), "channels": 1}


def main() -> None:
    given = arguments()
    settings = TUNED if given.tuned else DOCUMENTED
    settings |= {name: vars(given)[name] for name in ("lr", "batch") if vars(given)[name]}
    objective = f"pred_{given.prediction or 'v'}"
    diffusion = GaussianDiffusion(
        Unet(**NETWORK), image_size=SIZE, sampling_timesteps=DDIM_STEPS, objective=objective
    )
    with tempfile.TemporaryDirectory() as folder:
        for i in range(100):  # fewer it refuses; it never reads them
            Image.new("L", (SIZE, SIZE)).save(f"{folder}/{i}.png")
        trainer = Trainer(
            diffusion,
            folder,
            train_batch_size=settings["batch"],
            gradient_accumulate_every=settings["parts"],
            train_lr=settings["lr"],
            train_num_steps=10**9,
            ema_update_every=settings["ema_update_every"],
            ema_decay=settings["ema_decay"],
            amp=BF16,
            mixed_precision_type="bf16",
            save_and_sample_every=10**9,
            results_folder=str(given.out),
            calculate_fid=False,
        )
    trainer.dl = batches(given.data_root, settings["batch"])
    next(trainer.dl)  # reads the files
    spent = budget(given)
    optimizer = trainer.opt.optimizer

    def after_step(*_: object) -> None:
        if not spent.step():
            trainer.train_num_steps = trainer.step + 1
        if given.tuned:
            optimizer.param_groups[0]["lr"] = settings["lr"] * spent.factor(WARMUP)

    optimizer.register_step_post_hook(after_step)
    spent.begin()
    trainer.train()

    def draw(first: int, count: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            x = trainer.ema.ema_model.sample(batch_size=count)
        return (x.float().clamp(0, 1) * 255).round().to(torch.uint8)

    trainer.ema.ema_model.eval()
    packages = ("denoising-diffusion-pytorch", "torch", "accelerate")
    images = settings["batch"] * settings["parts"]
    settings |= {"network": NETWORK, "objective": objective}
    finish(given.out, spent, diffusion.model, images, packages, settings, draw, given.n)


if __name__ == "__main__":
    main()

"""denoising-diffusion-pytorch in the benchmark against peers: its Trainer, its README's settings.

From the README: batches of 32, two to a step, learning rate 8e-5, average 0.995, mixed precision.
The rest are the package's defaults: v-prediction on the sigmoid schedule. Its loader of files in
other processes is replaced by pictures in memory, and nothing is saved or drawn while it trains.
"""

import tempfile

import torch
from budget import Budget
from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
from PIL import Image
from torch import Tensor
from worker import BF16, DDIM_STEPS, SIZE, arguments, batches, finish

BATCH, PARTS, LR = 32, 2, 8e-5
NETWORK = {"dim": 24, "dim_mults": (1, 2, 4), "channels": 1}


def main() -> None:
    given = arguments()
    lr = given.lr or LR
    diffusion = GaussianDiffusion(Unet(**NETWORK), image_size=SIZE, sampling_timesteps=DDIM_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(100):  # fewer it refuses; it never reads them
            Image.new("L", (SIZE, SIZE)).save(f"{folder}/{i}.png")
        trainer = Trainer(
            diffusion,
            folder,
            train_batch_size=BATCH,
            gradient_accumulate_every=PARTS,
            train_lr=lr,
            train_num_steps=10**9,
            ema_decay=0.995,
            amp=BF16,
            mixed_precision_type="bf16",
            save_and_sample_every=10**9,
            results_folder=str(given.out),
            calculate_fid=False,
        )
    trainer.dl = batches(given.data_root, BATCH)
    next(trainer.dl)  # reads the files
    budget = Budget(given.seconds)

    def after_step(*_: object) -> None:
        if not budget.step():
            trainer.train_num_steps = trainer.step + 1

    trainer.opt.optimizer.register_step_post_hook(after_step)
    budget.begin()
    trainer.train()

    def draw(first: int, count: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            x = trainer.ema.ema_model.sample(batch_size=count)
        return (x.float().clamp(0, 1) * 255).round().to(torch.uint8)

    trainer.ema.ema_model.eval()
    packages = ("denoising-diffusion-pytorch", "torch", "accelerate")
    settings = {"network": NETWORK, "batch": BATCH, "accumulate": PARTS, "lr": lr}
    finish(given.out, budget, diffusion.model, BATCH * PARTS, packages, settings, draw, given.n)


if __name__ == "__main__":
    main()

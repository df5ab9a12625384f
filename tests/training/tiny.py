"""A run small enough to be trained many times in a test."""

from functools import partial

import torch
from lightning import Trainer

from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import EpsilonPrediction
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.times import UniformTimes
from unnoise.networks.conditioning import ClassConditioner, ConditionShape
from unnoise.networks.unet import UNet
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.callbacks.metrics import TrainingMetrics
from unnoise.training.callbacks.nan_guard import BadNumbers
from unnoise.training.logging.choices import none
from unnoise.training.recipe import DiffusionRecipe


def experiment(callbacks=None, dropout=0.0, conditional=False, **changes):
    """A recipe on 40 sprites with about 5000 parameters; fields are replaced by name."""
    torch.manual_seed(0)
    conditioning = ClassConditioner(classes=5, width=4) if conditional else None
    fields = {
        "name": "tiny",
        "data": Sprites(size=40, validation_size=8),
        "network": UNet(
            (3, 16, 16),
            3,
            ConditionShape(vector=4 if conditional else 0),
            channels=8,
            multipliers=(1,),
            blocks=1,
            attention_resolutions=(),
            dropout=dropout,
        ),
        "schedule": schedules.linear(),
        "prediction": EpsilonPrediction(),
        "objective": SimpleLoss(),
        "times": UniformTimes(),
        "sampler": Sampler(DDIM(), steps=4),
        "conditioning": conditioning,
        "autoencoder": None,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "callbacks": {
            "bad_numbers": BadNumbers(),
            "metrics": TrainingMetrics(every=2),
            "checkpoints": Checkpoints(every=2, keep=3),
            **(callbacks or {}),
        },
        "logger": none,
        "trainer": partial(Trainer, accelerator="cpu", devices=1),
        "seed": 0,
        "max_steps": 10,
        "batch_size": 8,
        "accumulate": 1,
        "precision": "fp32",
        "compile": False,
        "flip": True,
        "workers": 0,
        "validate_every": 1000,
        "validation_images": 8,
        "warmup_steps": 3,
        "lr_decay": "cosine",
        "gradient_clip": 1.0,
        "ema_decay": 0.99,
        "condition_dropout": 0.5,
        "learned_variance": False,
        "rank_timeout": 60,
        "metric": "validation/loss",
        "sweep": "run",
        "resume": False,
    }
    return DiffusionRecipe(**(fields | changes))

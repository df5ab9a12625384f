"""Scenes: sprites on backgrounds, drawn by code, large enough to need a latent."""

from unnoise.data.scenes.source import Scenes

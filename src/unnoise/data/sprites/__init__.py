"""Pixel-art sprites: drawn by code, or read from a sheet or the course file."""

from unnoise.data.sprites.drawings import CLASSES, COLOURS, KINDS
from unnoise.data.sprites.files import SpritesFile, SpriteSheet
from unnoise.data.sprites.source import Sprites

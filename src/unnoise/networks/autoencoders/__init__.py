"""Autoencoders: pictures to latents and back."""

from unnoise.networks.autoencoders.base import Autoencoder, Identity, Reconstruction
from unnoise.networks.autoencoders.convolutional import (
    DECODE_PIXELS,
    ConvolutionalAutoencoder,
    Latent,
)
from unnoise.networks.autoencoders.equivariance import Transform
from unnoise.networks.autoencoders.kl import KLAutoencoder, Posterior
from unnoise.networks.autoencoders.pretrained import from_diffusers, to_diffusers
from unnoise.networks.autoencoders.quantizers import FSQ, Codebook, Quantizer
from unnoise.networks.autoencoders.trained import Trained
from unnoise.networks.autoencoders.vq import VQAutoencoder

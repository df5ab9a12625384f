"""Models to diffusers and back, and models in one folder to hand on."""

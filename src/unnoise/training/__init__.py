"""Training with Lightning: the only code that knows Lightning and Weights & Biases."""

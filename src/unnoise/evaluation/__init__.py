"""How good drawn pictures are, in numbers with their uncertainty."""

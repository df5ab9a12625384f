"""Pictures: where they come from and in what order they are read."""

"""From what was typed to objects: composing, checking and building a configuration."""

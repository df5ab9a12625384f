"""Lines for a person who watches the terminal."""

import sys

from tqdm import tqdm


def say(text: str) -> None:
    """A line on stderr, above the progress bar."""
    tqdm.write(f"warning: {text}", file=sys.stderr)

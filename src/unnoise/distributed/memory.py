"""How this process gets its memory from the system."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_memory() -> None:
    """Keep what is freed for the next training step, which will ask for as much again.

    Without this, glibc gives large blocks back to the system at once, and the system clears them,
    page by page, when the next step asks for them. The process stays at its largest size. Where the
    C library is another one, nothing changes.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, -1)  # never

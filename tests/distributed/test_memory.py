import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
def step():
    kept = [torch.ones(2**19) for _ in range(32)]  # 2 MB each, freed together
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""
KEEP = "from unnoise.distributed.memory import keep_memory; keep_memory()\n"


GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # by itself glibc does so in some processes only


def page_faults(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | GIVES_BACK,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
def test_a_step_finds_the_memory_of_the_step_before():
    """Ten steps of 64 MiB, which are 163,840 small pages."""
    assert page_faults(KEEP + STEPS) < 10_000 < page_faults(STEPS)

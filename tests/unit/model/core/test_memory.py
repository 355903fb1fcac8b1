"""What a process does with freed memory, seen in processes of their own: it is set for a process as a whole."""

import ctypes
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
if "keep" in sys.argv:
    from model.core.memory import keep_freed_memory
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 * 1024**2)  # 64 MB: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min([faults() for _ in range(6)][3:]))  # a busy system may take a page away once
"""

# Every hundredth block stays, the last one among them: so glibc by itself keeps all that lies before it.
LOADING = """
import psutil
from model.core.memory import return_freed_memory
blocks = [bytes(10_000) for _ in range(10_000)]
kept = blocks[99::100]
del blocks
before = psutil.Process().memory_info().rss
return_freed_memory()
print((before - psutil.Process().memory_info().rss) / 1e6)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")


def printed(program: str, *arguments: str) -> float:
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return float(run.stdout)


def test_a_step_takes_no_new_memory_from_the_system():
    # Both are numbers of pages that the system hands out for a step like the one before it.
    assert 10 * printed(STEPS, "keep") < printed(STEPS)


def test_what_loading_has_freed_goes_back_to_the_system():
    assert printed(LOADING) > 40  # of 100 MB; blocks of 10 KB that stay hold on to pages of 4 KB beside them

"""What a training does with freed memory, seen in processes of their own: it is set for a process as a whole."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
if "keep" in sys.argv:
    from model.training.memory import keep_freed_memory
    keep_freed_memory()

def step():
    for _ in range(4):
        torch.ones(16 * 1024**2)  # 64 MB: more than glibc ever keeps by itself

step(), step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    """How many pages the system hands out for a step like the one before it."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_a_step_takes_no_new_memory_from_the_system():
    assert 10 * faults("keep") < faults()


def test_another_c_library_is_left_alone(monkeypatch):
    from model.training import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.keep_freed_memory()

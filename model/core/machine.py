"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_vcpus() -> int:
    """Return how many vCPUs this process may keep busy: the machine's, less what affinity and cgroup v2 withhold."""
    usable: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
        usable = min(usable, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroups of version 2, or the word "max"
        pass
    return max(1, math.ceil(usable))

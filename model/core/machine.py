"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def available_vcpus() -> int:
    """Return how many vCPUs this process may keep busy: the machine's, less what affinity and cgroups withhold."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(usable, _cgroup_cpus())))


def _cgroup_cpus() -> float:
    """Return the CPU quota of the container in CPUs, infinity without one."""
    try:
        if _CGROUP_LIMIT.exists():
            quota, period = _CGROUP_LIMIT.read_text().split()
        else:
            quota, period = ((_CGROUP_V1 / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf  # version 1 says -1 where there is none
    except (OSError, ValueError):  # no cgroups, or version 2's word "max"
        return math.inf

"""What a process may use of its machine: the least of what the machine, affinity and the cgroups around it allow."""

import os

import pytest

from model.core import machine
from model.core.machine import available_vcpus, memory_bytes

UNIFIED, VERSION_1 = "0::/docker/1/worker", "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n0::/"
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Write the membership (None: no Linux) and the files of the cgroups."""

    def write(membership, files):
        monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "cgroup")
        monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "sys")
        if membership is not None:
            (tmp_path / "cgroup").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (None, {}, 64),
        (UNIFIED, {"cpu.max": "max 100000\n"}, 64),
        (UNIFIED, {"cpu.max": "150000 100000\n"}, 2),  # a container sees its own cgroup as the root
        (UNIFIED, {"cpu.max": "1000 100000\n"}, 1),
        (UNIFIED, {"cpu.max": "garbage"}, 64),
        (UNIFIED, {"docker/cpu.max": "300000 100000\n", "docker/1/worker/cpu.max": "max 100000\n"}, 3),
        (VERSION_1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        (VERSION_1, {"cpu/docker/1/cpu.cfs_quota_us": "250000", "cpu/docker/1/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_vcpus_are_those_that_affinity_and_cgroups_leave(cgroups, monkeypatch, membership, files, expected):
    cgroups(membership, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert available_vcpus() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert available_vcpus() == 1


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (None, {}, PHYSICAL),
        (UNIFIED, {"memory.max": "max\n"}, PHYSICAL),
        (UNIFIED, {"memory.max": "1048576\n"}, 2**20),
        (UNIFIED, {"docker/1/memory.max": "4096\n", "docker/1/worker/memory.max": "8192\n"}, 4096),
        (VERSION_1, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, PHYSICAL),  # no limit
        (VERSION_1, {"memory/memory.limit_in_bytes": "8192\n", "memory/docker/1/memory.limit_in_bytes": "4096"}, 4096),
    ],
)
def test_memory_is_the_machines_or_what_the_cgroups_leave_of_it(cgroups, membership, files, expected):
    cgroups(membership, files)
    assert memory_bytes() == expected

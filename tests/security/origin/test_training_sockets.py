"""The workers of one training meet in a store that asks nobody who they are: only their own machine may reach it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
from training_fixtures import FAST, write_data_set
from training_job import Job

from emulator.platform.settings import free_port

FOREVER = [*FAST, "--epochs", "10000", "--num-gpus", "0"]


def listening(process: subprocess.Popen[str]) -> set[tuple[str, str]]:
    """Return which parts of a training listen where: pairs of launcher or worker and address."""
    launcher = psutil.Process(process.pid)
    return {
        ("launcher" if part == launcher else "worker", connection.laddr.ip)
        for part in [launcher, *launcher.children(recursive=True)]
        for connection in part.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.parametrize("hosts", [["algo-1"], ["algo-1", "algo-2"]])
def test_workers_meet_at_the_address_of_the_first_host_only(hosts: list[str], tmp_path: Path) -> None:
    """On one machine that is the loopback interface, where several hosts meet the address that they are given."""
    data, together = write_data_set(tmp_path / "sample"), ["--processes-per-host", "2"]
    if len(hosts) > 1:
        together = ["--hosts", json.dumps(hosts), "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    jobs = {host: Job(tmp_path / host, data) for host in hosts}
    processes = [job.start(*FOREVER, *together, "--current-host", host) for host, job in jobs.items()]
    try:
        assert processes[0].stdout is not None
        assert processes[0].stdout.readline().startswith("epoch=1 ")
        assert listening(processes[0]) == {("launcher", "127.0.0.1"), ("worker", "127.0.0.1")}
        assert all(listening(process) == {("worker", "127.0.0.1")} for process in processes[1:])
    finally:
        for process in processes:
            process.kill()  # the workers end with their launcher
            process.communicate(timeout=60)

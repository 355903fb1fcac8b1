"""The workers of one training meet in a store that asks nobody who they are: only their own machine may reach it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest
from training_fixtures import FAST, write_data_set
from training_job import Job

from emulator.platform.programs import free_port

FOREVER = [*FAST, "--epochs", "10000", "--num-gpus", "0"]
ONE_MACHINE = ["--processes-per-host", "2"]


def first_epoch(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch=1 ")


def end(process: subprocess.Popen[str]) -> None:
    process.kill()  # the workers end with their launcher
    process.communicate(timeout=60)


def listening(process: subprocess.Popen[str]) -> set[tuple[str, str]]:
    """Return which parts of a training listen where: pairs of launcher or worker and address."""
    launcher = psutil.Process(process.pid)
    return {
        ("launcher" if part == launcher else "worker", connection.laddr.ip)
        for part in [launcher, *launcher.children(recursive=True)]
        for connection in part.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    data = write_data_set(tmp_path / "sample")
    return [Job(tmp_path / name, data) for name in ("algo-1", "algo-2")]


def test_workers_on_one_machine_listen_on_the_loopback_interface_only(jobs: list[Job]) -> None:
    process = jobs[0].start(*FOREVER, *ONE_MACHINE)
    try:
        first_epoch(process)
        assert listening(process) == {("launcher", "127.0.0.1"), ("worker", "127.0.0.1")}
    finally:
        end(process)


def test_hosts_that_meet_at_an_address_listen_on_that_address_only(jobs: list[Job]) -> None:
    together = ["--hosts", '["algo-1", "algo-2"]', "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    processes = [job.start(*FOREVER, *together, "--current-host", job.code.parent.name) for job in jobs]
    try:
        first_epoch(processes[0])
        assert listening(processes[0]) == {("launcher", "127.0.0.1"), ("worker", "127.0.0.1")}
        assert listening(processes[1]) == {("worker", "127.0.0.1")}
    finally:
        for process in processes:
            end(process)

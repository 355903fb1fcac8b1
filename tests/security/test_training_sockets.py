"""Trainings of several workers open no door to the network: who reaches their store can steer and end them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from training_fixtures import FAST, write_data_set

from cli.aws import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


@contextmanager
def training(folder: Path, data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a training that would go on for ever."""
    options = [*FAST, "--epochs", "10000", "--num-gpus", "0", *arguments]
    for name, place in (("data", data), ("model", folder / "model"), ("output-data", folder / "output")):
        options += [f"--{name}-dir", str(place)]
    process = subprocess.Popen(
        [sys.executable, "-m", "model.train", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()  # the workers end with their launcher
        process.communicate(timeout=60)


def listening(process: subprocess.Popen[str]) -> set[tuple[str, str]]:
    """Return which parts of a training listen where: pairs of launcher or worker and address."""
    launcher = psutil.Process(process.pid)
    found = set()
    for part in [launcher, *launcher.children(recursive=True)]:
        for connection in part.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(("launcher" if part == launcher else "worker", connection.laddr.ip))
    return found


def test_workers_on_one_machine_listen_on_the_loopback_interface_only(data: Path, tmp_path: Path) -> None:
    with training(tmp_path, data, "--processes-per-host", "2") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch=1 ")
        assert listening(process) == {("launcher", "127.0.0.1"), ("worker", "127.0.0.1")}


def test_hosts_that_meet_at_an_address_listen_on_that_address_only(data: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hosts = ["algo-1", "algo-2"]
    together = ["--hosts", json.dumps(hosts), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(training(tmp_path / host, data, *together, "--current-host", host)) for host in hosts
        )
        assert first.stdout is not None
        assert first.stdout.readline().startswith("epoch=1 ")
        assert listening(first) == {("launcher", "127.0.0.1"), ("worker", "127.0.0.1")}
        assert listening(second) == {("worker", "127.0.0.1")}

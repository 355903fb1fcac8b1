"""``python -m emulator``, as a person without this project's command line uses it."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from emulator.ministack import configuration
from emulator.platform.settings import free_port


def emulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_up_env_status_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, port = ("--state-dir", str(tmp_path / "state")), free_port()
    try:
        up = emulator("up", *state, "--port", str(port))
        assert (up.returncode, up.stderr) == (0, "")
        assert f"http://127.0.0.1:{port}" in up.stdout
        for line in emulator("env", *state).stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value.strip("'"))
        assert boto3.Session().client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"
        assert str(port) in emulator("status", *state).stdout
        again = emulator("up", *state, "--port", str(free_port()))
        assert again.returncode == 1
        assert again.stderr.startswith(f"The local AWS is already running on port {port}")
    finally:
        assert emulator("down", *state).returncode == 0
    assert emulator("status", *state).returncode == 1
    assert emulator("down", *state).returncode == 0  # a second time is no mistake


@pytest.mark.parametrize(("command", "port"), [("env", None), *itertools.product(("up", "serve"), ("99999", "taken"))])
def test_what_cannot_be_done_is_one_line(tmp_path: Path, command: str, port: str | None) -> None:
    """There is no server, no such port, or the port is another's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if port == "taken" else port
        done = emulator(command, "--state-dir", str(tmp_path), *(["--port", port] if port else []))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and (port or str(tmp_path)) in done.stderr


def test_another_version_of_ministack_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration.check_version()
    monkeypatch.setattr(configuration, "version", lambda name: "9.9.9")
    with pytest.raises(configuration.ContractError, match=r"MiniStack 9\.9\.9 is installed.*ministack==1\.5\.33"):
        configuration.check_version()

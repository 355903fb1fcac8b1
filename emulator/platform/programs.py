"""How the programs of containers and machines are run without either: environment, ports, exit codes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from emulator.platform import settings


def base_environment(temporary: Path) -> dict[str, str]:
    """Make what every program finds: our interpreter first on the path, and nothing of the server's environment."""
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    return settings.clean_environment(path, temporary) | {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def describe_exit(status: int) -> str:
    """Say in words how a program ended; `status` as in `subprocess.Popen.returncode`."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # real-time signals have no names of their own
        return f"was ended by signal {-status}"


def free_port() -> int:
    """Find a port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

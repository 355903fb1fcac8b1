"""What is fixed about the local AWS; how programs run without containers: their environment, ports, exit codes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

ACCOUNT = "000000000000"
REGION = "us-east-1"
BIND_HOST = "127.0.0.1"

#: Passed on from the environment that starts the server; nothing else is, because Lambda functions inherit it.
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV", "NODE_PATH")


def clean_environment(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """Choose what a program needs of an environment: no credentials, profiles, proxies or Python settings.

    `temporary` is where temporary files go, and the home folder, so that nobody's ``~/.aws`` is read.
    """
    scripts = str(Path(sys.executable).parent)  # the interpreter and the programs of this environment come first
    path = ":".join(dict.fromkeys([scripts, *environ.get("PATH", "/usr/bin:/bin").split(":")]))
    clean = {name: environ[name] for name in _INHERITED if name in environ}
    return {**clean, "PATH": path, "TMPDIR": str(temporary), "HOME": str(temporary)}


def base_environment(temporary: Path) -> dict[str, str]:
    """Make what every program finds: our interpreter first on the path, and nothing of the server's environment."""
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    return clean_environment(path, temporary) | {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


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
        return int(probe.getsockname()[1])

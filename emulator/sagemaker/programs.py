"""How the programs of containers are run without containers: environment, folders, exit codes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

from emulator.host import Host

#: A socket's path may have about 105 characters, of which Python's multiprocessing takes up to 45 for itself.
_LONGEST_TEMPORARY = 60


class Folders:
    """Where SageMaker keeps what outlives the server, and what does not.

    Attributes
    ----------
    root
        Durable, below the state directory.
    """

    def __init__(self, host: Host) -> None:
        self.root = host.state_dir / "sagemaker"
        self._temporary = host.state_dir / "tmp" / "sm"
        if len(str(self._temporary)) > _LONGEST_TEMPORARY:
            # Named after the state directory, so that the next server finds what a killed one left.
            identity = hashlib.sha256(str(host.state_dir.resolve()).encode()).hexdigest()[:12]
            self._temporary = Path("/tmp") / f"sagemaker-{identity}"  # noqa: S108 - made with mode 0700 below

    def temporary(self) -> Path:
        """A new, empty folder for one program, with a path that is short enough for sockets."""
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._temporary, prefix=""))

    def remove_temporary(self) -> None:
        """Remove the temporary folders of all programs, those of a killed server included."""
        shutil.rmtree(self._temporary, ignore_errors=True)


def base_environment(temporary: Path) -> dict[str, str]:
    """What every program finds: our interpreter first on the path, and nothing of the environment of the server."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def describe_exit(status: int) -> str:
    """Say in words how a program ended; `status` as in `subprocess.Popen.returncode`."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

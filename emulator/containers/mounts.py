"""A folder at /opt/ml, for one program only, where the machine allows it: Linux, for root and for most users.

Elsewhere (macOS, a container without these rights) /opt/ml is replaced in the texts that lead to it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

OPT_ML = "/opt/ml"
_PROGRAM = Path(__file__).with_name("mount.sh")


@functools.cache
def available() -> bool:
    """Try it."""
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [str(_PROGRAM), folder, "test", "-d", OPT_ML]
        return subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL, check=False).returncode == 0


def seen(folder: Path) -> Path:
    """Where a program finds the folder that stands for /opt/ml."""
    return Path(OPT_ML) if available() else folder


def command_in(folder: Path, command: Sequence[str]) -> list[str]:
    """Make the command that runs another one with the folder at /opt/ml; it is to be started in or below the folder."""
    return [*([str(_PROGRAM), str(folder)] if available() else ()), *command]

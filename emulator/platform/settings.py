"""What is fixed about the local AWS, and the environment that its programs get."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

ACCOUNT = "000000000000"
REGION = "us-east-1"
BIND_HOST = "127.0.0.1"

#: Passed on from the environment that starts the server; nothing else is, because Lambda functions inherit it.
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV")


def clean_environment(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """Choose what a program needs of an environment: no credentials, profiles, proxies or Python settings.

    `temporary` is where temporary files go, and the home folder, so that nobody's ``~/.aws`` is read.
    """
    scripts = str(Path(sys.executable).parent)  # the interpreter and the programs of this environment come first
    path = ":".join(dict.fromkeys([scripts, *environ.get("PATH", "/usr/bin:/bin").split(":")]))
    clean = {name: environ[name] for name in _INHERITED if name in environ}
    return {**clean, "PATH": path, "TMPDIR": str(temporary), "HOME": str(temporary)}

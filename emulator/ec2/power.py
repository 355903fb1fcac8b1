"""``shutdown`` and its kin, for programs that believe to have a machine of their own.

They are found first on an instance's path and do nothing but write down how they were called; whoever runs the instance
reads that and ends the instance in place of the machine.
"""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

COMMANDS = ("shutdown", "poweroff", "halt", "reboot", "systemctl", "init", "telinit")
_NOW = ("poweroff", "halt")
#: Any way to reach the machine's own commands: none of them may be called by a path.
_BY_PATH = re.compile(rf"/s?bin/({'|'.join(COMMANDS)})\b|/proc/sysrq-trigger|\bsudo\b")


def dangerous(script: str) -> str | None:
    """What in a script would reach the power switch of this machine, past the commands that stand in for it."""
    match = _BY_PATH.search(script)
    return match[0] if match else None


def install(folder: Path, calls: Path) -> None:
    """Put the commands into a folder; the file `calls` gets a line for every call: the command and its arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(calls))}\n')
        path.chmod(0o755)


class PowerSwitch:
    """When an instance is to be shut down, from the calls that its programs have made (see `install`)."""

    def __init__(self, calls: Path) -> None:
        self._calls = calls
        self._read = 0
        self._due: float | None = None

    def pressed(self) -> bool:
        """Whether the time has come."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        for line in lines[self._read :]:
            self._due = _due(line.split(), self._due)
        self._read = len(lines)
        return self._due is not None and time.monotonic() >= self._due


def _due(words: list[str], due: float | None) -> float | None:
    """When the machine goes down after a call, given when it would have gone down before."""
    command, arguments = words[0], words[1:]
    if command in _NOW or (command == "systemctl" and any(name in arguments for name in _NOW)):
        return time.monotonic()
    if command in ("init", "telinit"):
        return time.monotonic() if "0" in arguments else due
    if command != "shutdown" or any(argument in ("-r", "--reboot") for argument in arguments):
        return due  # a restart brings the same instance back: there is nothing to do
    if "-c" in arguments:
        return None
    moment = next((argument for argument in arguments if not argument.startswith("-")), "+1")  # as systemd has it
    if moment == "now":
        return time.monotonic()
    minutes = moment.removeprefix("+")
    if minutes.isdecimal():
        return time.monotonic() + 60 * int(minutes)
    try:
        clock = time.strptime(moment, "%H:%M")
    except ValueError:
        return due  # as systemd's refuses it
    now = time.localtime()
    return time.monotonic() + ((clock.tm_hour - now.tm_hour) * 60 + clock.tm_min - now.tm_min) % 1440 * 60

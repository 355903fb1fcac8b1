"""``shutdown`` and similar commands, for programs that believe to have a machine of their own.

They are found first on an instance's path and only write down how they were called; `PowerSwitch` reads that, and the
instance ends in place of the machine.
"""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

COMMANDS = ("shutdown", "poweroff", "halt", "reboot", "systemctl", "init", "telinit")
#: Any way to reach the machine's own commands: none of them may be called by a path.
_BY_PATH = re.compile(rf"/s?bin/({'|'.join(COMMANDS)})\b|/proc/sysrq-trigger|\bsudo\b")


def dangerous(script: str) -> str | None:
    """What in a script would reach the power switch of this machine, past the commands that stand in for it."""
    match = _BY_PATH.search(script)
    return match[0] if match else None


class PowerSwitch:
    """When an instance is to be shut down, from the calls of its programs of the commands that it puts into `folder`.

    The file `calls` gets a line for every call: the command and its arguments.
    """

    def __init__(self, folder: Path, calls: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(calls))}\n')
            (folder / name).chmod(0o755)
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
    now = time.monotonic()
    match words:
        case ["poweroff" | "halt", *_] | ["systemctl", *_, "poweroff" | "halt"] | ["init" | "telinit", "0"]:
            return now
        case ["shutdown", *arguments] if "-c" in arguments:
            return None
        case ["shutdown", *arguments] if not {"-r", "--reboot"} & {*arguments}:
            moment = next((argument for argument in arguments if not argument.startswith("-")), "+1")
            minutes = "0" if moment == "now" else moment.removeprefix("+")
            return now + 60 * int(minutes) if minutes.isdecimal() else due  # by a time of day nothing is done here
    return due  # a restart brings the same instance back

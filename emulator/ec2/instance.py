"""One running instance: its user data as a process, its metadata, its console and its power switch."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from emulator.ec2.metadata import InstanceRole, MetadataService
from emulator.platform.host import Host
from emulator.platform.processes import signal_group
from emulator.platform.settings import base_environment, describe_exit

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
#: A machine that is shut down gives its programs about a minute and a half; the server that ends cannot wait so long.
_SHUTDOWN_GRACE_SECONDS = 8.0
#: What GetConsoleOutput returns at most.
_CONSOLE_BYTES = 64 * 1024
#: What `shutdown` is called with, unless it takes a call back: a time that can be read, or none. As systemd's says it.
_TIME_CHECK = """case " $* " in *" -c "*) ;; *)
    moment=$(printf '%s\\n' "$@" | grep -v '^-' | head -n 1)
    printf '%s\\n' "${moment:-now}" | grep -Eqx 'now|[+]?[0-9]+|([01]?[0-9]|2[0-3]):[0-5]?[0-9]' || {
        echo "Failed to parse time specification: $moment" >&2
        exit 1
    }
esac
"""
_POWER_COMMANDS = ("shutdown", "poweroff", "halt", "reboot", "systemctl", "init", "telinit")
#: Any way to reach the machine's own commands: none of them may be called by a path.
_BY_PATH = re.compile(rf"/s?bin/({'|'.join(_POWER_COMMANDS)})\b|/proc/sysrq-trigger|\bsudo\b")


@dataclass(frozen=True)
class LaunchedInstance:
    """What an instance was launched with."""

    instance_id: str
    instance_type: str
    region: str
    user_data: str = ""  # in base64, as EC2 takes it
    role: InstanceRole = None
    tags: Callable[[], Mapping[str, str]] | None = None  # None when the metadata have no tags
    entries: Mapping[str, str] = field(default_factory=dict)  # more of the metadata

    def metadata(self) -> Mapping[str, str]:
        tags = self.tags() if self.tags is not None else {}
        return {
            "instance-id": self.instance_id,
            "instance-type": self.instance_type,
            "local-ipv4": "127.0.0.1",
            "placement/region": self.region,
            "placement/availability-zone": f"{self.region}a",
            **self.entries,
            **{f"tags/instance/{key}": value for key, value in tags.items()},
        }


class PowerSwitch:
    """Puts ``shutdown`` and similar commands into `folder`, which an instance's programs find first on their path.

    They only write down in the file `calls` how they were called. The instance ends in place of the machine.
    """

    def __init__(self, folder: Path, calls: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _POWER_COMMANDS:
            check = _TIME_CHECK if name == "shutdown" else ""
            (folder / name).write_text(f'#!/bin/sh\n{check}echo "{name} $*" >> {shlex.quote(str(calls))}\n')
            (folder / name).chmod(0o755)
        self._calls = calls
        self._read = 0
        self._due: float | None = None

    def pressed(self) -> bool:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        for line in lines[self._read :]:
            self._due = _due(line.split(), self._due)
        self._read = len(lines)
        return self._due is not None and time.monotonic() >= self._due


def _due(words: list[str], due: float | None) -> float | None:
    """When the machine goes down after a call, given when it would have gone down before."""
    now = time.monotonic()
    match words:
        case ["poweroff" | "halt", *_] | ["init" | "telinit", "0"]:
            return now
        case ["systemctl", *arguments] if {"poweroff", "halt"} & {*arguments}:
            return now
        case ["shutdown", *arguments] if "-c" in arguments:
            return None
        case ["shutdown", *arguments] if not {"-r", "--reboot"} & {*arguments}:
            moment = next((argument for argument in arguments if not argument.startswith("-")), "+1")
            if ":" in moment:
                clock, today = time.strptime(moment, "%H:%M"), time.localtime()
                return now + ((clock.tm_hour - today.tm_hour) * 60 + clock.tm_min - today.tm_min) % 1440 * 60
            return now if moment == "now" else now + 60 * int(moment)
    return due  # a restart brings the same instance back


class InstanceRun:
    """Runs an instance until it is ended or shuts *itself* down; then, and only then, `ended` is called."""

    def __init__(self, host: Host, instance: LaunchedInstance, ended: Callable[[], None]) -> None:
        self._host = host
        self._instance = instance
        self._ended = ended
        self._folder = host.folder / instance.instance_id
        self._console = _console(host, instance.instance_id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=instance.instance_id, daemon=True)
        self.start, self.join = self._thread.start, self._thread.join

    def stop(self) -> None:
        """End everything that runs there, as a power cut with a few seconds' notice."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Whether the instance runs, its user data may long be done."""
        return self._thread.is_alive()

    def _run(self) -> None:
        metadata = MetadataService(self._instance.metadata, self._instance.role)
        try:
            pressed = self._boot(metadata.url)
        except Exception:
            logger.exception("instance %s", self._instance.instance_id)
            pressed = False
        finally:
            metadata.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        if pressed and not self._stop.is_set():  # it may have been ended while it shut down
            self._ended()

    def _boot(self, metadata_url: str) -> bool:
        """Run the user data and wait; whether the instance has shut itself down."""
        home, calls = self._folder / "root", self._folder / "power-calls"
        home.mkdir(mode=0o700, parents=True)
        temporary = self._host.temporary_folder()
        commands = self._folder / "bin"
        switch = PowerSwitch(commands, calls)
        # Programs that outlive the user data go on writing there, after what `_say` has appended.
        with self._console.open("ab") as console:
            process = self._start(home, temporary, commands, metadata_url, console)
        try:
            status: int | None = None
            while not self._stop.wait(_POLL_SECONDS):
                if switch.pressed():
                    return True
                if process is not None and status is None and (status := process.poll()) is not None:
                    self._say(f"user data {describe_exit(status)}")
            return False
        finally:
            if process is not None:
                self._shut_down(process)
            shutil.rmtree(temporary, ignore_errors=True)

    def _shut_down(self, process: subprocess.Popen[bytes]) -> None:
        """End all programs as systemd does: SIGTERM to each, and SIGKILL to those that are left after a while."""
        signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _SHUTDOWN_GRACE_SECONDS
        while time.monotonic() < deadline and (process.poll() is None or signal_group(process.pid, 0)):
            time.sleep(_POLL_SECONDS)
        self._host.processes.terminate(process, 0.0)

    def _start(
        self, home: Path, temporary: Path, commands: Path, metadata_url: str, console: IO[bytes]
    ) -> subprocess.Popen[bytes] | None:
        script = _decoded(self._instance.user_data)
        if not script.startswith("#!"):
            self._say("user data that is no script: nothing is run")
            return None
        if reached := _BY_PATH.search(script):
            # The user's machine is not ours to switch off.
            self._say(f"user data that reaches past the instance is not run here: {reached[0]}")
            return None
        path = home / "user-data"
        path.write_text(script)
        path.chmod(0o700)
        base = base_environment(temporary)
        environment = base | {
            "HOME": str(home),
            "PATH": f"{commands}:{base['PATH']}",
            "AWS_ENDPOINT_URL": self._host.endpoint_url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url,
        }
        try:
            return self._host.processes.spawn(
                [str(path)], cwd=home, env=environment, stdout=console, stderr=subprocess.STDOUT
            )
        except OSError as error:  # such as an interpreter that is not there
            self._say(f"user data that cannot be started: {error.strerror}")
            return None

    def _say(self, text: str) -> None:
        # An instance does not depend on whether somebody reads along: the disk may be full.
        with contextlib.suppress(OSError), self._console.open("ab", buffering=0) as console:
            console.write(f"[local AWS] {text}\n".encode())


def console_output(host: Host, instance_id: str) -> bytes:
    """The end of what an instance has printed, also after its end."""
    path = _console(host, instance_id)
    return path.read_bytes()[-_CONSOLE_BYTES:] if path.exists() else b""


def remove_leftovers(host: Host) -> None:
    """Remove the folders of instances whose server was killed; what they have printed stays."""
    for folder in host.folder.glob("i-*/"):
        shutil.rmtree(folder, ignore_errors=True)


def _console(host: Host, instance_id: str) -> Path:
    return host.folder / f"{instance_id}.console"


def _decoded(text: str) -> str:
    """User data as the instance sees it; empty when it is not text in base64."""
    try:
        return base64.b64decode(text, validate=False).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""

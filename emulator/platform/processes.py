"""The programs that the local AWS starts, and the promise that none of them outlives it.

Every program is the leader of a session of its own, so that one signal reaches what it starts in turn, and is recorded
on disk before `ProcessRegistry.spawn` returns. When the server is killed, its *watchdog* (a small process that waits
for the end of the server) ends them; should that be killed as well, the next ``up`` or ``down`` finds the records.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

logger = logging.getLogger(__name__)

#: What `subprocess.Popen` accepts for a stream, less pipes to text.
Stream = int | IO[bytes] | None

#: The signal that only asks whether there is a process to receive it.
_PROBE = 0
_POLL_SECONDS = 0.02
_CLOCK_TOLERANCE_SECONDS = 2.0


def process_started(pid: int) -> float | None:
    """Say when a process was started (compare by `same_process`); None when there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def same_process(started: float | None, recorded: float | None) -> bool:
    """Say whether two answers of `process_started` speak of one process; the system clock may have been adjusted."""
    return started is not None and recorded is not None and abs(started - recorded) < _CLOCK_TOLERANCE_SECONDS


def signal_group(pgid: int, number: int) -> bool:
    """Send a signal to a process group; return False when the group has no member any more."""
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):  # the latter is macOS's word for a group of zombies
        return False
    return True


def signal_first_process(pid: int, number: int) -> None:
    """Send a signal to a program as to the first process of a container.

    Nothing else in the container gets it, and the kernel drops it where the program has no handler for it.
    """
    status = Path(f"/proc/{pid}/status")
    # Without /proc (macOS) nobody can tell: the signal is then sent, and ends a program without a handler.
    caught = re.search(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE) if status.exists() else None
    if caught is None or int(caught[1], 16) >> (number - 1) & 1:
        os.kill(pid, number)


class ProcessRegistry:
    """Starts programs and ends them with everything that they started.

    The folder `records` has one file per running program, named by its pid, with the time of its start.
    """

    def __init__(self, records: Path) -> None:
        self._records = records
        self._records.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._closed = False

    def spawn(
        self,
        args: Sequence[str],
        *,
        cwd: Path | str,
        env: Mapping[str, str],
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program as the leader of a new session and record it; a RuntimeError when the server shuts down."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the local AWS is shutting down")
            process = subprocess.Popen(
                args,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                umask=0o022,  # as in a container: the modes of its files are in the archives that it leaves
            )
            try:
                self._record(process)
            except OSError:
                signal_group(process.pid, signal.SIGKILL)  # nobody would find it when the server is killed
                process.wait()
                raise
            return process

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Record a program that something else started as the leader of a new session."""
        with self._lock:
            self._record(process)

    def terminate(
        self, process: subprocess.Popen[bytes], grace_seconds: float, ask: Callable[[int], object] | None = None
    ) -> int:
        """End a program and all that it started: SIGTERM, then SIGKILL after the grace; return its exit status.

        `ask` is called with the program's pid in place of sending SIGTERM to its whole group.
        """
        descendants: list[psutil.Process] = []
        if process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendants = psutil.Process(process.pid).children(recursive=True)
            if ask is None:
                signal_group(process.pid, signal.SIGTERM)
            else:
                ask(process.pid)
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                logger.warning("process %d did not end in %.0f s: killing it", process.pid, grace_seconds)
        signal_group(process.pid, signal.SIGKILL)  # also what the program left behind in its group
        for descendant in descendants:  # torchrun's workers lead sessions of their own
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
        status = process.wait()
        with self._lock:
            self._forget(process.pid)
        return status

    def close(self, grace_seconds: float = 5.0) -> None:
        """End all that still runs at once, and start nothing any more."""
        with self._lock:
            self._closed = True
            remaining = list(self._running.values())
        for process in remaining:
            if process.poll() is None:
                signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for process in remaining:
            self.terminate(process, max(0.0, deadline - time.monotonic()))

    def _record(self, process: subprocess.Popen[bytes]) -> None:
        for pid, other in list(self._running.items()):
            # A group whose leader ended may still have members.
            if other.poll() is not None and not signal_group(pid, _PROBE):
                self._forget(pid)
        path = self._records / str(process.pid)
        path.with_suffix(".tmp").write_text(json.dumps(process_started(process.pid)))
        path.with_suffix(".tmp").replace(path)
        self._running[process.pid] = process

    def _forget(self, pid: int) -> None:
        self._running.pop(pid, None)
        (self._records / str(pid)).unlink(missing_ok=True)


def reap(records: Path, grace_seconds: float = 2.0) -> list[int]:
    """End the programs that a server which is gone had recorded; return the pids of their groups' leaders."""
    orphans = []
    for path in records.glob("*"):
        if path.name.isdigit():
            pid, now = int(path.name), process_started(int(path.name))
            # Where another process has the pid, the group is gone: the kernel gives no pid away that is still the id
            # of a group.
            same = now is None or same_process(now, json.loads(path.read_text()))
            if same and signal_group(pid, signal.SIGTERM):
                orphans.append(pid)
                continue
        path.unlink(missing_ok=True)
    deadline = time.monotonic() + grace_seconds
    for pid in orphans:
        while signal_group(pid, _PROBE) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        signal_group(pid, signal.SIGKILL)
        (records / str(pid)).unlink(missing_ok=True)
    return orphans


def start_watchdog(records: Path) -> subprocess.Popen[bytes]:
    """Start the process that ends the registry's programs when this one dies; closing its ``stdin`` lets it go.

    It reads a pipe that nobody writes to: the read ends when the last holder of the other end, this process, is gone.
    """
    return subprocess.Popen(
        [sys.executable, "-P", __file__, str(records)],  # it needs nothing of the package
        stdin=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        start_new_session=True,
    )


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if found := reap(Path(sys.argv[1])):
        logger.warning("the server died: ended the processes that it had started: %s", found)

"""Starting, stopping and finding a local AWS, for command lines and tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.containers import mounts
from emulator.platform import settings
from emulator.platform.conditions import Conditions
from emulator.platform.processes import reap
from emulator.platform.running.layout import StateDir, StateError, listening
from emulator.quotas.service import QuotaError, Quotas

_POLL_SECONDS = 0.02
_START_SECONDS = 60.0
#: Endpoints and training jobs get their grace within this.
_STOP_SECONDS = 20.0
_LITTLE_SPACE_BYTES = 64 * 2**20
_LOG_TAIL_LINES = 15
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
#: Where this package lies: in a checkout, or among installed packages, which come after the standard library.
_ROOT = Path(__file__).resolve().parents[3]
_SERVE = "import sys; sys.path.append(sys.argv.pop(1)); from emulator.__main__ import main; sys.exit(main())"


class LocalAwsError(RuntimeError):
    """The local AWS cannot be started, stopped or used; the message is for a person."""


class AlreadyRunningError(LocalAwsError):
    """A local AWS runs on this state folder; `status` is that of the one that runs."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Status:
    """A local AWS that answers."""

    endpoint_url: str
    port: int
    pid: int
    state_dir: Path

    @property
    def warning(self) -> str | None:
        """What a person should know although it answers, None when there is nothing."""
        return _little_space(self.state_dir)


def up(state_dir: Path, port: int = 4566, conditions: Conditions | None = None) -> Status:
    """Start a local AWS on 127.0.0.1 in the background and wait until it answers; a LocalAwsError says why not."""
    place = StateDir(state_dir)
    conditions = conditions or Conditions()
    try:
        Quotas(conditions.quotas)
        place.prepare()
        if (running := status(state_dir)) is not None:
            raise AlreadyRunningError(
                f"The local AWS is already running on port {running.port} (process {running.pid}).", running
            )
        with listening(port):
            pass  # it is free
    except (StateError, QuotaError) as error:
        raise LocalAwsError(str(error)) from None
    if place.log.exists() and place.log.stat().st_size > _LOG_LIMIT_BYTES:
        place.log.replace(place.log.with_suffix(".log.1"))
    options = [f"--state-dir={place.root}", f"--port={port}", f"--conditions={conditions.to_json()}"]
    place.log.touch(mode=0o600)
    with place.log.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(_ROOT), "serve", *options],
            cwd=place.root,
            env=settings.clean_environment(os.environ, place.temporary),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        running = status(state_dir)
        if running is not None and running.pid == server.pid:
            return running
        if server.poll() is not None:
            raise LocalAwsError(f"The local AWS did not start:\n{_end_of_log(place)}")
        time.sleep(_POLL_SECONDS)
    down(state_dir)
    raise LocalAwsError(f"The local AWS did not answer within {_START_SECONDS:.0f} s:\n{_end_of_log(place)}")


def down(state_dir: Path) -> None:
    """Stop the local AWS and everything that it started; only tidy up when it does not run."""
    place = StateDir(state_dir)
    server = place.server()
    if server is not None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
            deadline = time.monotonic() + _STOP_SECONDS
            while server.alive() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if not server.alive():
                break
        else:
            raise LocalAwsError(f"The local AWS (process {server.pid}) does not end.")
    reap(place.processes)
    place.withdraw()


def status(state_dir: Path) -> Status | None:
    """Find the local AWS that answers for a state folder, None when there is none."""
    place = StateDir(state_dir)
    server = place.server()
    if server is None or server.port is None:
        return None
    return Status(f"http://127.0.0.1:{server.port}", server.port, server.pid, place.root)


def environment(state_dir: Path) -> dict[str, str]:
    """Make the variables that point the AWS tools and SDKs at the local AWS that runs, as its administrator."""
    if (running := status(state_dir)) is None:
        raise LocalAwsError(f"The local AWS is not running (state folder {state_dir}).")
    credentials = StateDir(state_dir).credentials()
    return {
        "AWS_ENDPOINT_URL": running.endpoint_url,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_REGION": settings.REGION,
        "AWS_DEFAULT_REGION": settings.REGION,
    }


def notebook(state_dir: Path, role: str, program: Sequence[str]) -> int:
    """Run a program as on a notebook instance, where files spare SageMaker's SDK asking AWS's STS; its exit status."""
    folder, variables = StateDir(state_dir).root / "notebook", environment(state_dir)
    if not mounts.available():
        raise LocalAwsError("A notebook's role is in a file below /opt/ml, which this machine cannot mount: use Linux.")
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "metadata/resource-metadata.json").write_text(json.dumps({"ExecutionRoleArn": role}))
    session = {"DefaultS3Bucket": f"sagemaker-{settings.REGION}-{settings.ACCOUNT}"}
    modules, config = {"TelemetryOptOut": True, "Session": session}, folder / "sagemaker.yaml"  # JSON is YAML
    config.write_text(json.dumps({"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}))
    command = mounts.command_in(folder, ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(Path.cwd()), *program])
    given = {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(config), **os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=given, check=False).returncode


def log_path(state_dir: Path) -> Path:
    return StateDir(state_dir).log


def _little_space(folder: Path) -> str | None:
    free = shutil.disk_usage(folder).free
    if free >= _LITTLE_SPACE_BYTES:
        return None
    return (
        f"Only {free / 2**20:.0f} MB are left on the disk of {folder}. When it is full, requests that change something "
        "fail, jobs that end wait, and lines are missing in their log files: make room."
    )


def _end_of_log(place: StateDir) -> str:
    """The last lines, and what may have kept others out of it."""
    lines = place.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join([*lines, *filter(None, [_little_space(place.root)])])

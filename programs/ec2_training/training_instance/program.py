"""Fetch, train, upload, report. The user data shuts the instance down when this ends, however it ends."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from .environment import Folders, missing_requirements, variables
from .job import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    JOB_TAG,
    STOPPED,
    Job,
    JobError,
    Status,
    job_key,
    require_name,
    status_key,
    stop_key,
)
from .logs import MAX_LINE_BYTES, Log
from .metadata import InstanceMetadata
from .storage import S3_ERRORS, CheckpointSync, MissingInputError, download_archive, download_folder, upload_archive

#: What is asked for again and again while the program trains: shall it stop, does AWS take the instance back?
WATCH_SECONDS = 5.0
#: From SIGTERM to SIGKILL. AWS takes a spot instance back two minutes after it says so; the checkpoints need the rest.
STOP_GRACE_SECONDS = 120.0
INTERRUPTED_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.2
_INSTALL_ATTEMPTS = 3
_MAX_REASON_CHARACTERS = 1024
_RETRIES = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 8})


class TrainingFailedError(Exception):
    """The program could not be run or failed; the message is the reason."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class Training:
    """One job on this instance.

    Parameters
    ----------
    prefixes
        Of the data bucket: where the jobs are described, and where their outputs go.
    """

    def __init__(
        self, name: str, bucket: str, prefixes: tuple[str, str], folder: Path, s3: Any, log: Log, metadata: Any
    ) -> None:
        self._name = name
        self._bucket = bucket
        self._jobs, self._outputs = prefixes
        self._folder = folder
        self._s3 = s3
        self._log = log
        self._metadata = metadata
        self._end: tuple[str, str] | None = None  # state and reason, when something else than the program ends it
        self.status = Status(name, metadata.get("instance-id") or "", metadata.get("instance-type") or "")

    def end_early(self, state: str, reason: str) -> None:
        """Let the program save what it has, then end; the first reason counts."""
        self._end = self._end or (state, reason)

    def run(self) -> None:
        """Do everything; `status` says how it went."""
        try:
            self._report("Starting")
            self._work()
        except TrainingFailedError as error:
            self.status.exit_code = error.exit_code
            self._fail(str(error))
        except (JobError, MissingInputError, OSError, *S3_ERRORS) as error:
            self._fail(f"{type(error).__name__}: {error}")
        except Exception as error:  # a bug: its stack trace belongs in the log
            self._log.write(traceback.format_exc().rstrip())
            self._fail(f"{type(error).__name__}: {error}")
        self.status.ended = time.time()
        reason = f": {self.status.reason}" if self.status.reason else ""
        self._log.write(f"{self._name} ended as {self.status.state}{reason}")
        self._log.close()  # before the status, which is what others wait for
        self._put_status()

    def _fail(self, reason: str) -> None:
        self.status.state, self.status.reason = FAILED, reason[:_MAX_REASON_CHARACTERS]

    def _work(self) -> None:
        body = self._s3.get_object(Bucket=self._bucket, Key=job_key(self._jobs, self._name))["Body"].read()
        job = Job.parse(body.decode())
        folders = Folders(self._folder / "ml")
        self._report("Downloading")
        download_archive(self._s3, job.source, folders.code)
        for channel, url in job.channels.items():
            if not download_folder(self._s3, url, folders.channel(channel)):
                raise MissingInputError(f"There are no objects below {url}, the input {channel!r}.")
        checkpoints = CheckpointSync(self._s3, job.checkpoints, folders.checkpoints)
        if count := checkpoints.download():
            self._log.write(f"Going on from the checkpoints of an earlier instance ({count} files).")
        with Watch(self._look), checkpoints.syncing():
            self._install(folders.code)
            self._report("Training")
            state, reason = self._train(job, folders)
        if state != INTERRUPTED:  # then another instance goes on from the checkpoints
            self._upload(job, folders)
        self.status.state, self.status.reason = state, reason

    def _upload(self, job: Job, folders: Folders) -> None:
        """Leave what SageMaker leaves, in the same places."""
        self._report("Uploading")
        shutil.rmtree(folders.input)  # packing the outputs needs room
        model = f"{job.output}/output/model.tar.gz"
        if any(folders.model.iterdir()):
            upload_archive(self._s3, folders.model, model)
            self.status.model = model
        upload_archive(self._s3, folders.output_data, f"{job.output}/output/output.tar.gz")

    def _install(self, code: Path) -> None:
        """Add what the image lacks."""
        requirements = code / "requirements.txt"
        if not (missing := missing_requirements(requirements)):
            return
        self._log.write(f"Installing {', '.join(missing)}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for _ in range(_INSTALL_ATTEMPTS):
            exit_code = self._run([*command, "--requirement", str(requirements)], code, {}, None)
            if exit_code == 0 or self._end is not None:
                return
        raise TrainingFailedError("The packages in requirements.txt could not be installed; see the log.", exit_code)

    def _train(self, job: Job, folders: Folders) -> tuple[str, str | None]:
        """Run the program; returns how it ended, and why if that was early."""
        deadline = time.monotonic() + job.max_runtime_seconds
        command = [sys.executable, job.program, *job.arguments()]
        exit_code = self._run(command, folders.code, variables(job, folders), deadline)
        end = self._end  # from now on it is too late to end the program early
        if end is None and exit_code:
            raise TrainingFailedError(self._failure_reason(folders, exit_code), exit_code)
        self.status.exit_code = exit_code
        return end or (COMPLETED, None)

    def _failure_reason(self, folders: Folders, exit_code: int) -> str:
        """What the program wrote to ``output/failure``, or the end of the log."""
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        failure = folders.output / "failure"
        text = failure.read_text(encoding="utf-8", errors="replace").strip() if failure.is_file() else ""
        ending = f" ({how})"
        room = _MAX_REASON_CHARACTERS - len(ending)
        return (text[:room] or self._log.tail()[-room:]) + ending

    def _run(self, command: Sequence[str], cwd: Path, environment: dict[str, str], deadline: float | None) -> int:
        """Run a program, its lines into the log, until it ends or has to; returns its exit code."""
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            while process.poll() is None and self._end is None:
                if deadline is not None and time.monotonic() > deadline:
                    self.end_early(STOPPED, "MaxRuntimeExceeded: the training has used up its time.")
                time.sleep(_POLL_SECONDS)
            if process.poll() is None and self._end is not None:
                self._log.write(f"Stopping: {self._end[1]}")
                process.terminate()
                interrupted = self._end[0] == INTERRUPTED
                process.wait(INTERRUPTED_GRACE_SECONDS if interrupted else STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._log.write("The program does not stop: it is killed.")
        finally:
            process.kill()
            process.wait()
        reader.join(_POLL_SECONDS * 10)  # what it has left behind may hold its output open
        return process.returncode

    def _read(self, output: Any) -> None:
        while line := output.readline(MAX_LINE_BYTES):
            self._log.write(line.decode(errors="replace").rstrip("\r\n"))

    def _look(self) -> None:
        """Find out whether somebody, or AWS, wants this to end."""
        if self._metadata.interrupted():
            self.end_early(INTERRUPTED, "AWS takes the spot instance back.")
            return
        key = stop_key(self._jobs, self._name)
        try:
            # A listing, because the role may not know of single objects whether they exist.
            if self._s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1).get("Contents"):
                self.end_early(STOPPED, "The training was stopped by its user.")
        except S3_ERRORS:
            return  # the next look may see more

    def _report(self, state: str) -> None:
        self.status.state = state
        self._log.write(f"{self._name}: {state}")
        self._put_status()

    def _put_status(self) -> None:
        key = status_key(self._outputs, self._name)
        try:
            self._s3.put_object(
                Bucket=self._bucket, Key=key, Body=self.status.dump().encode(), ContentType="application/json"
            )
        except S3_ERRORS as error:
            sys.stderr.write(f"The status could not be written: {error}\n")


class Watch:
    """Calls a function every few seconds, in a thread, for the duration of a block."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(WATCH_SECONDS):
            self._look()


def main(argv: Sequence[str] | None = None) -> int:
    """Train what the instance's tag names; the exit code is 0 when it was completed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", required=True, help="the data bucket")
    parser.add_argument("--jobs-prefix", default="code/jobs", help="where the jobs are described")
    parser.add_argument("--output-prefix", default="training", help="where their statuses and outputs go")
    parser.add_argument("--log-group", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is fetched or made")
    options = parser.parse_args(argv)
    metadata = InstanceMetadata()
    try:
        name = require_name(metadata.tag(JOB_TAG) or "")
    except (JobError, OSError) as error:
        sys.stderr.write(f"The instance's tag {JOB_TAG} names no job: {error}\n")
        return 1
    log = Log(boto3.client("logs", config=_RETRIES), options.log_group, f"{name}/algo-1-{int(time.time())}")
    s3 = boto3.client("s3", config=_RETRIES.merge(Config(max_pool_connections=20)))
    prefixes = (options.jobs_prefix, options.output_prefix)
    training = Training(name, options.bucket, prefixes, options.folder, s3, log, metadata)
    signal.signal(signal.SIGTERM, lambda *_: training.end_early(STOPPED, "The instance was shut down."))
    training.run()
    return 0 if training.status.state == COMPLETED else 1

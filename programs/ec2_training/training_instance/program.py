"""Fetch, train, upload, report. The user data shuts the instance down when this ends, however it ends."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from . import job as jobs
from . import metadata
from .job import Job, JobError, Status, job_key, require_name, status_key, stop_key
from .logs import MAX_LINE_BYTES, Log
from .storage import S3_ERRORS, download_archive, download_folder, repeating, synced, upload_archive

#: Prefixes of the data bucket: where the jobs are described, and where their outputs go.
JOBS, OUTPUTS = "code/jobs", "training"
#: What is asked for again and again while the program trains: shall it stop, does AWS take the instance back?
WATCH_SECONDS = 5.0
#: What runs in the program's folder: it makes SageMaker's variables of what a container finds, and becomes train.py.
PROGRAM = "container_start.py"
#: From SIGTERM to SIGKILL. AWS takes a spot instance back two minutes after it says so; the checkpoints need the rest.
STOP_GRACE_SECONDS = 120.0
INTERRUPTED_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.2
_MAX_REASON_CHARACTERS = 1024
_RETRIES = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 8})


class Training:
    """One job on this instance; everything that is fetched or made is in `folder`."""

    def __init__(self, name: str, bucket: str, folder: Path, s3: Any, log: Log) -> None:
        self._name = name
        self._bucket = bucket
        self._folder = folder
        self._s3 = s3
        self._log = log
        self._end: tuple[str, str] | None = None  # state and reason, when something else than the program ends it
        self.status = Status(name, metadata.entry("instance-id") or "", metadata.entry("instance-type") or "")

    def end_early(self, state: str, reason: str) -> None:
        """Let the program save what it has, then end; the first reason counts."""
        self._end = self._end or (state, reason)

    def run(self) -> None:
        """Do everything; `status` says how it went."""
        try:
            self._report("Starting")
            state, reason = self._work()
        except JobError as error:
            state, reason = jobs.FAILED, str(error)
        except Exception as error:  # of AWS or the disk, or a bug
            self._log.write(traceback.format_exc().rstrip())
            state, reason = jobs.FAILED, f"{type(error).__name__}: {error}"
        self.status.state, self.status.ended = state, time.time()
        self.status.reason = reason and reason[:_MAX_REASON_CHARACTERS]
        self._log.write(f"{self._name} ended as {state}" + (f": {reason}" if reason else ""))
        self._log.close()  # before the status, which is what others wait for
        self._put_status()

    def _work(self) -> tuple[str, str | None]:
        body = self._s3.get_object(Bucket=self._bucket, Key=job_key(JOBS, self._name))["Body"].read()
        job = Job.parse(body.decode())
        ml = _make_folders(self._folder / "ml", job, self.status.instance_type)
        self._report("Downloading")
        download_archive(self._s3, job.source, ml / "code")
        for channel, url in job.channels.items():
            if not download_folder(self._s3, url, ml / "input" / "data" / channel):
                raise JobError(f"There are no objects below {url}, the input {channel!r}.")
        with (
            repeating(self._look_for_a_stop, WATCH_SECONDS),  # S3 may hang for minutes: the other two go on
            repeating(self._look_for_an_interruption, WATCH_SECONDS),
            synced(self._s3, job.checkpoints, ml / "checkpoints") as count,  # the last upload is done before they end
        ):
            if count:
                self._log.write(f"Going on from the checkpoints of an earlier instance ({count} files).")
            self._report("Training")
            end = self._train(job, ml)
        if end[0] != jobs.INTERRUPTED:  # then another instance goes on from the checkpoints
            self._upload(job, ml)
        return end

    def _upload(self, job: Job, ml: Path) -> None:
        """Leave what SageMaker leaves, in the same places."""
        self._report("Uploading")
        shutil.rmtree(ml / "input" / "data")  # packing the outputs needs room
        model = f"{job.output}/output/model.tar.gz"
        if any((ml / "model").iterdir()):
            upload_archive(self._s3, ml / "model", model)
            self.status.model = model
        upload_archive(self._s3, ml / "output" / "data", f"{job.output}/output/output.tar.gz")

    def _train(self, job: Job, ml: Path) -> tuple[str, str | None]:
        """Run the program; returns how it ended, and why if that was early."""
        checkpoints = str(ml / "checkpoints")
        variables = {"TRAINING_JOB_NAME": job.name, "PYTHONUNBUFFERED": "1", "SM_CHECKPOINT_DIR": checkpoints}
        exit_code = self._run(ml / "code", variables, time.monotonic() + job.max_runtime_seconds)
        end = self._end  # from now on it is too late to end the program early
        self.status.exit_code = exit_code
        if end is None and exit_code:
            raise JobError(self._failure_reason(ml / "output" / "failure", exit_code))
        return end or (jobs.COMPLETED, None)

    def _failure_reason(self, failure: Path, exit_code: int) -> str:
        """What the program wrote to ``output/failure``, or the end of the log."""
        ending = f" (signal {-exit_code})" if exit_code < 0 else f" (exit code {exit_code})"
        text = failure.read_text(encoding="utf-8", errors="replace").strip() if failure.is_file() else ""
        room = _MAX_REASON_CHARACTERS - len(ending)
        return (text[:room] or "\n".join(self._log.tail)[-room:]) + ending

    def _run(self, code: Path, variables: dict[str, str], deadline: float) -> int:
        """Run the program, its lines into the log, until it ends or has to; returns its exit code."""
        process = subprocess.Popen(
            [sys.executable, PROGRAM],
            cwd=code,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            while process.poll() is None and self._end is None:
                if time.monotonic() > deadline:
                    self.end_early(jobs.STOPPED, "MaxRuntimeExceeded: the training has used up its time.")
                time.sleep(_POLL_SECONDS)
            if process.poll() is None and self._end is not None:
                self._log.write(f"Stopping: {self._end[1]}")
                process.terminate()
                interrupted = self._end[0] == jobs.INTERRUPTED
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

    def _look_for_a_stop(self) -> None:
        # A listing, because the role may not know of single objects whether they exist.
        if self._s3.list_objects_v2(Bucket=self._bucket, Prefix=stop_key(JOBS, self._name), MaxKeys=1).get("Contents"):
            self.end_early(jobs.STOPPED, "The training was stopped by its user.")

    def _look_for_an_interruption(self) -> None:
        if metadata.entry("spot/instance-action"):  # two minutes before
            self.end_early(jobs.INTERRUPTED, "AWS takes the spot instance back.")

    def _report(self, state: str) -> None:
        self.status.state = state
        self._log.write(f"{self._name}: {state}")
        self._put_status()

    def _put_status(self) -> None:
        key, body = status_key(OUTPUTS, self._name), self.status.dump().encode()
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json")
        except S3_ERRORS as error:
            sys.stderr.write(f"The status could not be written: {error}\n")


def _make_folders(ml: Path, job: Job, instance_type: str) -> Path:
    """Make what a container finds in ``/opt/ml``."""
    for name in ("code", "input/config", "input/data", "model", "output/data", "checkpoints"):
        (ml / name).mkdir(parents=True, exist_ok=True)
    host = {"hosts": ["algo-1"], "current_host": "algo-1", "network_interface_name": "lo"}
    resources = host | {"current_instance_type": instance_type}
    for name, content in (("resourceconfig", resources), ("hyperparameters", job.hyperparameters)):
        (ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return ml


def main(argv: Sequence[str] | None = None) -> int:
    """Train what the instance's tag names; the exit code is 0 when it was completed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", required=True, help="the data bucket")
    parser.add_argument("--log-group", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is fetched or made")
    options = parser.parse_args(argv)
    try:
        name = require_name(metadata.entry(f"tags/instance/{jobs.JOB_TAG}") or "")
    except (JobError, OSError) as error:
        sys.stderr.write(f"The instance's tag {jobs.JOB_TAG} names no job: {error}\n")
        return 1
    log = Log(boto3.client("logs", config=_RETRIES), options.log_group, f"{name}/algo-1-{int(time.time())}")
    s3 = boto3.client("s3", config=_RETRIES.merge(Config(max_pool_connections=20)))
    training = Training(name, options.bucket, options.folder, s3, log)
    signal.signal(signal.SIGTERM, lambda *_: training.end_early(jobs.STOPPED, "The instance was shut down."))
    training.run()
    return 0 if training.status.state == jobs.COMPLETED else 1

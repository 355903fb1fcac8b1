"""One training job, from fetching its inputs to uploading its outputs."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emulator.platform.conditions import SpotInterruption
from emulator.platform.host import Host
from emulator.platform.processes import signal_first_process
from emulator.platform.settings import describe_exit, free_port
from emulator.platform.store import Record, Store, StoreError
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.logs import OUTPUT_SECONDS, LogStream, read_output
from emulator.sagemaker.resources import Resources
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import MAX_REASON_CHARACTERS, JobFailed, JobStopped, Run
from emulator.sagemaker.training.checkpoints import CheckpointSync
from emulator.sagemaker.training.container import Cluster, TrainingContainer
from emulator.sagemaker.training.metrics import JobMetrics
from emulator.sagemaker.training.transfers import download, download_source, upload_outputs

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
STARTING, STOPPING = "Preparing the instances for training", "Stopping the training job"
#: When one instance has failed, or the server goes down, the others need not save much.
_ABORT_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.1
_METRICS_SECONDS = 0.5


class TrainingRun(Run):
    log_group, container_class = LOG_GROUP, TrainingContainer

    def __init__(self, jobs: Resources, job: Record, host: Host, store: Store) -> None:
        super().__init__(jobs, job)
        self._host = host
        self._directory = host.folder / jobs.kind.arn_type / self._region / self._name
        resources = job["ResourceConfig"]
        self._cluster = Cluster(
            hosts=tuple(f"algo-{number}" for number in range(1, resources["InstanceCount"] + 1)),
            master_port=free_port(),
            gpus=_visible_gpus(resources["InstanceType"]),
        )
        self._containers = [
            self.container_class(job, self._cluster, instance, self._directory / instance)
            for instance in self._cluster.hosts
        ]
        self._metrics = JobMetrics(job, jobs, store, host.monitoring)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._limits = TrainingLimits(job, host.conditions.spot_interruption)
        self._started: float | None = None
        self._waited = 0.0

    def interrupt(self) -> None:
        super().interrupt()
        # A program that is being stopped may have most of its two minutes left.
        self._terminate(self._processes, "Suspended")

    def _clean_up(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _work(self) -> str:
        """Do everything; the secondary status that the job ends with."""
        if self._stop_requested.is_set():
            raise JobStopped("Stopped")
        role = Role(self._host, self._job["RoleArn"], self._region)
        s3 = role.client("s3")
        while (end := self._attempt(role, s3)) == "Interrupted":
            self._wait_for_capacity()
        if end != "Suspended":
            self._transition("Uploading", "Uploading generated training model")
            upload_outputs(role, s3, self._job, self._containers, self._directory)
        return end

    def _attempt(self, role: Role, s3: Any) -> str:
        """Let fresh instances do the training, from its newest checkpoint on; how that ended, as `_wait` says it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        checkpoints = None
        if location := self._job.get("CheckpointConfig", {}).get("S3Uri"):
            folders = [container.checkpoints for container in self._containers]
            # What was printed before a checkpoint was written is not printed again by a program that goes on from it.
            checkpoints = CheckpointSync(s3, location, folders, self._name, before_upload=self._metrics.flush)
        self._limits.instances_begin()
        try:
            self._download(role, s3, checkpoints)
            self._transition("Training", "Training image download completed. Training in progress.")
            return self._train(role, checkpoints)
        finally:
            self._limits.instances_end()

    def _wait_for_capacity(self) -> None:
        began = time.monotonic()
        capacity_returns = began + self._limits.interrupted()
        while (now := time.monotonic()) < capacity_returns:
            if self._stop_requested.wait(min(_POLL_SECONDS, capacity_returns - now)):
                raise JobStopped("Stopped")
            if (limit := self._limits.reached()) is not None:
                self._transition("Stopping", STOPPING, TrainingJobStatus="Stopping")
                raise JobStopped(limit)
        self._waited += time.monotonic() - began
        self._transition("Starting", STARTING)

    def _download(self, role: Role, s3: Any, checkpoints: CheckpointSync | None) -> None:
        self._started = self._started or time.time()
        self._transition("Downloading", "Downloading input data", TrainingStartTime=self._started)
        try:
            for container in self._containers:
                container.make_folders()
            for channel in self._job.get("InputDataConfig", []):
                name, source = channel["ChannelName"], channel["DataSource"]["S3DataSource"]
                folders = [container.path("input", "data", name) for container in self._containers]
                download(role, s3, source, folders, self._stop_requested.is_set, functools.partial(self._report, name))
            for container in self._containers:
                container.adapt_drivers()
            download_source(s3, self._containers, self._directory / "sourcedir.tar.gz")
            newest = 0.0 if checkpoints is None else checkpoints.download()
            self._jobs.insist(lambda: self._metrics.rewind(newest))
        except ArtifactError as error:
            raise JobFailed(f"ClientError: Data download failed: {error}") from None
        if self._stop_requested.is_set():
            raise JobStopped("Stopped")

    def _report(self, channel: str, done: int, total: int) -> None:
        message = f"Downloading input data: channel {channel}, {done:,} of {total:,} objects"
        self._change(lambda record: record["SecondaryStatusTransitions"][-1].update(StatusMessage=message))

    def _train(self, role: Role, checkpoints: CheckpointSync | None) -> str:
        temporary = self._host.temporary_folder()
        began = int(time.time())
        logs = [LogStream(role, self.log_group, f"{self._name}/{host}-{began}") for host in self._cluster.hosts]
        processes = self._processes = []
        readers: list[threading.Thread] = []
        try:
            credentials = {} if self._job.get("EnableNetworkIsolation") else role.environment()
            for container, log in zip(self._containers, logs, strict=True):
                process = self._spawn(container, container.environment(temporary, credentials))
                processes.append(process)
                assert process.stdout is not None
                readers.append(read_output(process.stdout, functools.partial(self._take_line, log)))
            with checkpoints.syncing() if checkpoints is not None else contextlib.nullcontext():
                end = self._wait(processes)
                if end == "Interrupted":
                    self._transition("Interrupted", "The local AWS took the spot instances back, as it was told to")
                elif end == "MaxWaitTimeExceeded":
                    self._transition("Stopping", STOPPING, TrainingJobStatus="Stopping")
                statuses = self._terminate(processes, end)
            for reader in readers:
                reader.join(OUTPUT_SECONDS)
        finally:
            self._terminate(processes, "Failed")
            self._processes = []  # their numbers may be given to others while the job waits or uploads
            for log in logs:
                log.close()
            shutil.rmtree(temporary, ignore_errors=True)
        if end != "Suspended":
            self._jobs.insist(self._metrics.flush)
        if end == "Failed":
            raise JobFailed(self._failure_reason(statuses, logs))
        return end

    def _take_line(self, log: LogStream, line: str) -> None:
        log.write(line)
        self._metrics.take(line)

    def _spawn(self, container: TrainingContainer, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = container.command()
        try:
            return self._host.processes.spawn(
                command, cwd=container.path("code"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except (OSError, ValueError) as error:  # the latter for a NUL in an argument or a variable
            raise JobFailed(f"AlgorithmError: {command[0]} cannot be started: {error}") from None

    def _wait(self, processes: Sequence[subprocess.Popen[bytes]]) -> str:
        """Wait for the end of all programs, or of the first that fails, or for a reason to end them."""
        metrics_due = time.monotonic() + _METRICS_SECONDS
        while True:
            statuses = [process.poll() for process in processes]
            if self._interrupted.is_set():
                return "Suspended"
            if any(statuses):
                return "Failed"
            if all(status == 0 for status in statuses):
                return "Completed"
            if self._stop_requested.is_set():
                return "Stopped"
            if (limit := self._limits.reached()) is not None:
                return limit
            if time.monotonic() > metrics_due:
                with contextlib.suppress(StoreError):  # they are kept for the next time
                    self._metrics.flush()
                metrics_due = time.monotonic() + _METRICS_SECONDS
            self._stop_requested.wait(_POLL_SECONDS)

    def _terminate(self, processes: Sequence[subprocess.Popen[bytes]], end: str) -> list[int]:
        processes = list(processes)
        statuses = [process.poll() or 0 for process in processes]
        grace = self._host.conditions.stop_grace_seconds
        if end in ("Failed", "Suspended"):
            grace = _ABORT_GRACE_SECONDS if self._containers[0].entry_point else 0.0
        if processes:
            with ThreadPoolExecutor(len(processes), thread_name_prefix="terminate") as pool:
                terminate = self._host.processes.terminate
                list(pool.map(lambda process: terminate(process, grace, self._ask_to_end), processes))
        return statuses

    def _ask_to_end(self, pid: int) -> None:
        """Send SIGTERM to an instance's first process; that of the toolkit is a shell, which passes none on."""
        if self._containers[0].entry_point:
            signal_first_process(pid, signal.SIGTERM)

    def _failure_reason(self, statuses: list[int], logs: list[LogStream]) -> str:
        """Why the program failed: what it or the toolkit wrote to ``output/failure``, or the end of its log."""
        number = next(index for index, status in enumerate(statuses) if status)
        container, tail, status = self._containers[number], logs[number].tail().strip(), statuses[number]
        ending = ", exit code: 1"  # the toolkit's, whatever the program's
        said = container.said("failure", "replace").strip()
        if container.entry_point:
            ending = f", {describe_exit(status).replace('exited with code', 'exit code:')}"
        elif not said:  # the toolkit quotes from the first line on that names an error
            error = re.search(r"^.*(Error|Exception)(.|\n)*", tail, re.MULTILINE)
            said = f'ExecuteUserScriptError:\nExitCode {status}\nErrorMessage "{error[0] if error else ""}"'
            said += f'\nCommand "{container.command()[-1]}"'
        room = MAX_REASON_CHARACTERS - len("AlgorithmError: ") - len(ending)
        return f"AlgorithmError: {said[:room] or tail[-room:]}{ending}"

    def _transition(self, status: str, message: str, **members: Any) -> None:
        self._change(lambda record: add_transition(record, status, message, **members))

    def _write_end(self, record: Record, secondary: str, reason: str | None) -> None:
        status = secondary if secondary in ("Completed", "Failed") else "Stopped"
        super()._write_end(record, status, reason)
        add_transition(record, secondary, f"Training job {status.lower()}")
        seconds = record["TrainingEndTime"] - record.setdefault("TrainingStartTime", record["TrainingEndTime"])
        record["TrainingTimeInSeconds"] = max(1, round(seconds))
        record["BillableTimeInSeconds"] = max(1, round(seconds - self._waited))


class TrainingLimits:
    """The limits of one job, whose times count from when this is made; `interruption` is None where none happens."""

    def __init__(self, job: Record, interruption: SpotInterruption | None) -> None:
        condition = job["StoppingCondition"]
        self._seconds_left: float = condition["MaxRuntimeInSeconds"]
        self._latest_end = time.monotonic() + condition.get("MaxWaitTimeInSeconds", math.inf)
        statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
        spares = not job.get("EnableManagedSpotTraining") or "Interrupted" in statuses
        self._interruption = None if spares else interruption
        self._began = math.inf

    def instances_begin(self) -> None:
        """The time for running passes from now on: SageMaker counts the download of the inputs, too."""
        self._began = time.monotonic()

    def instances_end(self) -> None:
        self._seconds_left -= time.monotonic() - self._began
        self._began = math.inf

    def reached(self) -> str | None:
        """The limit that has been reached, as SageMaker's secondary status names it; None while there is none."""
        now = time.monotonic()
        if now > self._latest_end:
            return "MaxWaitTimeExceeded"
        if now > self._began + self._seconds_left:
            return "MaxRuntimeExceeded"
        if self._interruption is not None and now > self._began + self._interruption.after_seconds:
            return "Interrupted"
        return None

    def interrupted(self) -> float:
        """The one interruption has happened; how many seconds there is no capacity."""
        assert self._interruption is not None
        pause, self._interruption = self._interruption.wait_seconds, None
        return pause


def add_transition(record: Record, status: str, message: str, **members: Any) -> None:
    now = time.time()
    transitions = record.setdefault("SecondaryStatusTransitions", [])
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
    record.update(SecondaryStatus=status, **members)


def _visible_gpus(instance_type: str) -> int:
    """GPUs that an instance of this type may use: those of this machine, if the type has any."""
    has_gpu = instance_type.startswith(("ml.p", "ml.g"))
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) if has_gpu else 0

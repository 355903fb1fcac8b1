"""Processing jobs: their operations, and each one's inputs, program on every instance, and outputs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from emulator.containers import mounts, python
from emulator.containers.mounts import OPT_ML
from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.settings import describe_exit
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import ArtifactError, check_location
from emulator.sagemaker.logs import LogStream
from emulator.sagemaker.resources import PROCESSING_JOB, Resources
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import MAX_REASON_CHARACTERS, JobFailed, Jobs, JobStopped, Run
from emulator.sagemaker.training.container import TrainingContainer
from emulator.sagemaker.training.job import TrainingRun
from emulator.sagemaker.training.transfers import download, upload_folder, uploading

_BELOW = re.compile(rf"{OPT_ML}/processing(/(?!\.\.?(/|$))[^/\0]+)+")
_DAY_SECONDS = 86_400
#: What the program finds of its job in ``config/processingjobconfig.json``.
_CONFIG = (
    *("ProcessingJobArn", "ProcessingJobName", "AppSpecification", "Environment", "ProcessingInputs"),
    *("ProcessingOutputConfig", "ProcessingResources", "NetworkConfig", "RoleArn", "StoppingCondition"),
)


class ProcessingJobs(Jobs):
    def __init__(self, host: Host, store: Store) -> None:
        super().__init__(store, PROCESSING_JOB, "processing")
        self._host, self._store = host, store

    @operation("CreateProcessingJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        _check(request)
        Role(self._host, request["RoleArn"], caller.region)  # refused at once without its trust
        shown = {"StoppingCondition": {"MaxRuntimeInSeconds": _DAY_SECONDS}, **request}
        record = self._jobs.create(caller, shown, ProcessingJobStatus="InProgress")
        self._begin(record)
        return {"ProcessingJobArn": record["ProcessingJobArn"]}

    def _new_run(self, record: Record) -> Run:
        return ProcessingRun(self._jobs, record, self._host, self._store)


class ProcessingContainer(TrainingContainer):
    def make_folders(self) -> None:
        places = [f"{OPT_ML}/{name}" for name in ("code", "config", "output")]
        for place in (*places, *(end["LocalPath"] for end in _outputs(self._job))):
            self.outside(place).mkdir(parents=True, exist_ok=True)
        python.create(self._python)
        config = {member: self._job.get(member) for member in _CONFIG}
        resources = {"current_host": self.host, "hosts": self._cluster.hosts}
        for name, content in (("resourceconfig", resources), ("processingjobconfig", config)):
            self.path("config", f"{name}.json").write_text(json.dumps(content))

    def environment(self, temporary: Path, credentials: Mapping[str, str]) -> dict[str, str]:
        variables = {**credentials, **(self._job.get("Environment") or {})}
        return python.environment(self._python, temporary, self._job["EnableNetworkIsolation"], variables)


class ProcessingRun(TrainingRun):
    """The work of a processing job: that of a training job with an entry point, but for what comes before and after."""

    log_group, container_class = "/aws/sagemaker/ProcessingJobs", ProcessingContainer

    def __init__(self, jobs: Resources, job: Record, host: Host, store: Store) -> None:
        of_training = {
            "TrainingJobName": job["ProcessingJobName"],
            "TrainingJobArn": job["ProcessingJobArn"],
            "AlgorithmSpecification": job["AppSpecification"],
            "ResourceConfig": job["ProcessingResources"]["ClusterConfig"],
            "EnableNetworkIsolation": job.get("NetworkConfig", {}).get("EnableNetworkIsolation", False),
            "SecondaryStatusTransitions": [],
        }
        super().__init__(jobs, job | of_training, host, store)
        self._message = ""

    def _work(self) -> str:
        self._clean_up()  # what an earlier life of the server has left
        role = Role(self._host, self._job["RoleArn"], self._region)
        s3 = role.client("s3")
        try:
            for container in self._containers:
                container.make_folders()
            for source in _inputs(self._job):
                download(role, s3, source, self._folders(source), self._stop_requested.is_set)
        except ArtifactError as error:
            raise JobFailed(f"ClientError: Data download failed: {error}") from None
        if self._stop_requested.is_set():
            raise JobStopped("Stopped")
        self._change(lambda record: record.setdefault("ProcessingStartTime", time.time()))
        self._limits.instances_begin()
        try:
            end = self._train(role, None)
        finally:
            self._message = self._read_message()
        for output in _outputs(self._job) if end != "Suspended" else ():
            with uploading(role, self._job["ProcessingOutputConfig"], output["S3Uri"]) as encryption:
                for container in self._containers:
                    upload_folder(s3, container, output["LocalPath"], output["S3Uri"], encryption)
        return "Completed" if end == "Completed" else "Stopped"

    def _folders(self, end: Payload) -> list[Path]:
        return [container.outside(end["LocalPath"]) for container in self._containers]

    def _read_message(self) -> str:
        try:
            return "".join(container.said("message") for container in self._containers)[:MAX_REASON_CHARACTERS]
        except UnicodeDecodeError:
            raise JobFailed("ClientError: /opt/ml/output/message is not UTF-8.") from None

    def _failure_reason(self, statuses: list[int], logs: list[LogStream]) -> str:
        how = describe_exit(next(filter(None, statuses))).replace("exited with code", "exit code:")
        return f"AlgorithmError: See job logs for more information, {how}"

    def _write_end(self, record: Record, status: str, reason: str | None) -> None:
        Run._write_end(self, record, status, reason)
        record.update({"ExitMessage": self._message} if self._message else {})


def _check(request: Payload) -> None:
    """Refuse what botocore's model allows and SageMaker, or this local one, does not."""
    refuse(not mounts.available(), "Processing jobs work below /opt/ml, which this machine cannot mount: use Linux.")
    given, made = request.get("ProcessingInputs") or [], request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    for title, items in (("Input", given), ("Output", made)):
        names = [item[f"{title}Name"] for item in items]
        refuse(len(set(names)) < len(names), f"{title}Names must be unique: {', '.join(names)}.")
        for name, item in zip(names, items, strict=True):
            refuse(f"S3{title}" not in item, f"{title} {name} needs an S3{title}.")
    cluster = request["ProcessingResources"]["ClusterConfig"]
    none = "InstanceType" not in cluster or "InstanceCount" not in cluster
    refuse(none, "ClusterConfig needs an InstanceType and an InstanceCount.")
    refuse(
        "ContainerEntrypoint" not in request["AppSpecification"],
        "The local AWS runs no images, and so not what their entry points run: give an AppSpecification with a "
        'ContainerEntrypoint, such as ["python3", "/opt/ml/processing/input/code/program.py"].',
    )
    ends = [*_inputs(request), *_outputs(request)]
    places = [end.get("LocalPath", "").rstrip("/") for end in ends]
    for end, place in zip(ends, places, strict=True):
        check_location(end["S3Uri"])
        refuse(not _BELOW.fullmatch(place), f'A LocalPath must be below {OPT_ML}/processing/, not "{place}".')
    same = len(set(places)) < len(places)
    refuse(same, f"No two inputs or outputs have the same LocalPath: {', '.join(places)}.")


def _inputs(job: Payload) -> list[Payload]:
    return [item["S3Input"] for item in job.get("ProcessingInputs") or []]


def _outputs(job: Payload) -> list[Payload]:
    return [item["S3Output"] for item in job.get("ProcessingOutputConfig", {}).get("Outputs", [])]

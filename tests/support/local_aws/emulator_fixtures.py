"""Stand-ins for what the services of the local AWS are given: a platform, an S3, a model server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import resource
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import fake_s3

from emulator.platform.awsapi import Caller, Payload, ServiceError
from emulator.platform.clock import Clock
from emulator.platform.conditions import Conditions, SpotInterruption
from emulator.platform.host import Host
from emulator.platform.monitoring import Monitoring
from emulator.platform.processes import ProcessRegistry

ACCOUNT = "123456789012"
CALLER = Caller(ACCOUNT, "eu-west-1")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service"
IMAGE = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/runtime:1"


KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}


class NoMonitoring(Monitoring):
    """Takes every call and keeps nothing."""


def make_host(
    state_dir: Path,
    service: str = "sagemaker",
    spot_interruption: SpotInterruption | None = None,
    monitoring: Monitoring | None = None,
    clock: float = 1.0,
) -> Host:
    """A platform whose other services do not answer, and with sessions of every role."""
    temporary = state_dir / "tmp"
    temporary.mkdir(exist_ok=True)
    processes = ProcessRegistry(state_dir / "processes")
    given = (service, "http://127.0.0.1:9", state_dir, temporary, ACCOUNT, processes, lambda *_: KEYS)
    conditions = Conditions(spot_interruption, stop_grace_seconds=1.0, clock=clock)
    return Host(*given, lambda *_: iter(()), monitoring or NoMonitoring(), conditions, clock=Clock(clock))


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process, and of those it starts, grow within the block: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(call: Callable[[], Any]) -> ServiceError:
    try:
        call()
    except ServiceError as error:
        return error
    raise AssertionError("the call was not refused")


def training_job(name: str = "job", **members: Any) -> Payload:
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/training"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **members,
    }


def tuning_job(config: Payload | None = None, **members: Any) -> Payload:
    definition = training_job()
    del definition["TrainingJobName"]
    definition["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=(.*)"}]
    searching = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1"}]},
        **(config or {}),
    }
    named = {"HyperParameterTuningJobName": "tuning", "HyperParameterTuningJobConfig": searching}
    return {**named, "TrainingJobDefinition": definition, **members}


def channel(name: str, url: str, **source: str) -> Payload:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": url, **source}}}


class FakeS3(fake_s3.FakeS3):
    """A bucket with objects, and the names of those that were uploaded."""

    def __init__(self, **objects: bytes) -> None:
        super().__init__()
        for key, body in objects.items():
            self.objects[key] = body
        self.uploads: list[str] = []

    def copy_objects(self, bucket: str, targets: Sequence[tuple[str, Path]]) -> Iterator[dict[str, str]]:
        for key, path in targets:
            found = self.get_object(Bucket=bucket, Key=key)
            path.write_bytes(found["Body"].read())
            yield found["Metadata"]

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {**self.get_object(Bucket=Bucket, Key=Key), "ContentType": "text/of-the-object"}

    def upload_fileobj(self, Fileobj: IO[bytes], Bucket: str, Key: str, ExtraArgs: dict[str, Any]) -> None:
        self.put_object(Bucket=Bucket, Key=Key, Body=Fileobj.read(), **ExtraArgs)
        self.uploads.append(Key)


class FakeRole:
    """A role that may do everything, in front of an S3 that holds the program."""

    arn, region = "arn:role", "eu-west-1"

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def client(self, service: str, attempts: int = 1) -> Any:
        return self.s3

    def environment(self) -> dict[str, str]:
        return {}


def tar_gz(files: dict[str, bytes], mode: int | None = None) -> bytes:
    """An archive; without a mode, what lies in ``code/`` or is called ``serve`` can be executed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            executable = name.startswith("code/") or name == "serve"
            member.size, member.mode = len(content), mode or (0o755 if executable else 0o644)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def untar(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[int]:
    """A TCP server that does whatever `respond` does with a connection; gives its port."""
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(length)

"""A local AWS with a role, a bucket and a model server that does what it is told, for the tests of SageMaker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from emulator_fixtures import tar_gz, training_job, untar
from waiting import wait_until

from emulator.platform import lifecycle
from emulator.platform.conditions import Conditions, SpotInterruption
from emulator.platform.processes import process_started
from emulator.platform.programs import free_port
from emulator.platform.store import Store
from emulator.sagemaker.training.metrics import Point, read_points

__all__ = ["BUCKET", "IMAGE", "SERVER", "Local", "alive", "local_aws", "tar_gz", "untar"]

BUCKET = "model-bucket"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/runtime:1"

#: In place of AWS's two minutes.
STOP_GRACE_SECONDS = 3.0
#: Answers a request with what its body asks for, otherwise with the body itself.
SERVER = b"""#!/usr/bin/env python3
import asyncio, json, os, pathlib

ROOT = pathlib.Path(os.environ["SM_MODEL_DIR"])
VERSION = (ROOT / "version").read_text()


async def answer(reader, writer):
    while True:
        try:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return
        lines = [line.partition(":") for line in head.split("\\r\\n")[1:]]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status, kind, extra = 200, headers.get("content-type", "application/octet-stream"), ""
        if body == b"who":
            facts = {"pid": os.getpid(), "version": VERSION, "cwd": os.getcwd(), "environment": dict(os.environ)}
            body = json.dumps(facts).encode()
        elif body.startswith(b"status "):
            status = int(body.split()[1])
        elif body.startswith(b"sleep "):
            await asyncio.sleep(float(body.split()[1]))
        elif body == b"die":
            os._exit(9)
        elif head.startswith("POST"):
            print("received", len(body), flush=True)
        if "x-amzn-sagemaker-custom-attributes" in headers:
            extra = "x-amzn-sagemaker-custom-attributes: " + headers["x-amzn-sagemaker-custom-attributes"] + "\\r\\n"
        head = f"HTTP/1.1 {status} X\\r\\nContent-Type: {kind}\\r\\nContent-Length: {len(body)}\\r\\n{extra}\\r\\n"
        writer.write(head.encode() + body)


async def main():
    host, port = os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
    print("serving version", VERSION, flush=True)
    async with await asyncio.start_server(answer, host, port, limit=2**23) as server:
        await server.serve_forever()


asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return process_started(pid) is not None


class Local:
    """The local AWS of one test module."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self.up()

    def restart(self, spot_interruption: SpotInterruption) -> None:
        """Take it down in an orderly way, and up again with this happening to managed spot training."""
        lifecycle.down(self.state_dir)
        self.up(spot_interruption)

    def up(self, spot_interruption: SpotInterruption | None = None) -> None:
        """Start it and connect."""
        conditions = Conditions(spot_interruption, stop_grace_seconds=STOP_GRACE_SECONDS)
        self.pid = lifecycle.up(self.state_dir, self.port, conditions).pid
        self.environment = lifecycle.environment(self.state_dir)
        self.s3 = self.client("s3")
        self.iam = self.client("iam")
        self.logs = self.client("logs")
        self.sagemaker = self.client("sagemaker")
        self.runtime = self.client("sagemaker-runtime")
        self.scaling = self.client("application-autoscaling")

    def client(self, service: str) -> Any:
        """A client as an administrator has it; it does not try again."""
        return boto3.client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32),
        )

    def kill(self) -> None:
        """Take it down as a crash does, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        # The process counts as dead some time before the system has closed its port.
        wait_until(lambda: not alive(self.pid) and self._port_is_free())

    def _port_is_free(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return False
        return True

    def role(self, *actions: str, resource: str = "*", trusted: str = "sagemaker.amazonaws.com") -> str:
        """A new role that may do these things; its ARN."""
        name = f"role-{uuid.uuid4().hex[:8]}"
        trust = _policy(Principal={"Service": trusted}, Action="sts:AssumeRole")
        arn = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        if actions:
            policy = _policy(Action=list(actions), Resource=resource)
            self.iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=policy)
        return arn

    def train(
        self,
        role: str,
        program: str,
        name: str = "",
        files: dict[str, bytes] | None = None,
        hyperparameters: dict[str, str] | None = None,
        **members: Any,
    ) -> str:
        """Start a training job whose toolkit runs a program; its name."""
        name = name or f"Job-{uuid.uuid4().hex[:8]}"
        source = f"code/{name}/sourcedir.tar.gz"
        self.s3.put_object(Bucket=BUCKET, Key=source, Body=tar_gz({"train.py": program.encode(), **(files or {})}))
        toolkit = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{BUCKET}/{source}"}
        request = training_job(
            name,
            RoleArn=role,
            HyperParameters={**toolkit, **(hyperparameters or {})},
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        )
        self.sagemaker.create_training_job(**(request | members))
        return name

    def job(self, name: str) -> dict[str, Any]:
        """The description of a training job."""
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def ended(self, name: str) -> dict[str, Any]:
        """The description of a training job, once it has ended."""
        wait_until(lambda: self.job(name)["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), 300)
        return self.job(name)

    def output(self, job: str, archive: str = "model.tar.gz") -> dict[str, bytes]:
        """The files of an archive that a training job has left."""
        found = self.s3.get_object(Bucket=BUCKET, Key=f"training/{job}/output/{archive}")
        return untar(found["Body"].read())

    def printed(self, job: str) -> list[str]:
        """What the instances of a training job have printed so far."""
        with contextlib.suppress(ClientError):
            events = self.logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs")["events"]
            return [event["message"] for event in events if event["logStreamName"].startswith(f"{job}/")]
        return []

    def series(self, job: str, metric: str) -> list[Point]:
        """Every value of a training job's metric so far."""
        with contextlib.closing(Store(self.state_dir)) as store:
            return [point for point in read_points(store, self.job(job)["TrainingJobArn"]) if point.name == metric]

    def artifact(self, version: str, **files: bytes) -> str:
        """Upload a model artifact with the server above; its location."""
        key = f"artifacts/{uuid.uuid4().hex}/model.tar.gz"
        content = {"code/serve": SERVER, "version": version.encode(), **files}
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=tar_gz({k: v for k, v in content.items() if v}))
        return f"s3://{BUCKET}/{key}"

    def config(self, location: str, role: str, *, model: dict[str, Any] | None = None, **variant: Any) -> str:
        """Make a model and an endpoint configuration of one variant; its name."""
        name = f"c-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            **{"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": location}, **(model or {})},
        )
        defaults = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "ContainerStartupHealthCheckTimeoutInSeconds": 60,
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**defaults, **variant}])
        return name

    def endpoint(self, config: str) -> str:
        """Create an endpoint and wait until it is settled; its name."""
        name = f"Endpoint-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.settled(name)
        return name

    def settled(self, endpoint: str) -> dict[str, Any]:
        """Wait until an endpoint is in no transition; its description."""

        def description() -> dict[str, Any] | None:
            found = self.sagemaker.describe_endpoint(EndpointName=endpoint)
            return found if found["EndpointStatus"] in ("InService", "Failed") else None

        return wait_until(description)

    def invoke(self, endpoint: str, body: bytes, **members: Any) -> bytes:
        """Invoke an endpoint; the body of its answer."""
        return self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **members)["Body"].read()

    def who(self, endpoint: str) -> dict[str, Any]:
        """What an instance says of itself."""
        return json.loads(self.invoke(endpoint, b"who"))

    def pids(self, endpoint: str, count: int) -> set[int]:
        """The processes of all instances, once there are as many."""
        seen: set[int] = set()

        def ask() -> bool:
            with contextlib.suppress(ClientError):  # an instance may be on its way up
                seen.add(self.who(endpoint)["pid"])
            return len({pid for pid in seen if alive(pid)}) >= count

        wait_until(ask)
        return {pid for pid in seen if alive(pid)}


def _policy(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


@contextlib.contextmanager
def local_aws(state_dir: Path) -> Iterator[Local]:
    """A local AWS with a bucket, taken down at the end whatever happens."""
    local = Local(state_dir)
    try:
        local.s3.create_bucket(Bucket=BUCKET)
        yield local
    finally:
        lifecycle.down(state_dir)

"""A local AWS with a bucket and a model server that does what it is told, for the tests that run models and jobs."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from emulator_fixtures import tar_gz, training_job, untar
from local_aws_harness import LocalAws, policy, trust
from waiting import wait_until

from emulator.platform.processes import process_started
from emulator.platform.running import lifecycle
from emulator.platform.store import Store
from emulator.sagemaker.training.metrics import Point, read_points

BUCKET = "model-bucket"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/runtime:1"
#: How a job may have ended.
ENDED = ("Completed", "Failed", "Stopped")
#: What a role of SageMaker needs for models and jobs.
ACTIONS = (
    *("s3:GetObject", "s3:PutObject", "s3:ListBucket"),
    *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
)

#: Answers a request with what its body asks for, otherwise with the body itself. Its environment decides whether and
#: when it comes up.
SERVER = b"""#!/usr/bin/env python3
import asyncio, json, os, pathlib, sys, time

ROOT = pathlib.Path(os.environ["SM_MODEL_DIR"])
VERSION = (ROOT / "version").read_text()
while not os.path.exists(os.environ.get("WAIT_FOR", "/")):
    time.sleep(0.02)
if os.environ.get("BROKEN"):
    sys.exit("the weights are missing")


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
        elif body == b"fail once" and not (ROOT / "failed").exists():
            (ROOT / "failed").touch()
            status = 500
        elif head.startswith("POST"):
            print("received", len(body), flush=True)
        if body.startswith(b"stream "):
            writer.write(b"HTTP/1.1 200 X\\r\\nContent-Type: text/x\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
            for part in body.split()[1:]:
                writer.write(b"%x\\r\\n%b\\r\\n" % (len(part), part))
                await asyncio.sleep(0.3)
            writer.write(b"0\\r\\n\\r\\n" if body[-1:] != b"!" else b"broken")
            continue
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


def model_archive(version: str, **files: bytes) -> bytes:
    content = {"code/serve": SERVER, "version": version.encode(), **files}
    return tar_gz({name: body for name, body in content.items() if body})


class LocalSageMaker(LocalAws):
    """A local AWS with a bucket, on which models are served and jobs are run."""

    def __init__(self, state_dir: Path, **conditions: Any) -> None:
        super().__init__(state_dir, **conditions)
        self.s3.create_bucket(Bucket=BUCKET)

    def job_role(self, *actions: str, trusted: str = "sagemaker.amazonaws.com") -> str:
        allowed = policy({"Action": list(actions), "Resource": "*"}) if actions else None
        return self.role(f"role-{uuid.uuid4().hex[:8]}", trust(trusted), allowed)

    def upload(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*.png"):
            self.s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")

    def train(
        self,
        role: str,
        program: str,
        name: str = "",
        files: dict[str, bytes] | None = None,
        hyperparameters: dict[str, str] | None = None,
        algorithm: dict[str, Any] | None = None,
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
            AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File", **(algorithm or {})},
            HyperParameters={**toolkit, **(hyperparameters or {})},
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        )
        self.sagemaker.create_training_job(**(request | members))
        return name

    def job(self, name: str) -> dict[str, Any]:
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def ended(self, name: str) -> dict[str, Any]:
        return wait_until(lambda: (found := self.job(name))["TrainingJobStatus"] in ENDED and found, 300)

    def output(self, job: str, archive: str = "model.tar.gz") -> dict[str, bytes]:
        found = self.s3.get_object(Bucket=BUCKET, Key=f"training/{job}/output/{archive}")
        return untar(found["Body"].read())

    def printed(self, job: str, group: str = "/aws/sagemaker/TrainingJobs") -> list[str]:
        """What the instances of a job have printed so far."""
        with contextlib.suppress(ClientError):
            events = self.logs.filter_log_events(logGroupName=group)["events"]
            return [event["message"] for event in events if event["logStreamName"].startswith(f"{job}/")]
        return []

    def series(self, job: str, metric: str) -> list[Point]:
        """Every value of a training job's metric so far."""
        with contextlib.closing(Store(self.state_dir)) as store:
            return [point for point in read_points(store, self.job(job)["TrainingJobArn"]) if point.name == metric]

    def put(self, archive: bytes, bucket: str = BUCKET) -> str:
        key = f"archives/{uuid.uuid4().hex}/{'n' * 300}.tar.gz"  # longer than a file may be named
        self.s3.put_object(Bucket=bucket, Key=key, Body=archive)
        return f"s3://{bucket}/{key}"

    def artifact(self, version: str, bucket: str = BUCKET, **files: bytes) -> str:
        return self.put(model_archive(version, **files), bucket)

    def model(
        self, location: str, role: str, environment: dict[str, str] | None = None, image: str = IMAGE, **members: Any
    ) -> str:
        name = f"m-{uuid.uuid4().hex[:8]}"
        container = {"Image": image, "ModelDataUrl": location, "Environment": environment or {}}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container, **members)
        return name

    def config(self, model: str, capture: dict[str, Any] | None = None, output: Any = None, **variant: Any) -> str:
        name = f"c-{uuid.uuid4().hex[:8]}"
        defaults = {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        captured = {"DataCaptureConfig": capture} if capture else {}
        captured |= {"AsyncInferenceConfig": {"OutputConfig": output}} if output else {}
        variants = [{**defaults, **variant}]
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **captured)
        return name

    def endpoint(self, config: str, name: str = "") -> str:
        """Create an endpoint and wait until it is settled; its name."""
        name = name or f"Endpoint-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.settled(name)
        return name

    def settled(self, endpoint: str) -> dict[str, Any]:
        """Wait until an endpoint is in no transition; its description."""
        describe = self.sagemaker.describe_endpoint
        settled = ("InService", "Failed")
        return wait_until(lambda: (found := describe(EndpointName=endpoint))["EndpointStatus"] in settled and found)

    def who(self, endpoint: str) -> dict[str, Any]:
        """What an instance says of itself, once there is one: after a restart it comes up behind the endpoint."""

        def answer() -> Any:
            with contextlib.suppress(self.runtime.exceptions.ServiceUnavailable):
                return self.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"who")["Body"].read()

        return json.loads(wait_until(answer))

    def pids(self, endpoint: str, count: int) -> set[int]:
        """The processes of all instances, once there are as many."""
        seen: set[int] = set()

        def ask() -> bool:
            with contextlib.suppress(ClientError):  # an instance may be on its way up
                seen.add(self.who(endpoint)["pid"])
            return len({pid for pid in seen if alive(pid)}) >= count

        wait_until(ask)
        return {pid for pid in seen if alive(pid)}


@contextlib.contextmanager
def local_aws(state_dir: Path, **conditions: Any) -> Iterator[LocalSageMaker]:
    """Start one, stop it in the end; `conditions` are members of `Conditions`."""
    try:
        yield LocalSageMaker(state_dir, **conditions)
    finally:
        lifecycle.down(state_dir)

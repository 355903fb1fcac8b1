"""Transform jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, SERVER, Local, alive, local_aws
from waiting import wait_until

from emulator.platform import lifecycle

S3 = ("s3:GetObject", "s3:PutObject", "s3:ListBucket")
ACTIONS = (*S3, "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
LOG_GROUP = "/aws/sagemaker/TransformJobs"
#: The server, but that it fails the first time that it is asked for "once".
FLAKY = SERVER.replace(
    b'        elif body == b"die":',
    b'        elif body == b"once" and not (ROOT / "asked").exists():\n'
    b'            (ROOT / "asked").touch()\n'
    b"            status = 500\n"
    b'        elif body == b"die":',
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        yield local


@pytest.fixture(scope="module")
def model(local: Local) -> str:
    return make_model(local, **{"code/serve": FLAKY})


def make_model(local: Local, *, role: str | None = None, isolated: bool = False, **files: bytes) -> str:
    name = f"m-{uuid.uuid4().hex[:8]}"
    environment = {"FROM": "model", "KEPT": "yes"}
    local.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=role or local.role(*ACTIONS),
        EnableNetworkIsolation=isolated,
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": local.artifact("1", **files), "Environment": environment},
    )
    return name


class Job:
    """A transform job over objects of its own."""

    def __init__(self, local: Local, model: str, objects: dict[str, bytes], **members: Any) -> None:
        self.local = local
        self.name = f"Batch-{uuid.uuid4().hex[:8]}"
        for name, body in objects.items():
            local.s3.put_object(Bucket=BUCKET, Key=f"in/{self.name}/{name}", Body=body)
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/{self.name}/"}
        local.sagemaker.create_transform_job(
            TransformJobName=self.name,
            ModelName=model,
            TransformInput={"DataSource": {"S3DataSource": source}, "ContentType": "image/jpeg; errors=inline"},
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out/{self.name}"},
            **{
                "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
                "ModelClientConfig": {"InvocationsMaxRetries": 1},
                **members,
            },
        )

    def ended(self) -> dict[str, Any]:
        """Wait for the end; the job's description."""

        def described() -> dict[str, Any] | None:
            found = self.local.sagemaker.describe_transform_job(TransformJobName=self.name)
            return found if found["TransformJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return wait_until(described)

    def outputs(self) -> dict[str, bytes]:
        prefix = f"out/{self.name}/"
        found = self.local.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [item["Key"] for item in found]
        return {k.removeprefix(prefix): self.local.s3.get_object(Bucket=BUCKET, Key=k)["Body"].read() for k in keys}

    def log(self) -> dict[str, list[str]]:
        streams = self.local.logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.name}/")
        names = [stream["logStreamName"] for stream in streams["logStreams"]]
        events = {n: self.local.logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=n)["events"] for n in names}
        return {name: [event["message"] for event in found] for name, found in events.items()}


def test_every_object_below_the_prefix_gets_an_output_of_its_name(local: Local, model: str) -> None:
    job = Job(local, model, {"a.jpg": b"1", "deep/é b.jpg": b"22", "c": b"", "d": b"once"})
    described = job.ended()
    assert described["TransformJobStatus"] == "Completed", described
    assert job.outputs() == {"a.jpg.out": b"1", "deep/é b.jpg.out": b"22", "c.out": b"", "d.out": b"once"}
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    assert "Model" not in described
    (stream,) = job.log()
    assert stream.startswith(f"{job.name}/i-")
    assert "received 2" in job.log()[stream]


def test_a_failed_object_has_no_output_fails_the_job_and_keeps_no_other_from_its_own(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"status 415", "b": b"fine", "c": b"x" * (1 << 20) + b"x"}, MaxPayloadInMB=1)
    described = job.ended()
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: See job logs for more information. 2 of 3 objects")
    assert job.outputs() == {"b.out": b"fine"}
    (log,) = job.log().values()
    assert any(f"{BUCKET}/in/{job.name}/a: " in line and "415" in line for line in log)
    assert any(f"/{job.name}/c: " in line and "payload limit" in line for line in log)


@pytest.mark.parametrize(
    ("body", "client", "reason"),
    [
        (b"die", {}, "Unable to get response from algorithm"),  # with retries: the next object meets a dying server
        (b"status 500", {"InvocationsMaxRetries": 0}, "Bad HTTP status received from algorithm: 500"),
        (
            b"sleep 30",
            {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0},
            "did not respond to /invocations request within 1 seconds",
        ),
    ],
)
def test_a_failure_of_the_server_does_not_end_the_job(
    local: Local, model: str, body: bytes, client: dict[str, int], reason: str
) -> None:
    job = Job(local, model, {"a": body, "b": b"fine"}, **({"ModelClientConfig": client} if client else {}))
    described = job.ended()
    assert described["FailureReason"].startswith("AlgorithmError: See job logs")
    assert reason in described["FailureReason"]
    assert job.outputs() == {"b.out": b"fine"}


def test_instances_are_processes_that_share_the_objects(local: Local, model: str) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2}
    job = Job(local, model, {str(n): b"who" for n in range(4)}, TransformResources=resources)
    job.ended()
    pids = {name: json.loads(body)["pid"] for name, body in job.outputs().items()}
    assert pids["0.out"] == pids["2.out"] != pids["1.out"] == pids["3.out"]
    wait_until(lambda: not any(alive(pid) for pid in pids.values()))
    assert len(job.log()) == 2


def test_the_container_knows_that_it_runs_in_a_batch_of_which_several_are_under_way(local: Local) -> None:
    isolated = make_model(local, isolated=True)
    limits = {"MaxConcurrentTransforms": 4, "MaxPayloadInMB": 2, "BatchStrategy": "SingleRecord"}
    objects = {"a": b"who", **{str(n): b"sleep 1.5" for n in range(4)}}
    job = Job(local, isolated, objects, Environment={"FROM": "job"}, **limits)
    described = job.ended()
    environment = json.loads(job.outputs()["a.out"])["environment"]
    assert {
        name: value for name, value in environment.items() if name.startswith(("FROM", "KEPT", "SAGEMAKER_BA"))
    } == {
        "FROM": "job",
        "KEPT": "yes",
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
    }
    assert environment["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] == "4"
    assert environment["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "2"
    assert not [name for name in environment if name.startswith("AWS_")]
    seconds = (described["TransformEndTime"] - described["TransformStartTime"]).total_seconds()
    assert seconds < 4 * 1.5  # one after another would take longer, the start of the server not counted


def test_stopping_ends_the_servers_and_the_job(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"who", "b": b"sleep 300"})
    wait_until(lambda: "a.out" in job.outputs())
    local.sagemaker.stop_transform_job(TransformJobName=job.name)
    described = job.ended()
    assert (described["TransformJobStatus"], "FailureReason" in described) == ("Stopped", False)
    assert not alive(json.loads(job.outputs()["a.out"])["pid"])
    with pytest.raises(ClientError, match="is in status Stopped"):
        local.sagemaker.stop_transform_job(TransformJobName=job.name)


def test_what_cannot_work_says_why_and_the_role_of_the_model_is_what_counts(local: Local) -> None:
    broken = make_model(local, **{"code/serve": b"#!/bin/sh\necho no luck\nexit 3\n"})
    for model, reasons in (
        (make_model(local, role=local.role("s3:GetObject")), ["Data download failed"]),
        (make_model(local, role=local.role("s3:GetObject", "s3:ListBucket")), ["Uploading to", "AccessDenied"]),
        (broken, ["AlgorithmError: The primary container for transform job", "no luck"]),
    ):
        found = Job(local, model, {"a": b"1"}).ended()["FailureReason"]
        assert [reason for reason in reasons if reason not in found] == []


@pytest.mark.parametrize("crash", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_job_begins_anew_when_the_server_comes_back(local: Local, model: str, crash: bool) -> None:
    job = Job(local, model, {"a": b"who", "b": b"sleep 4"})
    wait_until(lambda: "a.out" in job.outputs())
    pid = json.loads(job.outputs()["a.out"])["pid"]
    if crash:
        local.kill()
    else:
        lifecycle.down(local.state_dir)
    wait_until(lambda: not alive(pid))
    local.up()
    assert job.ended()["TransformJobStatus"] == "Completed"
    assert set(job.outputs()) == {"a.out", "b.out"}
    assert json.loads(job.outputs()["a.out"])["pid"] != pid

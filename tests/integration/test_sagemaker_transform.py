"""Transform jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, SERVER, Local, alive, eventually, local_aws

from emulator.platform import lifecycle

ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
)
LOG_GROUP = "/aws/sagemaker/TransformJobs"
ENDED = ("Completed", "Failed", "Stopped")


@pytest.fixture
def local(shared: Local) -> Local:
    return shared


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        yield local


@pytest.fixture(scope="module")
def model(shared: Local) -> str:
    return make_model(shared)


def make_model(local: Local, *, role: str | None = None, isolated: bool = False, **files: bytes) -> str:
    name = f"m-{uuid.uuid4().hex[:8]}"
    local.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=role or local.role(*ACTIONS),
        EnableNetworkIsolation=isolated,
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": local.artifact("1", **files),
            "Environment": {"FROM": "model", "KEPT": "yes"},
        },
    )
    return name


class Job:
    """A transform job over objects of its own."""

    def __init__(self, local: Local, model: str, objects: dict[str, bytes], **members: Any) -> None:
        self.local = local
        self.name = f"Batch-{uuid.uuid4().hex[:8]}"
        for name, body in objects.items():
            local.s3.put_object(Bucket=BUCKET, Key=f"in/{self.name}/{name}", Body=body)
        request = {
            "TransformJobName": self.name,
            "ModelName": model,
            "TransformInput": {
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/{self.name}/"},
                },
                "ContentType": "image/jpeg; errors=inline",
            },
            "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out/{self.name}"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "ModelClientConfig": {"InvocationsMaxRetries": 1},
            **members,
        }
        self.arn = local.sagemaker.create_transform_job(**request)["TransformJobArn"]

    def describe(self) -> dict[str, Any]:
        return self.local.sagemaker.describe_transform_job(TransformJobName=self.name)

    def ended(self) -> dict[str, Any]:
        eventually(lambda: self.describe()["TransformJobStatus"] in ENDED)
        return self.describe()

    def outputs(self) -> dict[str, bytes]:
        prefix = f"out/{self.name}/"
        pages = self.local.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {k.removeprefix(prefix): self.local.s3.get_object(Bucket=BUCKET, Key=k)["Body"].read() for k in keys}

    def log(self) -> dict[str, list[str]]:
        streams = self.local.logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.name}/")
        names = [stream["logStreamName"] for stream in streams["logStreams"]]
        events = {n: self.local.logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=n)["events"] for n in names}
        return {name: [event["message"] for event in found] for name, found in events.items()}


def test_every_object_below_the_prefix_gets_an_output_of_its_name(local: Local, model: str) -> None:
    job = Job(local, model, {"a.jpg": b"1", "deep/é b.jpg": b"22", "c": b""})
    described = job.ended()
    assert described["TransformJobStatus"] == "Completed", described
    assert job.outputs() == {"a.jpg.out": b"1", "deep/é b.jpg.out": b"22", "c.out": b""}
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    assert "Model" not in described
    assert job.arn.endswith(f":transform-job/{job.name.lower()}")
    (stream,) = job.log()
    assert stream.startswith(f"{job.name}/i-")
    assert "received 2" in job.log()[stream]


def test_a_manifest_names_the_objects(local: Local, model: str) -> None:
    source = Job(local, model, {"a": b"1", "b/c": b"2", "d": b"3"})
    source.ended()
    manifest = [{"prefix": f"s3://{BUCKET}/in/{source.name}/"}, "a", "b/c"]
    local.s3.put_object(Bucket=BUCKET, Key="manifest.json", Body=json.dumps(manifest))
    s3 = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/manifest.json"}
    job = Job(local, model, {}, TransformInput={"DataSource": {"S3DataSource": s3}})
    assert job.ended()["TransformJobStatus"] == "Completed"
    assert job.outputs() == {"a.out": b"1", "b/c.out": b"2"}


def test_a_failed_object_has_no_output_fails_the_job_and_keeps_no_other_from_its_own(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"status 415", "b": b"fine", "c": b"x" * (1 << 20) + b"x"}, MaxPayloadInMB=1)
    described = job.ended()
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: See job logs for more information. 2 of 3 objects")
    assert job.outputs() == {"b.out": b"fine"}
    (data_log,) = (lines for name, lines in job.log().items() if name.endswith("/data-log"))
    assert any(f"{BUCKET}/in/{job.name}/a: " in line and "415" in line for line in data_log)
    assert any(f"/{job.name}/c: " in line and "payload limit" in line for line in data_log)


def test_a_server_error_is_tried_again_and_then_an_algorithm_error(local: Local) -> None:
    # Fails the first time that it is asked for "once".
    flaky = SERVER.replace(
        b'        elif body == b"die":',
        b'        elif body == b"once" and not (ROOT / "asked").exists():\n'
        b'            (ROOT / "asked").touch()\n'
        b"            status = 500\n"
        b'        elif body == b"die":',
    )
    assert flaky != SERVER
    flaky_model = make_model(local, **{"code/serve": flaky})
    once = Job(local, flaky_model, {"a": b"once"})
    always = Job(local, flaky_model, {"a": b"status 500"})
    assert once.ended()["TransformJobStatus"] == "Completed"
    assert always.ended()["FailureReason"].startswith("AlgorithmError: See job logs")


def test_an_object_that_kills_the_server_does_not_end_the_job(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"die", "b": b"fine"})
    described = job.ended()
    assert described["TransformJobStatus"] == "Failed"
    assert "Unable to get response from algorithm" in described["FailureReason"]
    assert job.outputs() == {"b.out": b"fine"}


def test_a_slow_answer_times_out(local: Local, model: str) -> None:
    client = {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0}
    job = Job(local, model, {"a": b"sleep 30", "b": b"fine"}, ModelClientConfig=client)
    assert "did not respond to /invocations request within 1 seconds" in job.ended()["FailureReason"]
    assert set(job.outputs()) == {"b.out"}


def test_instances_are_processes_that_share_the_objects(local: Local, model: str) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2}
    job = Job(local, model, {str(n): b"who" for n in range(4)}, TransformResources=resources)
    job.ended()
    pids = {name: json.loads(body)["pid"] for name, body in job.outputs().items()}
    assert pids["0.out"] == pids["2.out"] != pids["1.out"] == pids["3.out"]
    eventually(lambda: not any(alive(pid) for pid in pids.values()))
    assert len(job.log()) == 2


def test_the_container_knows_that_it_runs_in_a_batch(local: Local) -> None:
    job = Job(
        local,
        make_model(local, isolated=True),
        {"a": b"who"},
        Environment={"FROM": "job"},
        MaxConcurrentTransforms=4,
        MaxPayloadInMB=2,
        BatchStrategy="SingleRecord",
    )
    job.ended()
    environment = json.loads(job.outputs()["a.out"])["environment"]
    assert environment["FROM"] == "job"
    assert environment["KEPT"] == "yes"
    assert environment["SAGEMAKER_BATCH"] == "true"
    assert environment["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] == "4"
    assert environment["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "2"
    assert environment["SAGEMAKER_BATCH_STRATEGY"] == "SINGLE_RECORD"
    assert not [name for name in environment if name.startswith("AWS_")]


def test_as_many_objects_are_under_way_as_the_job_or_the_container_says(local: Local, model: str) -> None:
    objects = {str(n): b"sleep 1.5" for n in range(4)}
    four = Job(local, model, objects, MaxConcurrentTransforms=4).ended()
    seconds = (four["TransformEndTime"] - four["TransformStartTime"]).total_seconds()
    assert seconds < 4 * 1.5  # one after another would take longer, the start of the server not counted
    # The server answers every path with 200; this one answers /execution-parameters as a container may.
    asking = SERVER.replace(
        b'        if "x-amzn-sagemaker-custom-attributes" in headers:',
        b'        if head.startswith("GET /execution-parameters"):\n'
        b'            body = b\'{"MaxConcurrentTransforms": 4, "MaxPayloadInMB": 1}\'\n'
        b'        if "x-amzn-sagemaker-custom-attributes" in headers:',
    )
    assert asking != SERVER
    asked = Job(
        local, make_model(local, **{"code/serve": asking}), {**objects, "large": b"x" * (1 << 20) + b"x"}
    ).ended()
    assert "1 of 5 objects" in asked["FailureReason"]
    assert (asked["TransformEndTime"] - asked["TransformStartTime"]).total_seconds() < 4 * 1.5


def test_stopping_ends_the_servers_and_the_job(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"who", "b": b"sleep 300"})
    eventually(lambda: "a.out" in job.outputs())
    local.sagemaker.stop_transform_job(TransformJobName=job.name)
    described = job.ended()
    assert described["TransformJobStatus"] == "Stopped"
    assert "FailureReason" not in described
    assert not alive(json.loads(job.outputs()["a.out"])["pid"])
    with pytest.raises(ClientError, match="is in status Stopped"):
        local.sagemaker.stop_transform_job(TransformJobName=job.name)


def test_the_role_of_the_model_is_what_counts(local: Local) -> None:
    blind = make_model(local, role=local.role("s3:GetObject"))
    assert "Data download failed" in Job(local, blind, {"a": b"1"}).ended()["FailureReason"]
    mute = make_model(local, role=local.role("s3:GetObject", "s3:ListBucket"))
    reason = Job(local, mute, {"a": b"1"}).ended()["FailureReason"]
    assert "Uploading to" in reason
    assert "AccessDenied" in reason


def test_what_cannot_work_says_why(local: Local, model: str) -> None:
    assert "no objects under" in Job(local, model, {}).ended()["FailureReason"]
    broken = make_model(local, **{"code/serve": b"#!/bin/sh\necho no luck\nexit 3\n"})
    reason = Job(local, broken, {"a": b"1"}).ended()["FailureReason"]
    assert reason.startswith("AlgorithmError: The primary container for transform job")
    assert "no luck" in reason
    local.s3.put_object(Bucket=BUCKET, Key="bad.json", Body=b'["a"]')
    s3 = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/bad.json"}
    job = Job(local, model, {}, TransformInput={"DataSource": {"S3DataSource": s3}})
    assert "is no manifest" in job.ended()["FailureReason"]
    with pytest.raises(ClientError, match="Could not find model"):
        Job(local, "nobody", {})


def test_jobs_are_listed_and_tagged(local: Local, model: str) -> None:
    job = Job(local, model, {"a": b"1"}, Tags=[{"Key": "k", "Value": "v"}])
    job.ended()
    (found,) = local.sagemaker.list_transform_jobs(NameContains=job.name, StatusEquals="Completed")[
        "TransformJobSummaries"
    ]
    assert found["TransformJobArn"] == job.arn
    assert local.sagemaker.list_tags(ResourceArn=job.arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    with pytest.raises(ClientError) as caught:
        local.sagemaker.create_transform_job(
            TransformJobName=job.name,
            ModelName=model,
            TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in"}}},
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"


@pytest.mark.parametrize("crash", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_job_begins_anew_when_the_server_comes_back(local: Local, model: str, crash: bool) -> None:
    job = Job(local, model, {"a": b"who", "b": b"sleep 4"})
    eventually(lambda: "a.out" in job.outputs())
    pid = json.loads(job.outputs()["a.out"])["pid"]
    if crash:
        local.kill()
    else:
        lifecycle.down(local.state_dir)
    eventually(lambda: not alive(pid))
    local.up()
    assert job.ended()["TransformJobStatus"] == "Completed"
    assert set(job.outputs()) == {"a.out", "b.out"}
    assert json.loads(job.outputs()["a.out"])["pid"] != pid

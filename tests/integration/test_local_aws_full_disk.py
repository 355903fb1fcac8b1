"""A local AWS whose disk is full: it says so, loses nothing that it acknowledged, and goes on once there is space."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, Local, alive, eventually, local_aws

if not sys.platform.startswith("linux"):
    pytest.skip("the limit of a running process can be set on Linux only", allow_module_level=True)

pytestmark = pytest.mark.slow

#: Prints until the file `go` is there, and adds a byte to the file of its process number for every line; leaves a model
#: of 10 MB.
PRINTING = """
import os, pathlib, time
go = pathlib.Path(os.environ["GO"])
printed = go.with_name(f"{os.getpid()}.printed")
while not go.exists():
    print("loss=0.5", flush=True)
    with printed.open("a") as file:
        file.write("x")
    time.sleep(0.05)
pathlib.Path(os.environ["MODEL"], "weights").write_bytes(os.urandom(10_000_000))
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        local.s3.put_object(Bucket=BUCKET, Key="data/large", Body=bytes(10_000_000))
        yield local


@contextlib.contextmanager
def full_disk(local: Local, space: int = 0) -> Iterator[None]:
    """Let no file of the server grow beyond `space` within the block: writes fail as on a full disk."""
    soft, hard = resource.prlimit(local.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(local.pid, resource.RLIMIT_FSIZE, (space, hard))
    try:
        yield
    finally:
        resource.prlimit(local.pid, resource.RLIMIT_FSIZE, (soft, hard))


def start_job(local: Local, folder: Path, **members: Any) -> str:
    """A job whose program prints until it may go on; its name."""
    name = folder.name.replace("_", "-")
    (folder / "program.py").write_text(PRINTING)
    local.sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=local.role("s3:*", "logs:*"),
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [sys.executable, str(folder / "program.py")],
        },
        Environment={"GO": str(folder / "go"), "MODEL": "/opt/ml/model"},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 120},
        **members,
    )
    return name


def describe(local: Local, name: str) -> dict[str, Any]:
    described: dict[str, Any] = local.sagemaker.describe_training_job(TrainingJobName=name)
    return described


def ended(local: Local, name: str) -> dict[str, Any]:
    eventually(lambda: describe(local, name)["TrainingJobStatus"] not in ("InProgress", "Stopping"))
    return describe(local, name)


def test_what_cannot_be_kept_is_not_acknowledged_and_the_rest_survives_a_kill(local: Local) -> None:
    role = local.role()
    for call in (
        lambda: local.iam.create_user(UserName="somebody"),
        lambda: local.logs.create_log_group(logGroupName="group"),
        lambda: local.s3.put_object(Bucket=BUCKET, Key="lost", Body=b"x"),
        lambda: local.sagemaker.create_notebook_instance(
            NotebookInstanceName="notebook", InstanceType="ml.t3.medium", RoleArn=role
        ),
    ):
        with full_disk(local), pytest.raises(ClientError) as refused:
            call()
        answer = refused.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert "make room on the disk" in answer["Error"]["Message"]
    local.iam.create_user(UserName="later")
    local.kill()
    local.up()
    keys = [item["Key"] for item in local.s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert "data/large" in keys and "lost" not in keys
    assert "later" in [user["UserName"] for user in local.iam.list_users()["Users"]]


def test_jobs_and_endpoints_run_on_and_end_well_once_there_is_space(local: Local, tmp_path: Path) -> None:
    endpoint = local.endpoint(local.config(local.artifact("1"), local.role("s3:*", "logs:*")))
    name = start_job(local, tmp_path)
    eventually(lambda: list(tmp_path.glob("*.printed")))
    (printed,) = tmp_path.glob("*.printed")
    log = local.state_dir / "sagemaker" / "logs" / "training" / "us-east-1" / name / "algo-1.log"
    with full_disk(local):
        before = printed.stat().st_size
        eventually(lambda: printed.stat().st_size > before + 10)
        assert local.invoke(endpoint, b"x" * 100) == b"x" * 100
    eventually(lambda: "lines are missing here" in log.read_text())
    with full_disk(local):
        (tmp_path / "go").touch()
        eventually(lambda: not alive(int(printed.stem)))
        assert describe(local, name)["TrainingJobStatus"] == "InProgress"
    assert ended(local, name)["TrainingJobStatus"] == "Completed"


def test_inputs_that_do_not_fit_fail_the_job_with_that_reason(local: Local, tmp_path: Path) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data"}}
    with full_disk(local, space=8_000_000):
        name = start_job(local, tmp_path, InputDataConfig=[{"ChannelName": "training", "DataSource": source}])
        described = ended(local, name)
    reason = f"ClientError: Data download failed: s3://{BUCKET}/data/large: [Errno 27] File too large"
    assert described["FailureReason"].startswith(reason)


def test_outputs_that_do_not_fit_fail_the_job_with_that_reason(local: Local, tmp_path: Path) -> None:
    name = start_job(local, tmp_path)
    eventually(lambda: list(tmp_path.glob("*.printed")))  # started with room of its own, which it keeps
    with full_disk(local, space=8_000_000):
        (tmp_path / "go").touch()
        described = ended(local, name)
    reason = f"InternalServerError: Uploading to s3://{BUCKET}/training/{name}/output failed: [Errno 27] File too large"
    assert described["FailureReason"].startswith(reason)

"""A training job gets the objects that its role may read, as copies that it cannot reach the objects by."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sagemaker_local import BUCKET, IMAGE, Local, local_aws, untar
from waiting import wait_until

#: Writes into its inputs, and leaves what was in them.
PROGRAM = """
import os, pathlib
inputs, model = pathlib.Path(os.environ["INPUTS"]), pathlib.Path(os.environ["MODEL"])
for path in sorted(inputs.rglob("*.txt")):
    (model / path.name).write_bytes(path.read_bytes())
    path.write_text("overwritten")
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        for key in ("data/a.txt", "data/b/secret.txt", "slashes//a.txt"):
            local.s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        key = {"SSEKMSKeyId": local.client("kms").create_key()["KeyMetadata"]["Arn"], "ServerSideEncryption": "aws:kms"}
        local.s3.put_object(Bucket=BUCKET, Key="sealed/a.txt", Body=b"1", **key)
        yield local


def ended(local: Local, role: str, prefix: str, folder: Path) -> dict[str, Any]:
    """A job with one channel, when it has ended."""
    name = folder.name.replace("_", "-")[:50].rstrip("-")
    (folder / "program.py").write_text(PROGRAM)
    entrypoint = [sys.executable, str(folder / "program.py")]
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}"}}
    local.sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=role,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": entrypoint},
        Environment={"INPUTS": "/opt/ml/input/data/training", "MODEL": "/opt/ml/model"},
        InputDataConfig=[{"ChannelName": "training", "DataSource": source}],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 120},
    )
    wait_until(lambda: local.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] != "InProgress")
    return dict(local.sagemaker.describe_training_job(TrainingJobName=name))


@pytest.mark.parametrize(
    ("prefix", "denied", "reason"),
    [
        ("data", {"Action": "s3:GetObject", "Resource": "*secret.txt"}, "data/b/secret.txt: AccessDenied"),
        ("data", {"Action": "s3:ListBucket", "Resource": "*"}, "data: AccessDenied"),
        ("slashes//", {"Action": "s3:GetObject", "Resource": "*/slashes//*"}, "slashes//a.txt: AccessDenied"),
        ("sealed", {"Action": "kms:Decrypt", "Resource": "*"}, "sealed/a.txt: AccessDenied"),
    ],
    ids=["one key", "listing", "slashes", "key of KMS"],
)
def test_what_the_role_may_not_read_fails_the_job(
    local: Local, tmp_path: Path, prefix: str, denied: dict[str, Any], reason: str
) -> None:
    role = local.role("s3:*", "logs:*", "kms:*")
    document = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", **denied}]})
    local.iam.put_role_policy(RoleName=role.rpartition("/")[2], PolicyName="denied", PolicyDocument=document)
    described = ended(local, role, prefix, tmp_path)
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith(f"ClientError: Data download failed: s3://{BUCKET}/{reason}")


def test_a_job_that_writes_into_its_inputs_leaves_the_objects_as_they_are(local: Local, tmp_path: Path) -> None:
    described = ended(local, local.role("s3:*", "logs:*"), "data", tmp_path)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    archive = described["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/")
    seen = untar(local.s3.get_object(Bucket=BUCKET, Key=archive)["Body"].read())
    assert seen == {"a.txt": b"data/a.txt", "secret.txt": b"data/b/secret.txt"}
    for key in ("data/a.txt", "data/b/secret.txt"):
        assert local.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()

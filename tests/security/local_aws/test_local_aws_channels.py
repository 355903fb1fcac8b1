"""A training job gets the objects that its role may read, as copies that it cannot reach the objects by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulator_fixtures import channel
from sagemaker_local import BUCKET, LocalSageMaker

#: Writes into its inputs, and leaves what was in them.
PROGRAM = """
import os, pathlib
inputs, model = (pathlib.Path(os.environ[name]) for name in ("SM_CHANNEL_TRAINING", "SM_MODEL_DIR"))
for path in sorted(inputs.rglob("*.txt")):
    (model / path.name).write_bytes(path.read_bytes())
    path.write_text("overwritten")
"""
KEYS = ("data/a.txt", "data/b/secret.txt", "slashes//a.txt")


@pytest.fixture(scope="module", autouse=True)
def objects(aws: LocalSageMaker) -> None:
    for key in KEYS:
        aws.s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    sealed = {"SSEKMSKeyId": aws.client("kms").create_key()["KeyMetadata"]["Arn"], "ServerSideEncryption": "aws:kms"}
    aws.s3.put_object(Bucket=BUCKET, Key="sealed/a.txt", Body=b"1", **sealed)


@pytest.mark.parametrize(
    ("prefix", "denied", "reason"),
    [
        ("data", {"Action": "s3:GetObject", "Resource": "*secret.txt"}, "data/b/secret.txt: AccessDenied"),
        ("slashes//", {"Action": "s3:GetObject", "Resource": "*/slashes//*"}, "slashes//a.txt: AccessDenied"),
        ("sealed", {"Action": "kms:Decrypt", "Resource": "*"}, "sealed/a.txt: AccessDenied"),
    ],
    ids=["one key", "slashes", "key of KMS"],
)
def test_what_the_role_may_not_read_fails_the_job(
    aws: LocalSageMaker, prefix: str, denied: dict[str, Any], reason: str
) -> None:
    role = aws.job_role("s3:*", "logs:*", "kms:*")
    # What the toolkit reads, the program, is not among what is denied.
    document = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", **denied}]})
    aws.iam.put_role_policy(RoleName=role.rpartition("/")[2], PolicyName="denied", PolicyDocument=document)
    inputs = [channel("training", f"s3://{BUCKET}/{prefix}")]
    described = aws.ended(aws.train(role, PROGRAM, InputDataConfig=inputs))
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith(f"ClientError: Data download failed: s3://{BUCKET}/{reason}")


def test_a_job_that_writes_into_its_inputs_leaves_the_objects_as_they_are(aws: LocalSageMaker) -> None:
    inputs = [channel("training", f"s3://{BUCKET}/data")]
    job = aws.train(aws.job_role("s3:*", "logs:*"), PROGRAM, InputDataConfig=inputs)
    assert aws.ended(job)["TrainingJobStatus"] == "Completed", aws.job(job).get("FailureReason")
    assert aws.output(job) == {"a.txt": b"data/a.txt", "secret.txt": b"data/b/secret.txt"}
    assert [aws.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in KEYS] == [k.encode() for k in KEYS]

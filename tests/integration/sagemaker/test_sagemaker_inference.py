"""Scripts that are served as by AWS's containers, on endpoints and in transform jobs."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError
from emulator_fixtures import tar_gz
from sagemaker_jobs import TransformJob
from sagemaker_local import LocalSageMaker
from waiting import wait_until

PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"
SCIKIT_LEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
SCALING = b"""
import os, pathlib, helper

class Scaling:
    def predict(self, data):
        return data * 2 if data.shape != (1, 1) else os._exit(3)

def model_fn(model_dir):
    assert pathlib.Path(model_dir, "data").read_text() == "weights"
    return Scaling()
"""
NETWORK = b"""
import torch, torchvision

def model_fn(model_dir, context):
    return torchvision.models.resnet18(num_classes=2)

def input_fn(body, content_type):
    return torch.zeros(int(body), 3, 32, 32)
"""


def test_a_script_beside_the_model_is_served_as_by_scikit_learns_container(aws: LocalSageMaker, role: str) -> None:
    """As SKLearnModel.deploy of the SDK sends it."""
    code = aws.put(tar_gz({"script.py": SCALING, "helper.py": b"", "requirements.txt": b"numpy\n"}))
    environment = {"SAGEMAKER_PROGRAM": "script.py", "SAGEMAKER_SUBMIT_DIRECTORY": code}
    environment["SAGEMAKER_MODEL_SERVER_WORKERS"] = "2"
    model = aws.model(aws.put(tar_gz({"data": b"weights"})), role, environment, SCIKIT_LEARN)
    endpoint = aws.endpoint(aws.config(model))
    invoke, group = aws.runtime.invoke_endpoint, f"/aws/sagemaker/Endpoints/{endpoint}"
    answer = invoke(EndpointName=endpoint, Body=b"1,2\n3,4\n", ContentType="text/csv", Accept="text/csv")
    assert (answer["ContentType"], answer["Body"].read()) == ("text/csv; charset=utf-8", b"2.0,4.0\n6.0,8.0\n")
    with pytest.raises(ClientError) as failed:
        invoke(EndpointName=endpoint, Body=b"", ContentType="image/png")
    assert (failed.value.response["Error"]["Code"], failed.value.response["OriginalStatusCode"]) == ("ModelError", 500)
    wait_until(lambda: any("image/png is not supported" in line for line in aws.printed("v", group)))
    with pytest.raises(ClientError, match="A worker died"):
        invoke(EndpointName=endpoint, Body=b"[[1]]", ContentType="application/json")


def test_a_script_in_the_artifact_is_served_as_by_pytorchs_container(aws: LocalSageMaker, role: str) -> None:
    made = aws.model(aws.put(tar_gz({"code/inference.py": NETWORK})), role, image=PYTORCH)
    answer = aws.runtime.invoke_endpoint(EndpointName=aws.endpoint(aws.config(made)), Body=b"3")
    assert [len(row) for row in json.loads(answer["Body"].read())] == [2, 2, 2]
    job = TransformJob(aws, made, {"a": b"1", "b": b"2"})
    assert job.ended()["TransformJobStatus"] == "Completed", job.printed()
    assert {name: len(json.loads(body)) for name, body in job.outputs().items()} == {"a.out": 1, "b.out": 2}


@pytest.mark.parametrize(
    ("image", "script", "reason"),
    [
        (PYTORCH, b"def model_fn(folder): raise RuntimeError('no weights')", "RuntimeError: no weights"),
        (SCIKIT_LEARN, b"", "Give SAGEMAKER_PROGRAM, and SAGEMAKER_SUBMIT_DIRECTORY"),
        (
            PYTORCH.replace("pytorch", "tensorflow"),
            b"",
            "pytorch-inference and sagemaker-scikit-learn, not by 76310435",
        ),
    ],
)
def test_what_cannot_be_served_fails_the_endpoint_with_the_reason(
    aws: LocalSageMaker, role: str, image: str, script: bytes, reason: str
) -> None:
    model = aws.model(aws.put(tar_gz({"code/inference.py": script})), role, image=image)
    endpoint = aws.endpoint(aws.config(model))
    described = aws.sagemaker.describe_endpoint(EndpointName=endpoint)
    assert (described["EndpointStatus"], reason in described["FailureReason"]) == ("Failed", True), described

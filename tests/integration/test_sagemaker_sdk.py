"""SageMaker's own SDK, version 3, runs the training program in model/ on the local AWS, with nothing changed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sagemaker_local import BUCKET, Local, local_aws, untar
from training_fixtures import LABELS, write_data_set

ROOT = Path(__file__).parents[2]

# What somebody writes who follows the SDK's documentation. In a process of its own: the import takes seconds, and the
# SDK finds credentials and addresses as a user's program does, in the environment.
PROGRAM = """
import json, sys
from sagemaker.core.helper.session_helper import Session
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode, StoppingCondition

bucket, role, source_dir = sys.argv[1:]
trainer = ModelTrainer(
    sagemaker_session=Session(default_bucket=bucket),
    role=role,
    training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker",
    base_job_name="sdk",
    source_code=SourceCode(source_dir=source_dir, entry_script="train.py", requirements="requirements.txt"),
    compute=Compute(instance_type="ml.m5.xlarge", instance_count=1, volume_size_in_gb=30),
    hyperparameters={"epochs": 1, "input-size": 32, "precision": "fp32"},
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/training"),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=600),
)
data = InputData(channel_name="training", data_source=f"s3://{bucket}/datasets/shapes")
trainer.train(input_data_config=[data], logs=False)
print(trainer._latest_training_job.training_job_name)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    data_set = write_data_set(tmp_path_factory.mktemp("shapes"))
    with local_aws(tmp_path_factory.mktemp("local-aws")) as running:
        for path in data_set.rglob("*.png"):
            running.s3.upload_file(str(path), BUCKET, f"datasets/shapes/{path.relative_to(data_set)}")
        yield running


@pytest.fixture(scope="module")
def role(local: Local) -> str:
    return local.role("s3:GetObject", "s3:PutObject", "s3:ListBucket", "logs:*")


def run(
    local: Local, home: Path, program: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**inherited, **local.environment, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_model_trainer_trains_the_programs_folder(local: Local, role: str, tmp_path: Path) -> None:
    # The SDK wants of a role what only jobs in a VPC need; with this documented variable it takes a scoped one.
    done = run(local, tmp_path, PROGRAM, BUCKET, role, str(ROOT / "model"), SAGEMAKER_VALIDATE_ROLE="false")
    assert done.returncode == 0, done.stderr[-3000:]
    name = done.stdout.splitlines()[-1]
    described = local.sagemaker.describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] == "Completed"
    assert described["AlgorithmSpecification"]["ContainerEntrypoint"], "it was to be the SDK's own entry point"
    bucket, key = described["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
    assert bucket == BUCKET
    files = untar(local.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    card: dict[str, Any] = json.loads(files["model.json"])
    assert tuple(card["labels"]) == LABELS
    assert card["input_size"] == 32
    assert card["training_job"] == name
    assert "model.onnx" in files


def test_the_sdk_is_told_what_a_role_may_not_do(local: Local, role: str, tmp_path: Path) -> None:
    """Its check of the role is answered from the role's real policies."""
    done = run(local, tmp_path, PROGRAM, BUCKET, role, str(ROOT / "model"))
    assert done.returncode != 0
    assert "RoleValidationError" in done.stderr
    assert "Missing permissions: cloudwatch:PutMetricData" in done.stderr

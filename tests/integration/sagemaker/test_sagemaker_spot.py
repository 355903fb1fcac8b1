"""Our training program in training jobs as `kennel train` starts them, on spot instances that are taken back."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest
from emulator_fixtures import channel, training_job
from sagemaker_local import ACTIONS, BUCKET, IMAGE, LocalSageMaker
from training_fixtures import write_data_set

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from emulator.platform.conditions import SpotInterruption
from model.training.loop.metrics import METRIC_DEFINITIONS

#: Long enough for the middle of it to be in both trainings, however long they take to start.
HYPERPARAMETERS = {"input-size": "64", "batch-size": "16", "epochs": "240", "lr": "0.001", "precision": "fp32"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def objects(aws: LocalSageMaker, tmp_path_factory: pytest.TempPathFactory) -> None:
    aws.upload(write_data_set(tmp_path_factory.mktemp("shapes")), "data")
    aws.s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=source_bundle(SOURCE_DIR))


def start(aws: LocalSageMaker, **members: Any) -> str:
    """Start a training."""
    name = f"job-{uuid.uuid4().hex[:8]}"
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "MetricDefinitions": METRIC_DEFINITIONS}
    request = training_job(
        name,
        RoleArn=aws.job_role(*ACTIONS),
        AlgorithmSpecification=algorithm | ENTRY_POINT,
        HyperParameters=HYPERPARAMETERS,
        InputDataConfig=[channel("training", f"s3://{BUCKET}/data/"), channel(CODE_CHANNEL, f"s3://{BUCKET}/code/")],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    aws.sagemaker.create_training_job(**(request | members))
    return name


def completed(aws: LocalSageMaker, name: str) -> dict[str, Any]:
    """Wait until a job is through; its metrics.json."""
    described = aws.ended(name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    return dict(json.loads(aws.output(name, "output.tar.gz")["metrics.json"]))


def curve(metrics: dict[str, Any]) -> list[tuple[float, float]]:
    return [(epoch["train_loss"], epoch["valid_loss"]) for epoch in metrics["epochs"]]


def test_a_job_whose_spot_instances_are_taken_back_ends_with_the_same_loss_curve(aws: LocalSageMaker) -> None:
    undisturbed = start(aws)
    expected = completed(aws, undisturbed)
    middle = middle_of_training(aws, undisturbed)
    aws.down()
    aws.up(spot_interruption=SpotInterruption(middle, wait_seconds=2))
    limits = {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600}
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/spot"}
    spot = {"EnableManagedSpotTraining": True, "StoppingCondition": limits, "CheckpointConfig": checkpoints}
    name = start(aws, **spot)
    interrupted = completed(aws, name)
    assert any("going on from epoch-" in line for line in aws.printed(name))
    np.testing.assert_array_equal(curve(interrupted), curve(expected))
    assert interrupted["test"] == expected["test"]
    assert "Interrupted" in [transition["Status"] for transition in aws.job(name)["SecondaryStatusTransitions"]]
    values = [[point.value for point in aws.series(job, "valid:loss")] for job in (name, undisturbed)]
    assert values[0] == values[1], "Hyperband and early stopping count these"


def middle_of_training(aws: LocalSageMaker, name: str) -> float:
    """Seconds from when a job's instances are there to the middle of what it trained."""
    transitions = aws.job(name)["SecondaryStatusTransitions"]
    began = next(t["StartTime"] for t in transitions if t["Status"] == "Downloading")
    points = aws.series(name, "valid:loss")
    return (points[0].moment + points[-1].moment) / 2 - began.timestamp()

"""Our training program on several instances of the local AWS, in training jobs as `kennel train` starts them."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from emulator_fixtures import channel, training_job
from PIL import Image
from sagemaker_local import BUCKET, IMAGE, Local, local_aws
from waiting import wait_until

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from emulator.platform.host import SpotInterruption
from model.training.loop.metrics import METRIC_DEFINITIONS

EPOCHS = 8
TOOLKIT = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{BUCKET}/code/sourcedir.tar.gz"}
HYPERPARAMETERS = {
    "input-size": "16", "batch-size": "16", "epochs": str(EPOCHS), "lr": "0.001",
    "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        generator = np.random.default_rng(0)
        for split, count in (("train", 12), ("valid", 4), ("test", 2)):
            for number, name in enumerate(("bright", "dark", "grey")):
                for index in range(count):
                    pixels = (80 * number + generator.integers(0, 90, (24, 24, 3))).astype(np.uint8)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    key = f"data/{split}/{name}/{index}.png"
                    local.s3.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())
        source = source_bundle(SOURCE_DIR)
        local.s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=source)
        yield local


def start(
    local: Local,
    instances: int,
    hyperparameters: dict[str, str] | None = None,
    entry_point: bool = True,
    **members: Any,
) -> str:
    """Start a training: as `kennel train` does, or as a tuning job has to."""
    name = f"job-{instances}-{uuid.uuid4().hex[:8]}"
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "MetricDefinitions": METRIC_DEFINITIONS}
    request = training_job(
        name,
        RoleArn=local.role("s3:*", "logs:*"),
        AlgorithmSpecification=algorithm | (ENTRY_POINT if entry_point else {}),
        HyperParameters={**HYPERPARAMETERS, **({} if entry_point else TOOLKIT), **(hyperparameters or {})},
        InputDataConfig=[channel("training", f"s3://{BUCKET}/data/"), channel(CODE_CHANNEL, f"s3://{BUCKET}/code/")],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    local.sagemaker.create_training_job(**(request | members))
    return name


def completed(local: Local, name: str) -> dict[str, Any]:
    """Wait until a job is through; its metrics.json."""
    described = local.ended(name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    metrics: dict[str, Any] = json.loads(local.output(name, "output.tar.gz")["metrics.json"])
    final = {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]}
    # A tuning job compares these: they are the best epoch's, and not the last one's. (The model that was made of it has
    # another loss, once it is calibrated.)
    best = metrics["epochs"][metrics["best_epoch"] - 1]
    assert final["valid:loss"] == pytest.approx(best["valid_loss"], abs=6e-5)
    assert final["valid:accuracy"] == pytest.approx(best["valid_accuracy"], abs=6e-5)
    return metrics


def curve(metrics: dict[str, Any]) -> list[tuple[float, float]]:
    return [(epoch["train_loss"], epoch["valid_loss"]) for epoch in metrics["epochs"]]


def test_torchrun_of_the_toolkit_and_of_the_program_train_the_same_model(local: Local) -> None:
    torchrun = {"sagemaker_torch_distributed_enabled": "true"}
    jobs = [start(local, 2), start(local, 2, torchrun, entry_point=False)]
    ours, toolkits = (completed(local, job) for job in jobs)
    assert ours["workers"] == toolkits["workers"] == 2
    np.testing.assert_array_equal(curve(ours), curve(toolkits))
    assert ours["epochs"][-1]["train_loss"] < ours["epochs"][0]["train_loss"]
    for job in jobs:
        assert len([line for line in local.printed(job) if line.startswith("epoch=")]) == EPOCHS, "one worker prints"


@pytest.mark.slow
def test_a_job_of_two_instances_that_is_killed_at_five_random_moments_ends_with_the_same_result(local: Local) -> None:
    # What reaches S3 is what lies in the folder unchanged from one second to the next.
    steps, slowly = 3, {"epochs": "20", "input-size": "64", "checkpoint-minutes": "0", "checkpoint-keep": "90"}
    undisturbed = completed(local, start(local, 2, slowly))
    prefix = "checkpoints/kills"
    name = start(local, 2, slowly, CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{prefix}"})

    def steps_kept() -> int:
        """How far the newest checkpoint is that has reached S3."""
        with contextlib.suppress(ClientError):
            found = local.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
            places = re.findall(r"epoch-(\d+)-step-(\d+)", " ".join(item["Key"] for item in found))
            return max((steps * (int(epoch) - 1) + int(step) for epoch, step in places), default=0)
        return 0

    for _ in range(5):
        target = steps_kept() + random.randint(1, 8)
        wait_until(lambda: steps_kept() >= target, 120)  # noqa: B023  # called at once
        local.kill()
        local.up()
    killed = completed(local, name)
    restarts = [line for line in local.printed(name) if "going on from epoch-" in line]
    assert len(restarts) == 5
    np.testing.assert_allclose(curve(killed), curve(undisturbed), rtol=0, atol=1e-5)
    assert killed["best_epoch"] == undisturbed["best_epoch"]
    assert killed["test"]["loss"] == pytest.approx(undisturbed["test"]["loss"], abs=1e-5)


def test_a_job_whose_spot_instances_are_taken_back_ends_with_the_same_loss_curve(local: Local) -> None:
    # Long enough for the middle of it to be in both trainings, however long they take to start.
    slowly = {"epochs": "240", "input-size": "64"}
    undisturbed = start(local, 1, slowly)
    expected = completed(local, undisturbed)
    local.restart(SpotInterruption(after_seconds=middle_of_training(local, undisturbed), wait_seconds=2))
    name = start(
        local,
        1,
        slowly,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/spot"},
    )
    interrupted = completed(local, name)
    assert any("going on from epoch-" in line for line in local.printed(name))
    np.testing.assert_array_equal(curve(interrupted), curve(expected))
    assert interrupted["test"] == expected["test"]
    assert "Interrupted" in [transition["Status"] for transition in local.job(name)["SecondaryStatusTransitions"]]
    values = [[point.value for point in local.series(job, "valid:loss")] for job in (name, undisturbed)]
    assert values[0] == values[1], "Hyperband and early stopping count these"


def middle_of_training(local: Local, name: str) -> float:
    """Seconds from when a job's instances are there to the middle of what it trained."""
    transitions = local.job(name)["SecondaryStatusTransitions"]
    began = next(t["StartTime"] for t in transitions if t["Status"] == "Downloading")
    points = local.series(name, "valid:loss")
    return (points[0].moment + points[-1].moment) / 2 - began.timestamp()

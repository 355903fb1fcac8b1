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
from PIL import Image
from sagemaker_local import BUCKET, IMAGE, Local, eventually, local_aws, untar

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from emulator.platform.host import SpotInterruption
from emulator.platform.store import Store
from emulator.sagemaker.training.metrics import Point, read_points
from model.training.loop.metrics import METRIC_DEFINITIONS

EPOCHS = 8
TOOLKIT = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{BUCKET}/code/sourcedir.tar.gz"}
HYPERPARAMETERS = {
    "input-size": "16", "batch-size": "16", "epochs": str(EPOCHS), "lr": "0.001",
    "precision": "fp32",
}  # fmt: skip
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


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
    *,
    entry_point: bool = True,
    **members: Any,
) -> str:
    """Start a training: as `kennel train` does, or as a tuning job has to."""
    name = f"job-{instances}-{uuid.uuid4().hex[:8]}"
    local.sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=local.role("s3:*", "logs:*"),
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
            **(ENTRY_POINT if entry_point else {}),
        },
        HyperParameters={**HYPERPARAMETERS, **({} if entry_point else TOOLKIT), **(hyperparameters or {})},
        InputDataConfig=[
            {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": place}}}
            for name, place in (("training", f"s3://{BUCKET}/data/"), (CODE_CHANNEL, f"s3://{BUCKET}/code/"))
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10},
        **{"StoppingCondition": {"MaxRuntimeInSeconds": 600}, **members},
    )
    return name


def ended(local: Local, name: str) -> dict[str, Any]:
    """Wait for the end of a job; its description."""

    def description() -> dict[str, Any] | None:
        found: dict[str, Any] = local.sagemaker.describe_training_job(TrainingJobName=name)
        return found if found["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

    return eventually(description, 300)


def completed(local: Local, name: str) -> dict[str, Any]:
    """Wait until a job is through; its metrics.json."""

    described = ended(local, name)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    body = local.s3.get_object(Bucket=BUCKET, Key=f"training/{name}/output/output.tar.gz")["Body"].read()
    metrics: dict[str, Any] = json.loads(untar(body)["metrics.json"])
    final = {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]}
    # A tuning job compares these: they are the best epoch's, and not the last one's. (The model that was made of it has
    # another loss, once it is calibrated.)
    best = metrics["epochs"][metrics["best_epoch"] - 1]
    assert final["valid:loss"] == pytest.approx(best["valid_loss"], abs=6e-5)
    assert final["valid:accuracy"] == pytest.approx(best["valid_accuracy"], abs=6e-5)
    return metrics


def curve(metrics: dict[str, Any]) -> list[tuple[float, float]]:
    return [(epoch["train_loss"], epoch["valid_loss"]) for epoch in metrics["epochs"]]


def log(local: Local, name: str) -> list[str]:
    events = local.logs.filter_log_events(logGroupName=LOG_GROUP)["events"]
    return [event["message"] for event in events if event["logStreamName"].startswith(f"{name}/")]


def test_several_instances_train_one_model(local: Local) -> None:
    name = start(local, 4)
    together = completed(local, name)
    assert together["workers"] == 4
    assert together["epochs"][-1]["train_loss"] < together["epochs"][0]["train_loss"]
    printed = [line for line in log(local, name) if line.startswith("epoch=")]
    assert len(printed) == EPOCHS, "only one of the workers prints"


def test_torchrun_of_the_toolkit_and_of_the_program_train_the_same_model(local: Local) -> None:
    torchrun = {"sagemaker_torch_distributed_enabled": "true"}
    jobs = [start(local, 2), start(local, 2, torchrun, entry_point=False)]
    ours, toolkits = (completed(local, job) for job in jobs)
    assert ours["workers"] == toolkits["workers"] == 2
    np.testing.assert_array_equal(curve(ours), curve(toolkits))


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
        eventually(lambda: steps_kept() >= target, 120)  # noqa: B023  # called at once
        local.kill()
        local.up()
    killed = completed(local, name)
    restarts = [line for line in log(local, name) if "going on from epoch-" in line]
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
    assert any("going on from epoch-" in line for line in log(local, name))
    np.testing.assert_array_equal(curve(interrupted), curve(expected))
    assert interrupted["test"] == expected["test"]
    described = local.sagemaker.describe_training_job(TrainingJobName=name)
    assert [transition["Status"] for transition in described["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training", "Uploading",
        "Completed",
    ]  # fmt: skip
    assert described["BillableTimeInSeconds"] < described["TrainingTimeInSeconds"]
    assert reported(local, name) == reported(local, undisturbed), "Hyperband and early stopping count these"


def middle_of_training(local: Local, name: str) -> float:
    """Seconds from when a job's instances are there to the middle of what it trained."""
    described = local.sagemaker.describe_training_job(TrainingJobName=name)
    began = next(t["StartTime"] for t in described["SecondaryStatusTransitions"] if t["Status"] == "Downloading")
    moments = [point.moment for point in points(local, name)]
    return (moments[0] + moments[-1]) / 2 - began.timestamp()


def reported(local: Local, name: str) -> list[float]:
    return [point.value for point in points(local, name)]


def points(local: Local, name: str) -> list[Point]:
    """Every validation loss that a job's log gave."""
    arn = local.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobArn"]
    with contextlib.closing(Store(local.state_dir)) as store:
        return [point for point in read_points(store, arn) if point.name == "valid:loss"]

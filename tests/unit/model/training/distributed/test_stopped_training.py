"""Our training program in training jobs that are stopped as SageMaker stops them: what it has learned is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, FakeRole, FakeS3, make_host, training_job, untar
from training_fixtures import write_data_set
from waiting import wait_until

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from emulator.platform.awsapi import Payload
from emulator.sagemaker import SageMaker
from emulator.sagemaker.training import job, operations
from model.core.packaging import package
from model.training.loop.metrics import METRIC_DEFINITIONS

pytestmark = pytest.mark.slow

GRACE_SECONDS = 8.0
HYPERPARAMETERS = {"epochs": "10000", "input-size": "32", "batch-size": "16", "num-cpus": "1"}
TOOLKIT = {"sagemaker_program": "train.py", "sagemaker_submit_directory": "s3://bucket/code/sourcedir.tar.gz"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> FakeS3:
    data = write_data_set(tmp_path_factory.mktemp("data") / "sample")
    objects = {f"data/{path.relative_to(data)}": path.read_bytes() for path in data.rglob("*") if path.is_file()}
    return FakeS3(**objects, **{"code/sourcedir.tar.gz": source_bundle(SOURCE_DIR)})


@pytest.fixture
def sagemaker(tmp_path: Path, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMaker]:
    for module in (job, operations):
        monkeypatch.setattr(module, "Role", lambda *_: FakeRole(s3))
    service = SageMaker(make_host(tmp_path, stop_grace_seconds=GRACE_SECONDS))
    yield service
    service.stop()


def start(sagemaker: SageMaker, *, entry_point: bool, seconds: int = 600, **hyperparameters: str) -> None:
    """Start a training as `kennel train` does, or as a tuning job has to."""
    places = {"training": "data/", CODE_CHANNEL: "code/"}
    sources = {
        name: {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://bucket/{place}"}}
        for name, place in places.items()
    }
    request = training_job(
        HyperParameters={**HYPERPARAMETERS, **({} if entry_point else TOOLKIT), **hyperparameters},
        InputDataConfig=[{"ChannelName": name, "DataSource": source} for name, source in sources.items()],
        CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/search/"},
        StoppingCondition={"MaxRuntimeInSeconds": seconds},
    )
    request["AlgorithmSpecification"] |= {
        "MetricDefinitions": METRIC_DEFINITIONS,
        **(ENTRY_POINT if entry_point else {}),
    }
    sagemaker.call("CreateTrainingJob", request, CALLER)


def described(sagemaker: SageMaker) -> Payload:
    return sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "job"}, CALLER)


def ended(sagemaker: SageMaker) -> Payload:
    wait_until(lambda: described(sagemaker)["TrainingJobStatus"] not in ("InProgress", "Stopping"), 120)
    return described(sagemaker)


def metrics(s3: FakeS3) -> dict[str, Any]:
    return json.loads(untar(s3.objects["training/job/output/output.tar.gz"])["metrics.json"])


@pytest.mark.parametrize("entry_point", [False, True], ids=["toolkit", "entry point"])
def test_a_training_that_is_stopped_leaves_its_best_model(
    sagemaker: SageMaker, s3: FakeS3, tmp_path: Path, entry_point: bool
) -> None:
    start(sagemaker, entry_point=entry_point)
    wait_until(lambda: "FinalMetricDataList" in described(sagemaker), 120)
    began = time.monotonic()
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
    job = ended(sagemaker)
    assert job["TrainingJobStatus"] == "Stopped", job.get("FailureReason")
    heard = time.monotonic() - began < GRACE_SECONDS
    assert heard == entry_point, "what the toolkit runs hears nothing and is killed"
    (tmp_path / "job.tar.gz").write_bytes(s3.objects["training/job/output/model.tar.gz"])
    card = package(tmp_path / "job.tar.gz", tmp_path / "model.tar.gz")
    assert card.training_job == "job"
    assert metrics(s3)["interrupted"]
    checkpoints = [key for key in s3.objects if key.startswith("checkpoints/search/job/epoch-")]
    assert bool(checkpoints) == entry_point, "written at the signal, in the job's own folder"
    for key in checkpoints:
        del s3.objects[key]


def test_a_training_ends_by_itself_before_its_time_is_up(sagemaker: SageMaker, s3: FakeS3) -> None:
    start(sagemaker, entry_point=False, seconds=90, **{"max-runtime": "20"})
    job = ended(sagemaker)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert metrics(s3)["interrupted"]
    assert "model.json" in untar(s3.objects["training/job/output/model.tar.gz"])

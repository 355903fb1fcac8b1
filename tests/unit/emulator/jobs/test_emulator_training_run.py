"""The course of a training job, with a program of its own and a platform whose other services do not answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_fixtures import (
    CALLER,
    FakeRole,
    FakeS3,
    channel,
    described_job,
    ended_job,
    full_disk,
    make_host,
    training_job,
)
from waiting import wait_until

from emulator.platform.awsapi import Payload
from emulator.platform.store import Record
from emulator.sagemaker import SageMaker
from emulator.sagemaker.runs import Run
from emulator.sagemaker.training import job as training_job_module

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}


@pytest.fixture
def sagemaker(tmp_path: Path) -> Iterator[SageMaker]:
    service = SageMaker(make_host(tmp_path, lambda arn, session_name: KEYS))
    yield service
    service.stop()


def entry_point(folder: Path, program: str, regex: str = "loss=([0-9.]+)") -> Payload:
    """A training job that runs a program as its container's first process."""
    (folder / "program.py").write_text(program)
    request = training_job()
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": [sys.executable, str(folder / "program.py")],
        "MetricDefinitions": [{"Name": "loss", "Regex": regex}],
    }
    return request


def test_lines_that_a_metric_matches_without_a_value_are_no_values(sagemaker: SageMaker, tmp_path: Path) -> None:
    # A program that prints more than a pipe holds comes to its end only if every line is read.
    program = "print('loss=x\\n' * 20_000 + 'loss=0.5\\n' + 'loss=nan\\n' * 20_000)"
    sagemaker.call("CreateTrainingJob", entry_point(tmp_path, program, r"loss=([0-9.]+)?"), CALLER)
    found = ended_job(sagemaker)
    assert found["TrainingJobStatus"] == "Completed"
    assert [metric["Value"] for metric in found["FinalMetricDataList"]] == [0.5]


def test_a_job_that_is_stopped_the_moment_it_is_on_record_does_stop(
    sagemaker: SageMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run = sagemaker.training_jobs._new_run

    def stopped_first(record: Record) -> Run:
        sagemaker.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
        return new_run(record)

    monkeypatch.setattr(sagemaker.training_jobs, "_new_run", stopped_first)
    sagemaker.call("CreateTrainingJob", entry_point(tmp_path, "import time; time.sleep(600)"), CALLER)
    assert ended_job(sagemaker)["TrainingJobStatus"] == "Stopped"


def test_a_job_that_ends_while_the_disk_is_full_has_ended_well_once_there_is_space(
    sagemaker: SageMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = tmp_path / "go"
    program = f"""
import pathlib, time
print('loss=0.5', flush=True)
while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)
print('loss=0.25')
"""
    sagemaker.call("CreateTrainingJob", entry_point(tmp_path, program), CALLER)
    wait_until(lambda: "FinalMetricDataList" in described_job(sagemaker))
    with full_disk():
        go.touch()
        wait_until(lambda: "Trying again until there is some" in caplog.text)
        assert described_job(sagemaker)["TrainingJobStatus"] == "InProgress"
    found = ended_job(sagemaker)
    assert found["TrainingJobStatus"] == "Completed"
    assert sagemaker.training_jobs.metric_values(found["TrainingJobArn"], "loss") == (0.5, 0.25)


def test_the_time_for_a_training_includes_the_download(
    sagemaker: SageMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr("emulator.sagemaker.training.limits.time", clock)

    class SlowS3(FakeS3):
        def get_object(self, **names: Any) -> dict[str, Any]:
            passed[0] = 40.0
            return super().get_object(**names)

    monkeypatch.setattr(training_job_module, "Role", lambda *_: FakeRole(SlowS3(**{"data/x": b""})))
    request = entry_point(tmp_path, "import time; time.sleep(600)") | {
        "InputDataConfig": [channel("training", "s3://bucket/data/")],
        "StoppingCondition": {"MaxRuntimeInSeconds": 30},
    }
    sagemaker.call("CreateTrainingJob", request, CALLER)
    assert ended_job(sagemaker)["SecondaryStatus"] == "MaxRuntimeExceeded"

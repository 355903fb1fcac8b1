"""The course of a training job, with a program of its own and a platform whose other services do not answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, eventually, full_disk, make_host, training_job

from emulator.awsapi import Payload
from emulator.sagemaker import SageMaker
from emulator.sagemaker.runs import Run, Runs
from emulator.sagemaker.training_metrics import MetricSeries, Point, read_points
from emulator.store import Store

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}


@pytest.fixture
def sagemaker(tmp_path: Path) -> Iterator[SageMaker]:
    service = SageMaker(make_host(tmp_path, lambda arn, session_name: KEYS))
    yield service
    service.stop()


def job(program: str, **algorithm: Any) -> Payload:
    """A training job that runs a program."""
    request = training_job()
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": [sys.executable, "-c"],
        "ContainerArguments": [program],
        **algorithm,
    }
    return request


def ended(sagemaker: SageMaker) -> Payload:
    """The job, once it has ended."""

    def described() -> Payload:
        return sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "job"}, CALLER)

    eventually(lambda: described()["TrainingJobStatus"] not in ("InProgress", "Stopping"))
    return described()


def test_lines_that_a_metric_matches_without_a_value_are_no_values(sagemaker: SageMaker) -> None:
    # A program that prints more than a pipe holds comes to its end only if every line is read.
    program = "print('loss=x\\n' * 20_000 + 'loss=0.5\\n' + 'loss=nan\\n' * 20_000)"
    definitions = [{"Name": "loss", "Regex": r"loss=([0-9.]+)?"}]
    sagemaker.call("CreateTrainingJob", job(program, MetricDefinitions=definitions), CALLER)
    found = ended(sagemaker)
    assert found["TrainingJobStatus"] == "Completed"
    assert [metric["Value"] for metric in found["FinalMetricDataList"]] == [0.5]


def test_a_job_that_is_stopped_the_moment_it_is_on_record_does_stop(
    sagemaker: SageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Runs.start

    def stopped_first(runs: Runs, arn: str, run: Run) -> None:
        sagemaker.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
        start(runs, arn, run)

    monkeypatch.setattr(Runs, "start", stopped_first)
    sagemaker.call("CreateTrainingJob", job("import time; time.sleep(600)"), CALLER)
    assert ended(sagemaker)["TrainingJobStatus"] == "Stopped"


def test_values_that_a_program_will_print_again_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    series = MetricSeries(store, "arn:job")
    series.append([Point("loss", 0.5, 1.0), Point("accuracy", 0.7, 1.0)])
    series.append([Point("loss", 0.4, 2.0)])
    series.append([Point("loss", 0.3, 3.0)])
    MetricSeries(store, "arn:job-2").append([Point("loss", 9.0, 9.0)])
    taken_up = MetricSeries(store, "arn:job")
    taken_up.rewind(2.5)
    taken_up.append([Point("loss", 0.31, 4.0)])
    assert [value for name, value, _ in read_points(store, "arn:job") if name == "loss"] == [0.5, 0.4, 0.31]
    taken_up.rewind(0.0)
    assert read_points(store, "arn:job") == []
    assert read_points(store, "arn:job-2") == [Point("loss", 9.0, 9.0)]
    store.close()


def test_a_job_that_ends_while_the_disk_is_full_has_ended_well_once_there_is_space(
    sagemaker: SageMaker, tmp_path: Path
) -> None:
    go, program = tmp_path / "go", tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "print('loss=0.5', flush=True)\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
        "print('loss=0.25')\n"
    )
    request = job("", MetricDefinitions=[{"Name": "loss", "Regex": "loss=([0-9.]+)"}])
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": [sys.executable, str(program)],
        "ContainerArguments": [str(go)],
    }
    sagemaker.call("CreateTrainingJob", request, CALLER)

    def described() -> Payload:
        return sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "job"}, CALLER)

    eventually(lambda: "FinalMetricDataList" in described())
    with full_disk():
        go.touch()
        time.sleep(1)
        assert described()["TrainingJobStatus"] == "InProgress"
    found = ended(sagemaker)
    assert found["TrainingJobStatus"] == "Completed"
    series = sagemaker.training_jobs.metric_series(found["TrainingJobArn"])
    assert [value for _, value in series["loss"]] == [0.5, 0.25]


def test_a_job_that_cannot_make_its_folders_says_why(sagemaker: SageMaker, tmp_path: Path) -> None:
    (tmp_path / "sagemaker").touch()
    sagemaker.call("CreateTrainingJob", job("pass"), CALLER)
    assert "Not a directory" in ended(sagemaker)["FailureReason"]

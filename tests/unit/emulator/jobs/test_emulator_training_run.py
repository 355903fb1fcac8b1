"""The course of a training job, with a program of its own and a platform whose other services do not answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from emulator_fixtures import (
    CALLER,
    FakeRole,
    FakeS3,
    described_job,
    ended_job,
    eventually,
    full_disk,
    make_host,
    training_job,
)

from emulator.platform.awsapi import Payload
from emulator.platform.store import Record, Store
from emulator.sagemaker import SageMaker
from emulator.sagemaker.runs import Run
from emulator.sagemaker.training import job as training_job_module
from emulator.sagemaker.training.metrics import MetricSeries, Point, read_points

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}


@pytest.fixture
def sagemaker(tmp_path: Path) -> Iterator[SageMaker]:
    service = SageMaker(make_host(tmp_path, lambda arn, session_name: KEYS))
    yield service
    service.stop()


def entry_point(folder: Path, program: str, **algorithm: Any) -> Payload:
    """A training job that runs a program as its container's first process."""
    (folder / "program.py").write_text(program)
    request = training_job()
    command = {"ContainerEntrypoint": [sys.executable, str(folder / "program.py")]}
    request["AlgorithmSpecification"] |= {**command, **algorithm}
    return request


def test_lines_that_a_metric_matches_without_a_value_are_no_values(sagemaker: SageMaker, tmp_path: Path) -> None:
    # A program that prints more than a pipe holds comes to its end only if every line is read.
    program = "print('loss=x\\n' * 20_000 + 'loss=0.5\\n' + 'loss=nan\\n' * 20_000)"
    definitions = [{"Name": "loss", "Regex": r"loss=([0-9.]+)?"}]
    sagemaker.call("CreateTrainingJob", entry_point(tmp_path, program, MetricDefinitions=definitions), CALLER)
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
    sagemaker: SageMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = tmp_path / "go"
    program = f"""
import pathlib, time
print('loss=0.5', flush=True)
while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)
print('loss=0.25')
"""
    request = entry_point(tmp_path, program, MetricDefinitions=[{"Name": "loss", "Regex": "loss=([0-9.]+)"}])
    sagemaker.call("CreateTrainingJob", request, CALLER)
    eventually(lambda: "FinalMetricDataList" in described_job(sagemaker))
    with full_disk():
        go.touch()
        eventually(lambda: "Trying again until there is some" in caplog.text)
        assert described_job(sagemaker)["TrainingJobStatus"] == "InProgress"
    found = ended_job(sagemaker)
    assert found["TrainingJobStatus"] == "Completed"
    series = sagemaker.training_jobs.metric_series(found["TrainingJobArn"])
    assert [value for _, value in series["loss"]] == [0.5, 0.25]


def test_a_job_that_cannot_make_its_folders_says_why(sagemaker: SageMaker, tmp_path: Path) -> None:
    (tmp_path / "sagemaker").touch()
    sagemaker.call("CreateTrainingJob", entry_point(tmp_path, "pass"), CALLER)
    assert "Not a directory" in ended_job(sagemaker)["FailureReason"]


#: Says that it runs, notes down that it was told to end, and goes on.
UNIMPRESSED = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (folder / "told").touch())
(folder / "pid").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    """Let jobs read and write a dictionary."""
    s3 = FakeS3()
    monkeypatch.setattr(training_job_module, "Role", lambda *_: FakeRole(s3))
    return s3


def stopped(sagemaker: SageMaker, folder: Path, request: Payload) -> tuple[Payload, float]:
    """Start a job, stop it once its program runs, and wait for its end; the job, and how long the end took."""
    sagemaker.call("CreateTrainingJob", request, CALLER)
    eventually((folder / "pid").exists)
    began = time.monotonic()
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
    return ended_job(sagemaker), time.monotonic() - began


def test_an_entry_point_of_its_own_hears_of_a_stop_and_its_children_do_not(
    sagemaker: SageMaker, stores: FakeS3, tmp_path: Path
) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    for folder in (parent, child):
        folder.mkdir()
    program = f"""
import pathlib, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {UNIMPRESSED!r}, {str(child)!r}])
def leave(*_):
    pathlib.Path({str(parent)!r}, "told").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
signal.pause()
"""
    job, seconds = stopped(sagemaker, child, entry_point(tmp_path, program))
    assert job["TrainingJobStatus"] == "Stopped"
    assert (parent / "told").exists()
    assert not (child / "told").exists()
    assert seconds < 1, "the container ends with its first process"
    eventually(lambda: not psutil.pid_exists(int((child / "pid").read_text())))


def test_a_first_process_without_a_handler_ignores_the_stop(
    sagemaker: SageMaker, stores: FakeS3, tmp_path: Path
) -> None:
    program = f"import pathlib, time; pathlib.Path({str(tmp_path)!r}, 'pid').touch(); time.sleep(600)"
    job, seconds = stopped(sagemaker, tmp_path, entry_point(tmp_path, program))
    assert job["TrainingJobStatus"] == "Stopped"
    assert seconds > 1


def test_the_time_for_a_training_includes_the_download(
    sagemaker: SageMaker, stores: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_object, passed = stores.get_object, [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr("emulator.sagemaker.training.limits.time", clock)

    def slow(**names: str) -> dict[str, Any]:
        passed[0] = 40.0
        return get_object(**names)

    stores.get_object = slow  # type: ignore[method-assign]
    stores.objects["data/x"] = b""
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data/"}
    channel = {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
    request = entry_point(tmp_path, "import time; time.sleep(600)") | {"InputDataConfig": [channel]}
    sagemaker.call("CreateTrainingJob", request | {"StoppingCondition": {"MaxRuntimeInSeconds": 30}}, CALLER)
    assert ended_job(sagemaker)["SecondaryStatus"] == "MaxRuntimeExceeded"

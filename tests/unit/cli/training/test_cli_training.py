"""`kennel train` and `kennel package` on SageMaker: what goes to a job, and jobs that are followed, stopped, gone."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from fake_account import FakeAccount, refusal
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.aws import ROOT
from cli.errors import NotReadyError
from cli.training import commands, following, packaging, sagemaker
from cli.training.hyperparameters import chosen, encode
from cli.training.sagemaker import SOURCE_DIR, saved_by_spot, source_bundle


def test_what_somebody_chose_comes_back_from_sagemaker_as_it_was():
    given = {"lr": "0.01", "epochs": "7", "name": "true", "odd": 'a "quoted" ü'}
    held = encode({**given, "code-revision": "1", "model-name": "x", "sagemaker_container_log_level": 20})
    tuned = {"batch_size": "64", "_tuning_objective_metric": "valid:loss"}
    assert chosen({**held, **tuned}) == {**given, "batch-size": "64"}


def test_what_spot_capacity_saved_is_said_where_sagemaker_says_it():
    ended = {"TrainingTimeInSeconds": 200, "BillableTimeInSeconds": 60}
    assert "60 s are billed: spot capacity saved 70%" in saved_by_spot({**ended, "EnableManagedSpotTraining": True})
    assert saved_by_spot(ended) == ""


def test_the_documentation_makes_a_source_dir_of_the_same_files(tmp_path):
    (command,) = re.findall(r"^mkdir .*build/source$", (ROOT / "docs" / "local-aws-sdk.md").read_text(), re.MULTILINE)
    subprocess.run(command.replace("build/source", str(tmp_path / "source")), shell=True, cwd=ROOT, check=True)
    with tarfile.open(fileobj=io.BytesIO(source_bundle(SOURCE_DIR))) as bundle:
        files = {member.name: bundle.extractfile(member).read() for member in bundle if member.isfile()}
    assert "train.py" in files
    assert {name: (tmp_path / "source" / name).read_bytes() for name in files} == files


def test_each_phase_is_printed_once_and_its_progress_now_and_then(monkeypatch, capsys):
    clock, printer = [0.0], following.PhasePrinter()
    monkeypatch.setattr(following, "monotonic", lambda: clock[0])

    def show(status: str, *course: tuple[str, str]) -> None:
        transitions = [{"Status": phase, "StatusMessage": message} for phase, message in course]
        printer.print_new({"TrainingJobStatus": status, "SecondaryStatusTransitions": transitions})

    show("InProgress", ("Starting", "Preparing"))
    for clock[0], done in ((0.5, 10), (1.0, 20), (6.0, 60), (12.0, 60)):
        show("InProgress", ("Starting", "Preparing"), ("Downloading", f"{done} of 100 objects"))
    course = (("Starting", "Preparing"), ("Downloading", "100 of 100 objects"), ("Training", ""), ("Uploading", ""))
    show("Completed", *course, ("Completed", "Done"))
    lines = ["Starting: Preparing", "Downloading: 10 of 100 objects", "Downloading: 60 of 100 objects"]
    assert capsys.readouterr().out.splitlines() == [*lines, "Training", "Uploading"]


def stage_with(jobs: dict[str, tuple[str, str]]) -> FakeStage:
    """A stage with jobs, the newest last: by name, a status and the bucket of its outputs."""
    described = {
        name: {
            "TrainingJobName": name,
            "TrainingJobStatus": status,
            "CreationTime": datetime(2026, 11, day, tzinfo=UTC),
            "ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/model.tar.gz"},
        }
        for day, (name, (status, bucket)) in enumerate(jobs.items(), start=1)
    }

    def describe(*, TrainingJobName: str) -> dict[str, Any]:
        if TrainingJobName not in described:
            raise refusal("ValidationException", "Requested resource not found.")
        return described[TrainingJobName]

    def list_jobs(*, StatusEquals: str, **_: str) -> dict[str, Any]:
        found = [job for job in described.values() if job["TrainingJobStatus"] == StatusEquals]
        return {"TrainingJobSummaries": found[::-1]}

    aws = FakeAccount()
    aws.answers |= {"describe_training_job": describe, "stop_training_job": describe, "list_training_jobs": list_jobs}
    aws.log_groups = {sagemaker.LOG_GROUP: []}
    return FakeStage(s3=FakeS3(), aws=aws)


@pytest.mark.parametrize("option", ["follow", "stop"])
def test_a_job_that_is_not_there_is_named(option):
    context: Any = SimpleNamespace(obj=stage_with({}))
    with pytest.raises(NotReadyError, match="no training job 'gone' in account 123456789012, region us-east-1"):
        commands.train(context, **{option: "gone"})


def test_jobs_from_before_a_stage_was_destroyed_are_not_packaged():
    others = {
        "kennel-dev-2": ("Completed", "the-bucket-of-an-earlier-deployment"),
        "kennel-dev-tune-3": ("Completed", "bucket"),
        "kennel-dev-4": ("Stopped", "bucket"),
    }
    assert packaging.newest_job(stage_with({"kennel-dev-1": ("Completed", "bucket"), **others})) == "kennel-dev-1"
    with pytest.raises(NotReadyError, match="No training job of this stage has completed yet"):
        packaging.newest_job(stage_with(others))

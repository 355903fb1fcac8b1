"""`kennel train --on ec2` against fakes: what is launched, what is said before, and what is made of each ending."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.errors import AwsError, NotReadyError, UsageError, WorkFailedError
from cli.training import ec2 as ec2_training
from cli.training import ec2_instances, ec2_jobs, packaging
from cli.training import sagemaker as training
from cli.training.ec2 import Machine
from cli.training.sagemaker import TrainingRequest
from programs.ec2_training.training_instance.job import Job

OUTPUTS = {
    "DataBucketName": "bucket",
    "TrainingLaunchTemplateId": "lt-1",
    "TrainingSubnetIds": "subnet-1,subnet-2",
    "TrainingInstanceLogGroup": "group",
}


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "Operation")


class FakeEc2:
    """Launches what it is asked for; each instance does what `then` says, when it is launched."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.instances: list[dict[str, Any]] = []
        self.then: Callable[[str], None] = lambda job: None

    def run_instances(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        if self.refusals:
            raise client_error(self.refusals.pop(0))
        number, tags = len(self.requests), request["TagSpecifications"][0]["Tags"]
        instance = {"InstanceId": f"i-{number}", "LaunchTime": number, "State": {"Name": "running"}, "Tags": tags}
        self.instances.insert(0, instance)
        self.then(tags[0]["Value"])
        return {"Instances": [instance]}

    def end(self, state: str = "terminated") -> None:
        """What happens to all instances."""
        for instance in self.instances:
            instance["State"]["Name"] = state

    def get_paginator(self, _: str) -> FakeEc2:
        return self

    def paginate(self, *, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        wanted = {given["Name"]: given["Values"] for given in Filters}
        states = wanted.pop("instance-state-name", None)
        found = [
            instance
            for instance in self.instances
            if (states is None or instance["State"]["Name"] in states)
            and all({"Key": name.removeprefix("tag:"), "Value": value} in instance["Tags"]
                    for name, (value,) in wanted.items())
        ]  # fmt: skip
        return [{"Reservations": [{"Instances": found}]}]

    def terminate_instances(self, *, InstanceIds: list[str]) -> None:
        self.end("shutting-down")

    def get_waiter(self, name: str) -> FakeEc2:
        assert name == "instance_terminated"
        return self

    def wait(self, *, InstanceIds: list[str], WaiterConfig: dict[str, int]) -> None:
        self.waited_for = InstanceIds

    def get_console_output(self, *, InstanceId: str) -> dict[str, str]:
        return {"Output": f"{InstanceId} says: kernel panic"}


class FakeLogs:
    def describe_log_streams(self, **_: str) -> dict[str, Any]:
        return {"logStreams": []}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ec2_training, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(ec2_training, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(ec2_training, "_APPEARS_SECONDS", 0.0)
    monkeypatch.setattr(training, "source_bundle", lambda folder: b"source")
    s3 = FakeS3()
    s3.objects["datasets/dogs/train/a/1.jpg"] = b""
    return FakeStage(outputs=OUTPUTS, s3=s3, ec2=FakeEc2(), logs=FakeLogs())


def start(stage: Any, machine: Machine = Machine(), **hyperparameters: str) -> str:  # noqa: B008 - it is frozen
    return ec2_training.start_training(stage, TrainingRequest("dogs", hyperparameters), machine)


def report(stage: Any, job: str, state: str, **members: Any) -> None:
    """What an instance would leave."""
    status = {
        "instance_id": "i-1",
        "instance_type": "g4dn.xlarge",
        "state": state,
        "reason": None,
        "model": None,
        "started": time.time(),
        "ended": time.time(),
    }
    stage.s3.objects[f"training/{job}/status.json"] = json.dumps(status | members).encode()


def test_a_job_is_described_where_instances_may_read_and_not_write(stage: Any) -> None:
    name = start(stage, lr="0.1")
    job = Job.parse(stage.s3.objects[f"code/jobs/{name}.json"].decode())
    assert job.channels == {"training": "s3://bucket/datasets/dogs/"}
    assert (job.output, job.checkpoints) == (f"s3://bucket/training/{name}", f"s3://bucket/checkpoints/{name}/")
    assert re.fullmatch(r"s3://bucket/code/[0-9a-f]{16}/sourcedir.tar.gz", job.source)
    assert job.hyperparameters["lr"] == "0.1"
    assert job.hyperparameters["model-name"] == "dogs"
    assert job.max_runtime_seconds == stage.settings.training.ec2.max_runtime_seconds
    assert job.hyperparameters["max-runtime"] == "3300", "the packages that the image lacks take their time, too"


@pytest.mark.parametrize("values", [{"epochz": "3"}, {"compile": "true"}], ids=str)
def test_what_the_program_would_not_take_starts_nothing(stage: Any, values: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"The training cannot be started: .*--help lists all arguments"):
        start(stage, **values)
    assert list(stage.client("s3").objects) == ["datasets/dogs/train/a/1.jpg"]


def test_price_and_time_limit_are_said_before_the_launch(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def launched(job: str) -> None:
        said = capsys.readouterr().out
        assert "t3.xlarge (0.166 USD per hour" in said
        assert "0.05 USD per vCPU-hour more" in said
        assert "after 90 minutes at the latest" in said

    stage.ec2.then = launched
    start(stage)
    assert len(stage.ec2.requests) == 1


def test_the_newest_template_is_launched_once_with_the_jobs_name(stage: Any) -> None:
    job = start(stage)
    (request,) = stage.ec2.requests
    assert request["LaunchTemplate"] == {"LaunchTemplateId": "lt-1", "Version": "$Latest"}
    assert (request["MinCount"], request["MaxCount"], request["SubnetId"]) == (1, 1, "subnet-1")
    (specification,) = request["TagSpecifications"]
    tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
    assert tags == {"training-job": job, "project": "kennel", "stage": "dev"}
    assert "InstanceMarketOptions" not in request
    assert not {"UserData", "KeyName", "SecurityGroupIds", "ImageId"} & request.keys()


def test_spot_is_asked_for_at_the_launch(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    start(stage, Machine("g4dn.xlarge", spot=True))
    (request,) = stage.ec2.requests
    assert request["InstanceMarketOptions"]["MarketType"] == "spot"
    assert request["InstanceType"] == "g4dn.xlarge"
    assert "spot: less than 0.526 USD per hour" in capsys.readouterr().out


def test_another_zone_is_tried_when_the_first_has_no_machine(stage: Any) -> None:
    stage.ec2.refusals = ["InsufficientInstanceCapacity"]
    start(stage)
    assert [request["SubnetId"] for request in stage.ec2.requests] == ["subnet-1", "subnet-2"]
    assert len({request["ClientToken"] for request in stage.ec2.requests}) == 2


@pytest.mark.parametrize("refusals", [["InsufficientInstanceCapacity"] * 2, ["UnauthorizedOperation"]])
def test_what_no_other_zone_can_help_is_an_error(stage: Any, refusals: list[str]) -> None:
    stage.ec2.refusals = list(refusals)
    with pytest.raises(AwsError, match=refusals[-1]):
        start(stage)
    assert len(stage.ec2.requests) == len(refusals)
    (status,) = (json.loads(body) for key, body in stage.s3.objects.items() if key.endswith("status.json"))
    assert status["state"] == "Failed"
    assert refusals[-1] in status["reason"]


@pytest.mark.parametrize(
    ("instance_type", "message"), [("t3.huge", "is not an EC2 instance type"), ("t4g.xlarge", "names an x86_64 image")]
)
def test_types_that_cannot_run_it_are_refused_before_anything_is_uploaded(
    stage: Any, instance_type: str, message: str
) -> None:
    before = dict(stage.s3.objects)
    with pytest.raises(UsageError, match=message):
        start(stage, Machine(instance_type))
    assert (stage.s3.objects, stage.ec2.requests) == (before, [])


def test_a_data_set_that_is_not_there_starts_nothing(stage: Any) -> None:
    with pytest.raises(NotReadyError, match="no data set 'cats'"):
        ec2_training.start_training(stage, TrainingRequest("cats"), Machine())
    assert stage.ec2.requests == []


def test_a_stage_without_the_section_says_how_to_get_it(stage: Any) -> None:
    stage.configure("training", ec2=None)
    with pytest.raises(NotReadyError, match="has no EC2 training") as error:
        start(stage)
    assert "[training.ec2]" in error.value.hint


def test_the_last_completed_job_to_be_started_is_packaged_next(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [start(stage) for _ in range(3)]
    for job, state in zip(jobs, ("Completed", "Completed", "Failed"), strict=True):
        report(stage, job, state)
    launched = stage.s3.objects.times[f"code/jobs/{jobs[1]}.json"]
    for later, newest in ((-1, jobs[1]), (1, "kennel-dev-1")):
        on_sagemaker = (launched + timedelta(seconds=later), "kennel-dev-1")
        monkeypatch.setattr(packaging, "_latest_completed_job", lambda _, found=on_sagemaker: found)
        assert packaging._newest_job(stage) == newest


@pytest.mark.parametrize("status", [b"", b"[]", b"{}", b"\xff", b'{"state": 1}', b"[" * 100_000])
def test_a_status_that_is_none_is_said(stage: Any, status: bytes) -> None:
    job = start(stage)
    stage.s3.objects[f"training/{job}/status.json"] = status
    with pytest.raises(NotReadyError, match=f"The status of {job} is none"):
        ec2_training.follow_training(stage, job)


def test_a_failed_job_says_why_and_how_to_go_on(stage: Any) -> None:
    stage.ec2.then = lambda job: report(stage, job, "Failed", reason="no luck (exit code 1)")
    job = start(stage)
    with pytest.raises(WorkFailedError, match="ended as Failed: no luck") as error:
        ec2_training.follow_training(stage, job)
    assert f"--resume {job}" in error.value.hint


def test_an_instance_that_vanishes_is_noticed(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = start(stage)
    report(stage, job, "Training", started=time.time() - 1000)
    stage.ec2.end()
    with pytest.raises(WorkFailedError, match="gone without saying why; the last that it reported was Training"):
        ec2_training.follow_training(stage, job)
    assert "kernel panic" in capsys.readouterr().out


def test_of_an_instance_that_never_reported_the_console_is_shown_too(
    stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ec2_training, "_APPEARS_SECONDS", -1.0)
    job = start(stage)
    stage.ec2.end()
    ec2_training.resume_training(stage, job, Machine())
    stage.ec2.end()
    with pytest.raises(WorkFailedError, match="the last that it reported was Launching"):
        ec2_training.follow_training(stage, job)
    assert "i-2 says: kernel panic" in capsys.readouterr().out


def test_of_an_instance_that_ec2_has_forgotten_nothing_is_shown(stage: Any) -> None:
    job = start(stage)
    report(stage, job, "Training", started=time.time() - 1000)
    stage.ec2.instances.clear()
    with pytest.raises(WorkFailedError, match="gone without saying why"):
        ec2_training.follow_training(stage, job)


def test_destroying_a_stage_waits_for_instances_that_are_ending_by_themselves(stage: Any) -> None:
    start(stage)
    stage.ec2.end("shutting-down")
    ec2_instances.terminate_instances(stage)
    assert stage.ec2.waited_for == ["i-1"]


def test_an_instance_that_lives_is_not_followed_by_another_whatever_the_status_says(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(stage)
    report(stage, job, "Interrupted", reason="So another training of the stage has written.")
    looks = iter(range(3))

    def sleep(_: float) -> None:
        if next(looks, None) is None:
            assert len(stage.ec2.requests) == 1
            stage.ec2.end()
            stage.ec2.then = lambda job: report(stage, job, "Completed")

    monkeypatch.setattr(ec2_training.time, "sleep", sleep)
    assert ec2_training.follow_training(stage, job)["state"] == "Completed"
    assert len(stage.ec2.requests) == 2


def test_a_new_instance_has_time_to_appear(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2_training, "_APPEARS_SECONDS", 90.0)
    job = start(stage)
    stage.ec2.end()  # EC2 does not show it yet
    looks = []

    def look(*_: Any) -> None:
        looks.append(1)
        if len(looks) > 3:
            report(stage, job, "Completed")

    monkeypatch.setattr(FakeLogs, "describe_log_streams", lambda *_, **__: look() or {"logStreams": []})
    assert ec2_training.follow_training(stage, job)["state"] == "Completed"


def test_a_spot_instance_that_is_taken_back_is_followed_by_another(
    stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(["Interrupted", "Interrupted", "Completed"])

    def end(job: str) -> None:
        report(stage, job, next(states), reason="AWS takes the spot instance back.")
        stage.ec2.end()

    stage.ec2.then = end
    job = start(stage, Machine("g4dn.xlarge", spot=True))
    assert ec2_training.follow_training(stage, job)["state"] == "Completed"
    assert len(stage.ec2.requests) == 3
    assert all("InstanceMarketOptions" in request for request in stage.ec2.requests)
    assert [request["InstanceType"] for request in stage.ec2.requests[1:]] == ["g4dn.xlarge"] * 2
    assert capsys.readouterr().out.count("at the latest") == 3  # each launch says its price


def test_whoever_follows_a_spot_training_without_a_word_on_machines_gets_the_same_one_again(stage: Any) -> None:
    job = start(stage, Machine("g4dn.xlarge", spot=True))
    report(stage, job, "Interrupted", reason="AWS takes the spot instance back.")
    stage.ec2.end()
    stage.ec2.then = lambda job: report(stage, job, "Completed")
    ec2_training.follow_training(stage, job)
    request = stage.ec2.requests[-1]
    assert (len(stage.ec2.requests), request["InstanceType"]) == (2, "g4dn.xlarge")
    assert request["InstanceMarketOptions"]["MarketType"] == "spot"


def test_a_resumed_training_keeps_its_type_of_instance_unless_another_is_named(stage: Any) -> None:
    job = start(stage, Machine("g4dn.xlarge"))
    for asked, launched in ((None, "g4dn.xlarge"), ("m5.xlarge", "m5.xlarge")):
        # The training's own word on that does not count: it is the operator who pays.
        report(stage, job, "Failed", instance_type="p5.48xlarge")
        stage.ec2.end()
        ec2_training.resume_training(stage, job, Machine(asked))
        assert stage.ec2.requests[-1]["InstanceType"] == launched


def test_stopping_asks_the_instance_and_resuming_takes_the_question_back(stage: Any) -> None:
    job = start(stage)
    ec2_training.stop_training(stage, job)
    assert f"code/jobs/{job}.stop" in stage.s3.objects
    report(stage, job, "Stopped")
    stage.ec2.end()
    ec2_training.resume_training(stage, job, Machine())
    assert f"code/jobs/{job}.stop" not in stage.s3.objects
    assert json.loads(stage.s3.objects[f"training/{job}/status.json"])["state"] == "Launching"


def test_a_training_that_says_that_it_has_ended_can_be_stopped_while_it_has_an_instance(stage: Any) -> None:
    job = start(stage)
    report(stage, job, "Completed")
    ec2_training.stop_training(stage, job)
    assert f"code/jobs/{job}.stop" in stage.s3.objects
    stage.ec2.end()
    with pytest.raises(NotReadyError, match="has ended already"):
        ec2_training.stop_training(stage, job)


def test_unknown_jobs_are_refused(stage: Any) -> None:
    for call in (ec2_training.stop_training, ec2_training.follow_training, ec2_jobs.begin_and_end):
        with pytest.raises(NotReadyError, match="no training job 'kennel-dev-ec2-x'"):
            call(stage, "kennel-dev-ec2-x")


def test_a_later_status_cannot_make_an_operator_pay_twice(stage: Any) -> None:
    job = start(stage)
    report(stage, job, "Completed")
    report(stage, job, "Interrupted", reason="So another training of the stage has written.")
    stage.ec2.end()
    with pytest.raises(NotReadyError, match=f"{job} is completed"):
        ec2_training.resume_training(stage, job, Machine())
    assert len(stage.ec2.requests) == 1

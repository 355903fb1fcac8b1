"""`kennel train --on ec2` against fakes: what is launched, what is said before, and what is made of each ending."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fake_account import FakeAccount, refusal
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.errors import AwsError, NotReadyError, UsageError, WorkFailedError
from cli.training import ec2 as ec2_training
from cli.training import ec2_instances
from cli.training import sagemaker as training
from cli.training.sagemaker import TrainingRequest


class FakeEc2(FakeAccount):
    """Launches what it is asked for; each instance does what `then` says, when it is launched."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.instances: list[dict[str, Any]] = []
        self.then: Callable[[str], None] = lambda job: None

    def run_instances(self, **request: Any) -> dict[str, Any]:
        self.launches.append(request)
        if self.refusals:
            raise refusal(self.refusals.pop(0))
        tags = {f"tag:{tag['Key']}": tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]}
        self.instances.append({"InstanceId": f"i-{len(self.launches)}", "tag-key": "training-job", **tags})
        self.end("running")
        self.then(tags["tag:training-job"])
        return {"Instances": self.instances[-1:]}

    def end(self, state: str = "terminated") -> None:
        for instance in self.instances:
            instance["instance-state-name"] = state

    def describe_instances(self, *, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        wanted = [(given["Name"], given["Values"]) for given in Filters]
        found = [each for each in self.instances if all(each[name] in values for name, values in wanted)]
        return {"Reservations": [{"Instances": found}]}

    def terminate_instances(self, *, InstanceIds: list[str]) -> None:
        self.end("shutting-down")

    def get_waiter(self, name: str) -> Any:
        assert name == "instance_terminated"
        return SimpleNamespace(wait=lambda InstanceIds, WaiterConfig: setattr(self, "waited_for", InstanceIds))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("_POLL_SECONDS", "_APPEARS_SECONDS"):
        monkeypatch.setattr(ec2_training, name, 0.0)
    monkeypatch.setattr(training, "source_bundle", lambda folder: b"source")
    s3 = FakeS3()
    s3.objects["datasets/dogs/train/a/1.jpg"] = b""
    logs = SimpleNamespace(describe_log_streams=lambda **_: {"logStreams": []})
    return FakeStage(outputs={"TrainingSubnetIds": "subnet-1,subnet-2"}, s3=s3, ec2=FakeEc2(), logs=logs)


def start(stage: Any, instance_type: str | None = None, spot: bool | None = None) -> str:
    return ec2_training.start_training(stage, TrainingRequest("dogs", instance_type=instance_type, spot=spot))


def report(stage: Any, job: str, state: str, **members: Any) -> None:
    now = time.time()
    status = {"job": job, "instance_id": "i", "instance_type": "t3.xlarge", "state": state, "started": now}
    stage.s3.objects[f"training/{job}/status.json"] = json.dumps({**status, "ended": now, **members}).encode()


@pytest.mark.parametrize(
    ("machine", "message"), [("t3.huge", r"'t3\.huge' is not known"), ("t4g.xlarge", "names an x86_64 image")]
)
def test_a_machine_that_cannot_run_the_image_is_refused_before_anything_is_uploaded(stage, machine, message):
    with pytest.raises(UsageError, match=message):
        start(stage, machine)
    assert (list(stage.s3.objects), stage.ec2.launches) == (["datasets/dogs/train/a/1.jpg"], [])


def test_the_newest_template_is_launched_in_a_zone_that_has_the_machine(stage):
    stage.ec2.refusals = ["InsufficientInstanceCapacity"]
    start(stage)
    first, second = stage.ec2.launches
    assert second["LaunchTemplate"] == {"LaunchTemplateId": "TrainingLaunchTemplateId", "Version": "$Latest"}
    assert (first["SubnetId"], second["SubnetId"]) == ("subnet-1", "subnet-2")
    assert first["ClientToken"] != second["ClientToken"]
    assert not {"UserData", "KeyName", "SecurityGroupIds", "ImageId", "InstanceMarketOptions"} & second.keys()


@pytest.mark.parametrize("refusals", [["InsufficientInstanceCapacity"] * 2, ["UnauthorizedOperation"]])
def test_what_no_other_zone_can_help_is_an_error(stage, refusals):
    stage.ec2.refusals = list(refusals)
    with pytest.raises(AwsError, match=refusals[-1]):
        start(stage)
    assert len(stage.ec2.launches) == len(refusals)
    (status,) = (json.loads(body) for key, body in stage.s3.objects.items() if key.endswith("status.json"))
    assert status["state"] == "Failed" and refusals[-1] in status["reason"]


@pytest.mark.parametrize("status", [b"{}", b"\xff", b"[" * 100_000])
def test_a_status_that_is_none_is_said(stage, status):
    job = start(stage)
    stage.s3.objects[f"training/{job}/status.json"] = status
    with pytest.raises(NotReadyError, match=f"The status of {job} is none"):
        ec2_training.follow_training(stage, job)


def test_an_instance_that_vanishes_is_noticed(stage):
    job = start(stage)
    report(stage, job, "Training")
    stage.ec2.end()
    with pytest.raises(WorkFailedError, match="gone without saying why; the last that it reported was Training"):
        ec2_training.follow_training(stage, job)


def test_destroying_a_stage_waits_for_instances_that_are_ending_by_themselves(stage):
    start(stage)
    stage.ec2.end("shutting-down")
    ec2_instances.terminate_instances(stage)
    assert stage.ec2.waited_for == ["i-1"]


def test_an_instance_that_lives_is_not_followed_by_another_whatever_the_status_says(stage, monkeypatch):
    job = start(stage)
    report(stage, job, "Interrupted", reason="So another training of the stage has written.")
    looks = iter(range(3))

    def sleep(_: float) -> None:
        if next(looks, None) == 2:
            assert len(stage.ec2.launches) == 1
            stage.ec2.end()
            stage.ec2.then = lambda job: report(stage, job, "Completed")

    monkeypatch.setattr(ec2_training.time, "sleep", sleep)
    assert ec2_training.follow_training(stage, job).state == "Completed"
    assert len(stage.ec2.launches) == 2


def test_a_spot_instance_that_is_taken_back_is_followed_by_another_like_it(stage, capsys):
    states = iter(["Interrupted", "Interrupted", "Completed"])

    def end(job: str) -> None:
        report(stage, job, next(states), reason="AWS takes the spot instance back.")
        stage.ec2.end()

    stage.ec2.then = end
    ec2_training.follow_training(stage, start(stage, "g4dn.xlarge", True))
    launched = [(each["InstanceType"], each["InstanceMarketOptions"]["MarketType"]) for each in stage.ec2.launches]
    assert launched == [("g4dn.xlarge", "spot")] * 3
    assert capsys.readouterr().out.count("at the latest") == 3  # each launch says its price


def test_a_resumed_training_keeps_its_type_of_instance_unless_another_is_named(stage):
    job = start(stage, "g4dn.xlarge")
    for asked, launched in ((None, "g4dn.xlarge"), ("m5.xlarge", "m5.xlarge")):
        # The training's own word on that does not count: it is the operator who pays.
        report(stage, job, "Failed", instance_type="p5.48xlarge")
        stage.ec2.end()
        ec2_training.resume_training(stage, job, asked)
        assert stage.ec2.launches[-1]["InstanceType"] == launched


def test_resuming_takes_a_stop_back(stage):
    job = start(stage)
    ec2_training.stop_training(stage, job)
    report(stage, job, "Stopped")
    stage.ec2.end()
    ec2_training.resume_training(stage, job)
    assert f"code/jobs/{job}.stop" not in stage.s3.objects
    assert json.loads(stage.s3.objects[f"training/{job}/status.json"])["state"] == "Launching"


def test_a_training_that_says_that_it_has_ended_can_be_stopped_while_it_has_an_instance(stage):
    job = start(stage)
    report(stage, job, "Completed")
    ec2_training.stop_training(stage, job)
    assert f"code/jobs/{job}.stop" in stage.s3.objects


def test_a_later_status_cannot_make_an_operator_pay_twice(stage):
    job = start(stage)
    report(stage, job, "Completed")
    report(stage, job, "Interrupted")
    stage.ec2.end()
    with pytest.raises(NotReadyError, match=f"{job} is completed"):
        ec2_training.resume_training(stage, job)
    assert len(stage.ec2.launches) == 1

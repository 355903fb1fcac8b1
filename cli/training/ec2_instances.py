"""The EC2 instances of a stage's trainings: launched from the stack's template, found again by their tags."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.errors import aws_errors
from programs.ec2_training.training_instance.job import JOB_TAG

#: Another zone may have what this one lacks.
_TRY_ANOTHER_ZONE = ("InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet", "Unsupported")
_LIVE = ["pending", "running"]
#: Still in the network, which cannot be deleted before they are gone; the volume of a stopped one is billed.
_ENDING = ["shutting-down", "stopping", "stopped"]


def run_instance(stage: Stage, job: str, instance_type: str, spot: bool) -> str:
    """Launch an instance that trains a job, in a zone that has one of the type; return its id."""
    tags = [{"Key": key, "Value": value} for key, value in {JOB_TAG: job, **stage.tags}.items()]
    template = stage.output("training", "TrainingLaunchTemplateId")
    request: dict[str, Any] = {
        "LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Latest"},
        "InstanceType": instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
    }
    if spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    ec2, subnets = stage.client("ec2"), stage.output("training", "TrainingSubnetIds").split(",")
    for subnet in subnets:
        try:
            answer = ec2.run_instances(**request, SubnetId=subnet, ClientToken=uuid.uuid4().hex)
            return str(answer["Instances"][0]["InstanceId"])
        except botocore.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in _TRY_ANOTHER_ZONE or subnet == subnets[-1]:
                raise
            console.print(f"No {instance_type} in the zone of {subnet} ({code}): trying another one.")
    raise AssertionError("the stack has subnets")


def terminate_instances(stage: Stage) -> int:
    """Terminate every training instance of the stage, wait until all are gone, and return how many there were."""
    ec2 = stage.client("ec2")
    with aws_errors():
        found = training_instances(stage, [*_LIVE, *_ENDING])
        if instances := [instance["InstanceId"] for instance in found]:
            console.print(f"Terminating the training instances {', '.join(instances)}")
            ec2.terminate_instances(InstanceIds=instances)
            waiting = {"Delay": 5, "MaxAttempts": 180}
            with progress_bar("Waiting until they are gone"):
                ec2.get_waiter("instance_terminated").wait(InstanceIds=instances, WaiterConfig=waiting)
    return len(instances)


def training_instances(stage: Stage, states: Sequence[str] = _LIVE) -> list[dict[str, Any]]:
    """Return the instances with the stage's tags in some states; by default those that are starting or running."""
    tags = {f"tag:{key}": [value] for key, value in stage.tags.items()}
    return _describe(stage, {**tags, "instance-state-name": [*states]})


def live_instances(stage: Stage, job: str) -> list[dict[str, Any]]:
    """Return the instances that are starting to train a job, or training it."""
    return _describe(stage, {f"tag:{JOB_TAG}": [job], "instance-state-name": _LIVE})


def _describe(stage: Stage, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
    given = [{"Name": name, "Values": values} for name, values in filters.items()]
    groups = stage.listed("ec2", "describe_instances", "Reservations", Filters=given)
    return [instance for group in groups for instance in group["Instances"]]

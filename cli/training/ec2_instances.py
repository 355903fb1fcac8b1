"""The EC2 instances of a stage's trainings: launched from the stack's template, found again by their tags."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.console import console
from cli.errors import aws_errors
from programs.ec2_training.training_instance.job import JOB_TAG

#: Another zone may have what this one lacks.
_TRY_ANOTHER_ZONE = ("InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet", "Unsupported")
_LIVE = ["pending", "running"]
#: Still in the network, which cannot be deleted before they are gone.
_ENDING = ["shutting-down", "stopping"]
_CONSOLE_LINES = 15


def run_instance(stage: Stage, job: str, template: str, subnets: list[str], instance_type: str, spot: bool) -> str:
    """Launch an instance that trains a job; returns its id.

    Raises
    ------
    botocore.exceptions.ClientError
        When EC2 refuses, after every zone has been tried that may have what another lacks.
    """
    request: dict[str, Any] = {
        "LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Latest"},
        "InstanceType": instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "TagSpecifications": [
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in {JOB_TAG: job, **_stage_tags(stage)}.items()],
            }
        ],
    }
    if spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    ec2 = stage.client("ec2")
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
    """End every training instance of the stage at once, wait until all are gone, and return how many there were."""
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in _stage_tags(stage).items()]
    ec2 = stage.client("ec2")
    with aws_errors():
        instances = [
            instance["InstanceId"]
            for instance in _describe(ec2, filters, [*_LIVE, *_ENDING])
            if any(tag["Key"] == JOB_TAG for tag in instance.get("Tags", []))
        ]
        if not instances:
            return 0
        console.print(f"Terminating the training instances {', '.join(instances)}")
        ec2.terminate_instances(InstanceIds=instances)
        ec2.get_waiter("instance_terminated").wait(InstanceIds=instances, WaiterConfig={"Delay": 5, "MaxAttempts": 180})
    return len(instances)


def last_console_lines(stage: Stage, job: str) -> str:
    """The end of what the newest instance of a job has written to its console; empty where that cannot be seen.

    The job's status need not know that instance, which may never have come to run its program. EC2 goes on showing
    instances for about an hour.
    """
    ec2 = stage.client("ec2")
    instances = _describe(ec2, [_job_filter(job)], None)
    if not instances:
        return ""
    newest = max(instances, key=lambda instance: instance["LaunchTime"])
    with suppress(botocore.exceptions.ClientError):  # not everybody may read it, and it is no more than a help
        output = ec2.get_console_output(InstanceId=newest["InstanceId"]).get("Output", "")
        return "\n".join(output.splitlines()[-_CONSOLE_LINES:])
    return ""


def live_instances(stage: Stage, job: str) -> list[dict[str, Any]]:
    """The instances that are starting to train a job, or training it."""
    return _describe(stage.client("ec2"), [_job_filter(job)], _LIVE)


def _job_filter(job: str) -> dict[str, Any]:
    return {"Name": f"tag:{JOB_TAG}", "Values": [job]}


def _describe(ec2: Any, filters: list[dict[str, Any]], states: list[str] | None) -> list[dict[str, Any]]:
    """Instances in some states, or in any."""
    in_states = [] if states is None else [{"Name": "instance-state-name", "Values": states}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=[*filters, *in_states])
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def _stage_tags(stage: Stage) -> dict[str, str]:
    """Tags of everything of a stage, as the stacks set them."""
    return {"project": stage.settings.project, "stage": stage.name}

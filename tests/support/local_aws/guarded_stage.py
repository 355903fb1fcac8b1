"""The cost guard of a stage's template, on a local AWS."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aws_cdk import App, Stack
from aws_cdk import aws_kms as kms
from local_aws_harness import LocalAws, zipped

from infra.constructs.monitoring.cost_guard import CostGuard
from infra.settings import load
from infra.tables.cost_guard import CostGuardSettings
from programs.cost_guard import cost_guard

ENDPOINT, OTHER_ENDPOINT = "kennel-local-instance", "kennel-local-other"
TAGS = {"project": "kennel", "stage": "local"}


def deploy_guard(aws: LocalAws, bucket: str, **guard: Any) -> dict[str, dict[str, Any]]:
    """Deploy what the construct makes for these settings; its resources of the stack, by type.

    The endpoint counts as idle after a moment, and what runs as old at once.
    """
    settings = replace(
        load("local"), cost_guard=CostGuardSettings(monthly_usd=10, email="you@example.org", training_hours=24, **guard)
    )

    def build(stack: Stack) -> None:
        key = kms.Key.from_key_arn(
            stack, "Key", f"arn:aws:kms:us-east-1:{'0' * 12}:key/{'0' * 8}-0000-0000-0000-{'0' * 12}"
        )
        CostGuard(stack, "Guard", settings=settings, topic=None, key=key)

    def change(properties: dict[str, dict[str, Any]]) -> None:
        function = properties["AWS::Lambda::Function"]
        function["Environment"]["Variables"] |= {"IDLE_HOURS": "0.0001", "TRAINING_HOURS": "0"}
        assert properties["AWS::Events::Rule"]["ScheduleExpression"] == "rate(1 hour)"
        properties["AWS::Events::Rule"]["ScheduleExpression"] = "rate(1 minute)"

    return deploy_construct(aws, bucket, "guard", build, {"cost_guard.py": Path(str(cost_guard.__file__))}, change)


def deploy_construct(
    aws: LocalAws,
    bucket: str,
    name: str,
    build: Callable[[Stack], None],
    code: Mapping[str, Path],
    change: Callable[[dict[str, dict[str, Any]]], None] = lambda properties: None,
) -> dict[str, dict[str, Any]]:
    """Deploy a stack with one function, of this code; its resources by type, whose properties may be changed before."""
    with tempfile.TemporaryDirectory() as folder:
        app = App(outdir=folder, analytics_reporting=False)
        build(Stack(app, name))
        app.synth()
        template = json.loads((Path(folder) / f"{name}.template.json").read_text(encoding="utf-8"))
    for section in ("Parameters", "Rules"):  # of a bootstrapped account, which this one is not
        template.pop(section, None)
    archive = zipped({inside: path.read_bytes() for inside, path in code.items()})
    aws.s3.put_object(Bucket=bucket, Key=f"{name}.zip", Body=archive)
    properties = {resource["Type"]: resource["Properties"] for resource in template["Resources"].values()}
    properties["AWS::Lambda::Function"]["Code"] = {"S3Bucket": bucket, "S3Key": f"{name}.zip"}
    change(properties)
    made = aws.deploy(name, template)
    assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    resources = aws.cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {resource["ResourceType"]: resource for resource in resources}


def launch(aws: LocalAws, **tags: str) -> str:
    specification = {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    request = {"ImageId": "ami-12345678", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    launched = aws.client("ec2").run_instances(**request, TagSpecifications=[specification])
    return str(launched["Instances"][0]["InstanceId"])

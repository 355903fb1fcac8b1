"""The cost guard of a stage's template, on a local AWS."""

from __future__ import annotations

import json
import tempfile
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
    with tempfile.TemporaryDirectory() as folder:
        app = App(outdir=folder, analytics_reporting=False)
        stack = Stack(app, "guard")
        key = kms.Key.from_key_arn(
            stack, "Key", f"arn:aws:kms:us-east-1:{'0' * 12}:key/{'0' * 8}-0000-0000-0000-{'0' * 12}"
        )
        CostGuard(stack, "Guard", settings=settings, topic=None, key=key)
        app.synth()
        template = json.loads((Path(folder) / "guard.template.json").read_text(encoding="utf-8"))
    for name in ("Parameters", "Rules"):  # of a bootstrapped account, which this one is not
        template.pop(name, None)
    code = zipped({"cost_guard.py": Path(str(cost_guard.__file__)).read_bytes()})
    aws.s3.put_object(Bucket=bucket, Key="guard.zip", Body=code)
    properties = {resource["Type"]: resource["Properties"] for resource in template["Resources"].values()}
    function = properties["AWS::Lambda::Function"]
    function["Code"] = {"S3Bucket": bucket, "S3Key": "guard.zip"}
    function["Environment"]["Variables"] |= {"IDLE_HOURS": "0.0001", "TRAINING_HOURS": "0"}
    assert properties["AWS::Events::Rule"]["ScheduleExpression"] == "rate(1 hour)"
    properties["AWS::Events::Rule"]["ScheduleExpression"] = "rate(1 minute)"
    made = aws.deploy("guard", template)
    assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    resources = aws.cloudformation.describe_stack_resources(StackName="guard")["StackResources"]
    return {resource["ResourceType"]: resource for resource in resources}


def launch(aws: LocalAws, **tags: str) -> str:
    specification = {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    request = {"ImageId": "ami-12345678", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    launched = aws.client("ec2").run_instances(**request, TagSpecifications=[specification])
    return str(launched["Instances"][0]["InstanceId"])

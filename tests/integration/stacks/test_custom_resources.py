"""Custom resources of a stack: their failures reach it, and nothing waits for what cannot come."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from examples import examples
from local_aws_harness import custom_resource
from sagemaker_local import LocalSageMaker
from waiting import wait_until

from emulator.platform.running import lifecycle

#: Does what its property Mode says at the first request, and succeeds at what follows, unless Mode is `undeletable`.
SOURCE = """
import cfnresponse, json, urllib3

def handler(event, context):
    mode, kind = event["ResourceProperties"]["Mode"], event["RequestType"]
    same = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    bodies = {"not json": b"{", "no id": {"Status": "SUCCESS", **same},
              "unknown status": {"Status": "DONE", "PhysicalResourceId": "x", **same},
              "foreign": {"Status": "SUCCESS", "PhysicalResourceId": "x", **same, "RequestId": "y"}}
    if kind == "Delete" and mode != "undeletable" or mode in ("good", "undeletable") and kind != "Delete":
        cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Answer": mode}, "made-" + mode)
    elif mode in ("failed", "undeletable"):
        cfnresponse.send(event, context, cfnresponse.FAILED, {}, "made-" + mode, reason="no such thing")
    elif mode == "raises":
        raise ValueError("boom")
    elif mode == "too long":
        cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Answer": "x" * 5000})
    elif mode in bodies:
        body = bodies[mode]
        urllib3.request("PUT", event["ResponseURL"], body=body if mode == "not json" else json.dumps(body))
"""


def template(mode: str) -> dict[str, Any]:
    seconds = 5 if mode == "silent" else 60
    return custom_resource({"ZipFile": SOURCE}, "python3.14", Mode=mode, ServiceTimeout=seconds)


@pytest.mark.parametrize(("mode", "reason", "made"), examples(__file__, "failures"))
def test_a_failed_create_rolls_back_with_its_reason(aws: LocalSageMaker, mode: str, reason: str, made: str) -> None:
    stack = aws.deploy(f"custom-{mode.replace(' ', '-')}", template(mode))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE" and reason in stack["Reasons"]
    events = aws.cloudformation.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    last = next(event for event in events if event["LogicalResourceId"] == "Thing")
    # The handler was asked to delete what it may have made.
    assert last["ResourceStatus"] == "DELETE_COMPLETE" and last["PhysicalResourceId"].startswith(made)


def test_a_good_one_has_its_answer_and_failures_of_update_and_delete_show(aws: LocalSageMaker) -> None:
    stack = aws.deploy("custom", template("good"))
    assert stack["Outputs"][0]["OutputValue"] == "good"
    stack = aws.deploy("custom", template("failed"), update=True)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE" and "no such thing" in stack["Reasons"]
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    stack = aws.delete(aws.deploy("custom-undeletable", template("undeletable")))
    assert stack["StackStatus"] == "DELETE_FAILED" and "no such thing" in stack["Reasons"]


def test_a_server_that_is_told_to_stop_waits_for_no_response_and_the_next_rolls_back(aws: LocalSageMaker) -> None:
    text = json.dumps(template("silent")).replace('"ServiceTimeout": 5', '"ServiceTimeout": 600')
    named = {"StackName": "custom-stopped"}
    aws.cloudformation.create_stack(**named, TemplateBody=text, Capabilities=["CAPABILITY_IAM"])
    events = aws.cloudformation.describe_stack_events
    wait_until(lambda: "Thing" in {event["LogicalResourceId"] for event in events(**named)["StackEvents"]})
    began = time.monotonic()
    lifecycle.down(aws.state_dir)
    assert time.monotonic() - began < 15, "it was killed"
    assert "no response yet of Thing" in lifecycle.log_path(aws.state_dir).read_text()
    aws.up()
    found = aws.cloudformation.describe_stacks
    wait_until(lambda: found(**named)["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE")

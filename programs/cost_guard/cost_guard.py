"""Stops what a stage has forgotten: an endpoint that nobody calls, notebooks and training instances that run on.

Runs in Lambda with what is there: the standard library and boto3. Which of these it looks at, and after how many hours,
is in its environment; its role may touch nothing but what this stage owns. What it did is one line of JSON in its log
and a message to the topic, if there is one. A step that fails keeps back no other, and makes the run fail in the end.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import ClientError

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def idle_endpoint(env: Mapping[str, str]) -> Iterator[str]:
    """Take an endpoint that had no invocations for so long back to its minimum, or delete it."""
    sagemaker, cloudwatch = boto3.client("sagemaker"), boto3.client("cloudwatch")
    name, hours = env["ENDPOINT"], float(env["IDLE_HOURS"])
    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if "Could not find" in str(error):  # not deployed, or deleted by an earlier run
            return
        raise
    now = datetime.now(UTC)
    since = now - timedelta(hours=hours)
    # A deployment counts as a use. While it goes on nothing can be changed.
    if endpoint["EndpointStatus"] not in ("InService", "Failed") or endpoint["LastModifiedTime"] > since:
        return
    variants = endpoint.get("ProductionVariants", [])
    for variant in variants:
        dimensions = {"EndpointName": name, "VariantName": variant["VariantName"]}
        found = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=since,
            EndTime=now,
            Period=3600,
            Statistics=["Sum"],
        )
        if any(point["Sum"] for point in found["Datapoints"]):
            return
    if env["IDLE_ENDPOINT"] == "delete":
        sagemaker.delete_endpoint(EndpointName=name)
        yield f"deleted the endpoint {name}, not called for {hours:g} h; kennel deploy brings it back"
        return
    for variant in variants:
        resource = f"endpoint/{name}/variant/{variant['VariantName']}"
        targets = boto3.client("application-autoscaling").describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[resource]
        )["ScalableTargets"]
        for least in (target["MinCapacity"] for target in targets):
            if variant["DesiredInstanceCount"] > least:
                wanted = {"VariantName": variant["VariantName"], "DesiredInstanceCount": least}
                sagemaker.update_endpoint_weights_and_capacities(
                    EndpointName=name, DesiredWeightsAndCapacities=[wanted]
                )
                yield f"took {resource} to {least} instances, not called for {hours:g} h"


def old_notebook(env: Mapping[str, str]) -> Iterator[str]:
    """Stop a notebook instance that was started so long ago."""
    sagemaker, name = boto3.client("sagemaker"), env["NOTEBOOK_NAME"]
    found = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    started = found["LastModifiedTime"]
    if found["NotebookInstanceStatus"] == "InService" and _older(started, env["NOTEBOOK_HOURS"]):
        sagemaker.stop_notebook_instance(NotebookInstanceName=name)
        yield f"stopped the notebook instance {name}, started at {started:%Y-%m-%d %H:%M} UTC"


def old_instances(env: Mapping[str, str]) -> Iterator[str]:
    """Terminate the stage's training instances that were launched so long ago."""
    ec2 = boto3.client("ec2")
    filters = [{"Name": f"tag:{name}", "Values": [env[name.upper()]]} for name in ("project", "stage")]
    filters.append({"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]})
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for instance in (each for reservation in page["Reservations"] for each in reservation["Instances"]):
            launched, identity = instance["LaunchTime"], instance["InstanceId"]
            if _older(launched, env["TRAINING_HOURS"]):
                ec2.terminate_instances(InstanceIds=[identity])
                yield f"terminated the training instance {identity}, launched at {launched:%Y-%m-%d %H:%M} UTC"


def _older(start: datetime, hours: str) -> bool:
    return datetime.now(UTC) - start > timedelta(hours=float(hours))


#: What looks, by the variable without which it does not.
_STEPS = {"ENDPOINT": idle_endpoint, "NOTEBOOK_NAME": old_notebook, "TRAINING_HOURS": old_instances}


def handler(event: object, context: object) -> dict[str, Any]:
    """Look at all that the environment names, once."""
    env = os.environ
    done: list[str] = []
    failed: list[str] = []
    for step in (step for name, step in _STEPS.items() if name in env):
        try:
            done.extend(step(env))
        except ClientError as error:
            failed.append(str(error))
    report = {"stage": env["STAGE"], "stopped": done, "failed": failed}
    logger.log(logging.ERROR if failed else logging.INFO, json.dumps(report))
    if (done or failed) and (topic := env.get("TOPIC_ARN")):
        text = "\n".join(["The cost guard:", *done, *(f"could not: {error}" for error in failed)])
        boto3.client("sns").publish(
            TopicArn=topic, Subject=f"{env['PROJECT']} {env['STAGE']}: cost guard", Message=text
        )
    if failed:
        raise RuntimeError("; ".join(failed))
    return report

"""Checks of what SageMaker runs: encryption, network, root, tags, and what nobody uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import wraps
from typing import Any

from botocore import xform_name

from cli.auditing.account import Account
from cli.auditing.asking import once
from cli.auditing.findings import Check, Finding
from cli.auditing.resources.exposed import Part, Results, each, environment
from cli.auditing.resources.policies import flaw
from infra.instance_types import has_local_storage

Described = dict[str, Any]
Examine = Callable[[Account, Described, str, str], Iterable[Finding]]


@once
def _describe(account: Account, kind: str, name: str, _region: str) -> Described:
    return dict(account.call("sagemaker", f"describe_{xform_name(kind)}", **{f"{kind}Name": name}))


def described(kind: str, member: str = "", **request: Any) -> Callable[[Examine], Check]:
    """Make a check of what looks at one thing of a kind: its description, name and ARN. Each should be tagged."""

    def decorate(examine: Examine) -> Check:
        @each("sagemaker", f"list_{xform_name(kind)}s", member or f"{kind}s", **request)
        @wraps(examine)
        def check(account: Account, listed: Described, part: Part) -> Results:
            name, arn = listed[f"{kind}Name"], listed[f"{kind}Arn"]
            with part():
                yield from examine(account, _describe(account, kind, name, account.region), name, arn)
            tags = [tag["Key"] for tag in account.listed("sagemaker", "list_tags", "Tags", ResourceArn=arn)]
            if "project" not in tags:
                yield flaw("untagged", arn, f"tags: {', '.join(tags) or 'none'}")

        return check

    return decorate


def _variants(config: Described) -> list[Described]:
    return [*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])]


@once
def _used_configs(account: Account, region: str) -> set[str]:
    endpoints = account.listed("sagemaker", "list_endpoints", "Endpoints")
    described = (_describe(account, "Endpoint", each["EndpointName"], region) for each in endpoints)
    return {each.get("EndpointConfigName", "") for each in described}


@once
def _used_models(account: Account, region: str) -> set[str]:
    configs = account.listed("sagemaker", "list_endpoint_configs", "EndpointConfigs")
    described = (_describe(account, "EndpointConfig", each["EndpointConfigName"], region) for each in configs)
    return {variant.get("ModelName", "") for each in described for variant in _variants(each)}


@described("Endpoint")
def endpoints(account: Account, endpoint: Described, name: str, arn: str) -> Iterable[Finding]:
    """Requests to all variants of an endpoint, by CloudWatch's count."""
    since = {"StartTime": account.now - timedelta(days=account.unused_days), "EndTime": account.now}
    variants = [] if account.is_recent(endpoint["CreationTime"]) else endpoint.get("ProductionVariants", [])
    requests = 0
    for variant in variants:
        of = {"EndpointName": name, "VariantName": variant["VariantName"]}
        asked = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Period": 86400, "Statistics": ["Sum"]}
        asked |= {"Dimensions": [{"Name": key, "Value": value} for key, value in of.items()], **since}
        answer = account.call("cloudwatch", "get_metric_statistics", **asked)
        requests += sum(each["Sum"] for each in answer["Datapoints"])
    if variants and not requests:
        yield flaw("endpoint-idle", arn, f"no invocations in {account.unused_days} days", name=name)


@described("EndpointConfig")
def endpoint_configs(account: Account, config: Described, name: str, arn: str) -> Iterable[Finding]:
    """Encryption and use of an endpoint configuration; hardware encrypts disks of an instance's own."""
    types = [variant["InstanceType"] for variant in _variants(config) if "InstanceType" in variant]
    if "KmsKeyId" not in config and (plain := [each for each in types if not has_local_storage(each)]):
        yield flaw("endpoint-without-key", arn, f"no KmsKeyId, {', '.join(plain)}")
    if name not in _used_configs(account, account.region):
        yield flaw("endpoint-config-unused", arn, f"created {config['CreationTime']:%Y-%m-%d}", name=name)


@described("Model")
def models(account: Account, model: Described, name: str, arn: str) -> Iterable[Finding]:
    """Environment and use of a model."""
    for container in (model.get("PrimaryContainer", {}), *model.get("Containers", [])):
        yield from environment(arn, container.get("Environment", {}))
    if name not in _used_models(account, account.region):
        yield flaw("model-unused", arn, f"created {model['CreationTime']:%Y-%m-%d}", name=name)


@described("NotebookInstance")
def notebook_instances(account: Account, notebook: Described, name: str, arn: str) -> Iterable[Finding]:
    """Encryption, root, network and use of a notebook instance."""
    changed = notebook["LastModifiedTime"]
    broken = {
        "notebook-without-key": "KmsKeyId" not in notebook,
        "notebook-root": notebook.get("RootAccess") != "Disabled",
        "notebook-internet": notebook.get("DirectInternetAccess") != "Disabled",
        "notebook-idle": notebook["NotebookInstanceStatus"] == "InService" and not account.is_recent(changed),
    }
    for rule in (rule for rule, holds in broken.items() if holds):
        yield flaw(rule, arn, f"{notebook['NotebookInstanceStatus']}, last changed {changed:%Y-%m-%d}", name=name)


@described("TrainingJob", "TrainingJobSummaries", StatusEquals="InProgress")
def training_jobs(account: Account, job: Described, name: str, arn: str) -> Iterable[Finding]:
    """Encryption of a running training job's volumes."""
    machines = job["ResourceConfig"]
    types = [machines.get("InstanceType"), *(group["InstanceType"] for group in machines.get("InstanceGroups", []))]
    if "VolumeKmsKeyId" not in machines and (plain := [each for each in types if each and not has_local_storage(each)]):
        yield flaw("training-without-key", arn, f"no VolumeKmsKeyId, {', '.join(plain)}")


CHECKS = (endpoints, endpoint_configs, models, notebook_instances, training_jobs)

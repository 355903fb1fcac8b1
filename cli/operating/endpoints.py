"""The endpoints of a stage, what runs of an endpoint, and of a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cli.aws import Stage


def stage_endpoints(stage: Stage) -> list[str]:
    """Return the names of the endpoints that carry the stage's tags, whether or not a stack knows them."""
    sagemaker, wanted, names = stage.client("sagemaker"), stage.tags, []
    for endpoint in stage.listed("sagemaker", "list_endpoints", "Endpoints"):
        tags = sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
        if wanted.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items():
            names.append(endpoint["EndpointName"])
    return names


def endpoint_config(stage: Stage, endpoint: str) -> dict[str, Any]:
    """Return the configuration that an endpoint serves."""
    sagemaker = stage.client("sagemaker")
    name = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    config: dict[str, Any] = sagemaker.describe_endpoint_config(EndpointConfigName=name)
    return config


def endpoint_variants(stage: Stage, endpoints: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the variants of endpoints: what their configurations say, and how much of it runs."""
    sagemaker = stage.client("sagemaker")
    for name in endpoints:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        configured = {variant["VariantName"]: variant for variant in config["ProductionVariants"]}
        for variant in endpoint.get("ProductionVariants", []) if endpoint.get("EndpointStatus") != "Deleting" else ():
            yield {**configured.get(variant["VariantName"], {}), **variant, "EndpointName": name}


def environments(stage: Stage, function: str) -> tuple[int, int]:
    """Return how many execution environments of a function are provisioned, and how many of these are ready."""
    listing = ("list_provisioned_concurrency_configs", "ProvisionedConcurrencyConfigs")
    configs = list(stage.listed("lambda", *listing, FunctionName=function))
    provisioned, ready = (f"{what}ProvisionedConcurrentExecutions" for what in ("Requested", "Available"))
    return sum(each[provisioned] for each in configs), sum(each.get(ready, 0) for each in configs)

"""How the capacity of what is scaled is read and changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from emulator.platform.awsapi import Caller, Service, ServiceError


class Size(NamedTuple):
    """A capacity: how much is wanted, and whether there is no change under way."""

    wanted: int
    settled: bool


class Capacity(Protocol):
    """The capacity of one kind of resource; `parts` are the names in a resource's id."""

    noun: str  # as activities call it
    service: str  # as errors call the service

    def read(self, region: str, parts: dict[str, str]) -> Size | None:
        """Read it; None: there is no such resource."""

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        """Begin to change it; a ServiceError says why it cannot be."""


class Variants:
    """The instances of endpoint variants, or the provisioned concurrency of serverless ones, through SageMaker."""

    service = "AmazonSageMaker"

    def __init__(self, sagemaker: Service, account: str, *, serverless: bool = False) -> None:
        self._sagemaker, self._account, self._serverless = sagemaker, account, serverless
        self.noun = "desired provisioned concurrency" if serverless else "desired instance count"

    def read(self, region: str, parts: dict[str, str]) -> Size | None:
        request = {"EndpointName": parts["EndpointName"]}
        try:
            endpoint = self._sagemaker.call("DescribeEndpoint", request, Caller(self._account, region))
        except ServiceError:
            return None
        variants = {variant["VariantName"]: variant for variant in endpoint.get("ProductionVariants", [])}
        variant = variants.get(parts["VariantName"], {})
        if self._serverless:
            wanted = variant.get("DesiredServerlessConfig", {}).get("ProvisionedConcurrency")
        else:
            wanted = variant.get("DesiredInstanceCount")
        return None if wanted is None else Size(wanted, endpoint["EndpointStatus"] == "InService")

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        serverless = {"ServerlessUpdateConfig": {"ProvisionedConcurrency": count}}
        desired = serverless if self._serverless else {"DesiredInstanceCount": count}
        variants = [{"VariantName": parts["VariantName"], **desired}]
        request = {"EndpointName": parts["EndpointName"], "DesiredWeightsAndCapacities": variants}
        self._sagemaker.call("UpdateEndpointWeightsAndCapacities", request, Caller(self._account, region))


class ProvisionedConcurrency:
    """The provisioned concurrency of aliases and versions of functions; one that has none has 0."""

    noun = "desired concurrency"
    service = "AWSLambda"

    def __init__(self, count: Callable[[str, str, str], int | None], put: Callable[[str, str, str, int], None]) -> None:
        self._count, self._put = count, put

    def read(self, region: str, parts: dict[str, str]) -> Size | None:
        function, qualifier = parts["Resource"].split(":")
        return Size(self._count(region, function, qualifier) or 0, settled=True)

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        function, qualifier = parts["Resource"].split(":")
        self._put(region, function, qualifier, count)

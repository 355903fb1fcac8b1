"""Models and endpoint configurations: immutable records that endpoints are made from."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation
from emulator.platform.store import Store
from emulator.sagemaker.resources import ENDPOINT_CONFIG, MODEL, Resources


class Models:
    """CreateModel and DeleteModel."""

    def __init__(self, store: Store) -> None:
        self._models = Resources(store, MODEL)

    @operation("CreateModel")
    def create(self, request: Payload, caller: Caller) -> Payload:
        if ("PrimaryContainer" in request) == ("Containers" in request):
            raise ServiceError("ValidationException", "Provide either a PrimaryContainer or Containers, and not both.")
        if "ExecutionRoleArn" not in request:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value null at 'executionRoleArn' failed to satisfy constraint: "
                "Member must not be null",
            )
        for container in containers(request):
            if not {"Image", "ModelPackageName"} & container.keys():
                raise ServiceError("ValidationException", "A container needs an Image or a ModelPackageName.")
            if {"ModelDataUrl", "ModelDataSource"} <= container.keys():
                raise ServiceError("ValidationException", "Provide ModelDataUrl or ModelDataSource, and not both.")
        record = self._models.create(caller, {"EnableNetworkIsolation": False, **request})
        return {"ModelArn": record["ModelArn"]}

    @operation("DeleteModel")
    def delete(self, request: Payload, caller: Caller) -> None:
        self._models.delete(self._models.require(caller, request["ModelName"])["ModelArn"])


def containers(model: Payload) -> list[Payload]:
    """The container definitions of a model, the primary one first."""
    return model.get("Containers") or [model["PrimaryContainer"]]


class EndpointConfigs:
    """CreateEndpointConfig and DeleteEndpointConfig."""

    def __init__(self, store: Store) -> None:
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._models = Resources(store, MODEL)

    @operation("CreateEndpointConfig")
    def create(self, request: Payload, caller: Caller) -> Payload:
        variants = request["ProductionVariants"]
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) < len(names):
            raise ServiceError("ValidationException", f"Variant names must be unique: {', '.join(names)}.")
        for variant in variants:
            self._check_variant(variant, caller)
        record = self._configs.create(
            caller,
            {**request, "ProductionVariants": [{"InitialVariantWeight": 1.0, **variant} for variant in variants]},
        )
        return {"EndpointConfigArn": record["EndpointConfigArn"]}

    def _check_variant(self, variant: Payload, caller: Caller) -> None:
        name = variant["VariantName"]
        if "ModelName" not in variant:
            raise ServiceError(
                "ValidationException",
                f"Variant {name} names no model. The local AWS has no inference components: give every variant a "
                "ModelName.",
            )
        self._models.require(caller, variant["ModelName"])
        if "ServerlessConfig" in variant:
            if {"InstanceType", "InitialInstanceCount"} & variant.keys():
                raise ServiceError(
                    "ValidationException", f"Variant {name} is serverless: it has no instance type or count."
                )
        elif "InstanceType" not in variant:
            raise ServiceError("ValidationException", f"Variant {name} needs an InstanceType or a ServerlessConfig.")
        elif variant.get("InitialInstanceCount", 0) < 1:
            raise ServiceError("ValidationException", f"Variant {name} needs an InitialInstanceCount of at least 1.")

    @operation("DeleteEndpointConfig")
    def delete(self, request: Payload, caller: Caller) -> None:
        self._configs.delete(self._configs.require(caller, request["EndpointConfigName"])["EndpointConfigArn"])

"""Models and endpoint configurations: immutable records that endpoints are made from."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import check_location
from emulator.sagemaker.endpoints import backlog, serverless
from emulator.sagemaker.resources import ENDPOINT_CONFIG, MODEL, Resources


class Models:
    def __init__(self, store: Store) -> None:
        self._models = Resources(store, MODEL)
        self._configs = Resources(store, ENDPOINT_CONFIG)

    @operation("CreateModel")
    def create_model(self, request: Payload, caller: Caller) -> Payload:
        refuse("PrimaryContainer" not in request, "A model needs a PrimaryContainer.")
        refuse(
            "ExecutionRoleArn" not in request,
            "1 validation error detected: Value null at 'executionRoleArn' failed to satisfy constraint: "
            "Member must not be null",
        )
        container = request["PrimaryContainer"]
        refuse("Image" not in container, "A container needs an Image.")
        if "ModelDataUrl" in container:
            check_location(container["ModelDataUrl"])
        record = self._models.create(caller, {"EnableNetworkIsolation": False, **request})
        return {"ModelArn": record["ModelArn"]}

    @operation("DeleteModel")
    def delete_model(self, request: Payload, caller: Caller) -> None:
        self._models.delete(self._models.require(caller, request["ModelName"])["ModelArn"])

    @operation("CreateEndpointConfig")
    def create_config(self, request: Payload, caller: Caller) -> Payload:
        variants = request["ProductionVariants"]
        if "DataCaptureConfig" in request:
            check_location(request["DataCaptureConfig"]["DestinationS3Uri"])
        if "AsyncInferenceConfig" in request:
            backlog.check_config(request)
        names = [variant["VariantName"] for variant in variants]
        refuse(len(set(names)) < len(names), f"Variant names must be unique: {', '.join(names)}.")
        models = [self._model(variant, caller) for variant in variants]
        if any("ServerlessConfig" in variant for variant in variants):
            serverless.check_config(request, models)
        else:
            for variant in variants:
                _check_variant(variant)
        variants = [{"InitialVariantWeight": 1.0, **variant} for variant in variants]
        record = self._configs.create(caller, {**request, "ProductionVariants": variants})
        return {"EndpointConfigArn": record["EndpointConfigArn"]}

    def _model(self, variant: Payload, caller: Caller) -> Record:
        refuse(
            "ModelName" not in variant,
            f"Variant {variant['VariantName']} names no model. The local AWS has no inference components: each needs a "
            "ModelName.",
        )
        return self._models.require(caller, variant["ModelName"])

    @operation("DeleteEndpointConfig")
    def delete_config(self, request: Payload, caller: Caller) -> None:
        self._configs.delete(self._configs.require(caller, request["EndpointConfigName"])["EndpointConfigArn"])


def _check_variant(variant: Payload) -> None:
    name = variant["VariantName"]
    refuse("InstanceType" not in variant, f"Variant {name} needs an InstanceType.")
    refuse(variant.get("InitialInstanceCount", 0) < 1, f"Variant {name} needs an InitialInstanceCount of at least 1.")

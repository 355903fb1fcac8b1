"""Models and endpoint configurations: immutable records that endpoints are made from."""

from __future__ import annotations

import os
from pathlib import Path

from botocore.exceptions import ClientError

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import check_location, parse_s3_url
from emulator.sagemaker.endpoints import backlog, serverless
from emulator.sagemaker.resources import ENDPOINT_CONFIG, MODEL, MODEL_PACKAGE, Resources
from emulator.sagemaker.roles import Role

_TRUSTED = (
    'exists and that its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
    '"sagemaker.amazonaws.com".'
)
_READABLE = (
    'Also ensure that the role has "s3:GetObject" permissions and that the object is located in {}. If your Model uses '
    'multiple models or uncompressed models, please ensure that the role has "s3:ListBucket" permission.'
)


class Models:
    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._models = Resources(store, MODEL)
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._packages = Resources(store, MODEL_PACKAGE)

    @operation("CreateModel")
    def create_model(self, request: Payload, caller: Caller) -> Payload:
        containers = [request["PrimaryContainer"]] if "PrimaryContainer" in request else []
        containers += request.get("Containers", [])
        refuse(len(containers) != 1, "A model has one container here: give a PrimaryContainer, or Containers of one.")
        refuse(
            "ExecutionRoleArn" not in request,
            "1 validation error detected: Value null at 'executionRoleArn' failed to satisfy constraint: "
            "Member must not be null",
        )
        container = self._resolve(containers[0], caller)
        refuse("Image" not in container, "A container needs an Image.")
        if "ModelDataUrl" in container:
            check_location(container["ModelDataUrl"])
        self._check_access(request["ExecutionRoleArn"], container.get("ModelDataUrl"), caller)
        record = self._models.create(
            caller, {"EnableNetworkIsolation": False, **request, "PrimaryContainer": container}
        )
        return {"ModelArn": record["ModelArn"]}

    def _resolve(self, container: Payload, caller: Caller) -> Payload:
        """Give a container what the version of a model has that it names; its own variables replace the version's."""
        if "ModelPackageName" not in container:
            return container
        given = container.keys() & {"Image", "ModelDataUrl"}
        refuse(bool(given), f"A container has a ModelPackageName or {', '.join(sorted(given))}, and not both.")
        package = self._packages.require(caller, container["ModelPackageName"])
        status, arn = package["ModelApprovalStatus"], package["ModelPackageArn"]
        refuse(status != "Approved", f"The model package {arn} is {status}: set its ModelApprovalStatus to Approved.")
        own, *others = package["InferenceSpecification"]["Containers"]
        several = bool(others) or "ModelDataSource" in own or "AdditionalModelDataSources" in own
        refuse(several, f"The model package {arn} must have one container here, with its data in one ModelDataUrl.")
        members = {name: own[name] for name in ("Image", "ModelDataUrl") if name in own}
        variables = {**own.get("Environment", {}), **container.get("Environment", {})}
        return {**container, **members, "Environment": variables}

    def _check_access(self, arn: str, url: str | None, caller: Caller) -> None:
        """Refuse, as AWS does at once, a role that SageMaker cannot assume, and data that the role cannot read."""
        try:
            role = Role(self._host, arn, caller.region)
        except ServiceError:
            refuse(True, f'The execution role ARN "{arn}" is invalid. Please ensure that the role {_TRUSTED}')
        bucket, key = parse_s3_url(url or "s3://none/")
        try:
            list(role.client("s3").copy_objects(bucket, [(key, Path(os.devnull))] if key else []))
        except ClientError as error:
            refuse(error.response["ResponseMetadata"]["HTTPStatusCode"] == 404, f"Could not find model data at {url}.")
            unreadable = f'Could not access model data at {url}. Please ensure that the role "{arn}" {_TRUSTED}'
            refuse(True, f"{unreadable} {_READABLE.format(caller.region)}")

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


def _check_variant(variant: Payload) -> None:
    name = variant["VariantName"]
    refuse("InstanceType" not in variant, f"Variant {name} needs an InstanceType.")
    refuse(variant.get("InitialInstanceCount", 0) < 1, f"Variant {name} needs an InitialInstanceCount of at least 1.")

"""Keys of KMS that other services use for a caller, who needs them as well: MiniStack asks nobody about a key.

SageMaker is handed keys for the volumes of its instances by a grant, which the caller has to be allowed to make or, for
jobs and notebooks, their role ("SageMaker API Permissions" in its guide).
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ministack.core.responses import get_region
from ministack.core.router import extract_access_key_id
from ministack.services import kms, ssm

from emulator.ministack import identity
from emulator.ministack.door.enforcement import refusal
from emulator.ministack.door.operations import content
from emulator.ministack.patching import around_service
from emulator.platform.awsapi import Caller, Handler, Payload, Service
from emulator.platform.errors import Response, ServiceError

#: KMS's errors of keys that nobody can use.
UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
_TO_SAGEMAKER = {"kms:GrantIsForAWSResource": "true"}
_WITH_VOLUMES = (
    *("CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateTransformJob", "CreateProcessingJob"),
    *("CreateNotebookInstance", "CreateEndpoint", "UpdateEndpoint"),
)


def install(sagemaker: Service, actor: Callable[[], str]) -> None:
    """Stand before Parameter Store and SageMaker; `actor` tells the access key of whom calls it, by a stack, too."""
    around_service("ssm", _handle)
    for operation in _WITH_VOLUMES:
        sagemaker.guard(operation, functools.partial(_with_volumes, sagemaker, actor))


def _with_volumes(
    sagemaker: Service, actor: Callable[[], str], operation: str, inner: Handler, request: Payload, caller: Caller
) -> Payload | None:
    for key, role in _of_volumes(operation, request, functools.partial(sagemaker.call, caller=caller)):
        if key:
            _hand_on(key, actor(), role)
    return inner(request, caller)


def _of_volumes(operation: str, request: Payload, ask: Callable[..., Payload]) -> Iterator[tuple[str | None, str]]:
    """Keys of the volumes that instances are to have, each with the role that may hand it on, if there is one."""
    role = request.get("RoleArn", "")
    if operation == "CreateNotebookInstance":
        yield request.get("KmsKeyId"), role
    with contextlib.suppress(ServiceError):  # there is none of the name, as the operation itself says
        if operation.endswith("Endpoint"):
            named = {"EndpointConfigName": request["EndpointConfigName"]}
            yield ask("DescribeEndpointConfig", named).get("KmsKeyId"), ""
        elif operation == "CreateTransformJob":
            role = ask("DescribeModel", {"ModelName": request["ModelName"]})["ExecutionRoleArn"]
    for job in (request, request.get("TrainingJobDefinition", {}), *request.get("TrainingJobDefinitions", ())):
        for member in ("ResourceConfig", "HyperParameterTuningResourceConfig", "TransformResources"):
            yield job.get(member, {}).get("VolumeKmsKeyId"), job.get("RoleArn", role)
    yield request.get("ProcessingResources", {}).get("ClusterConfig", {}).get("VolumeKmsKeyId"), role


def _hand_on(key: str, access_key: str, role: str) -> None:
    denied = refused(key, "sagemaker", ("kms:CreateGrant",), access_key, _TO_SAGEMAKER)
    if denied and role and denied.code not in UNUSABLE:
        session = identity.open_session("sagemaker.amazonaws.com", role, "SageMaker")["AWS_ACCESS_KEY_ID"]
        denied = refused(key, "sagemaker", ("kms:CreateGrant",), session, _TO_SAGEMAKER)
    if denied:
        raise ServiceError("ValidationException", denied.message) if denied.code in UNUSABLE else denied


def refused(
    key_id: str, service: str, actions: tuple[str, ...], access_key: str, more: Mapping[str, str] | None = None
) -> ServiceError | None:
    """Why a caller may not use a key by way of a service: one of `UNUSABLE`, or a denial; `more` are condition keys.

    The key that AWS manages for the service is there for everybody.
    """
    if key_id.rpartition(":")[2] == f"alias/aws/{service}":
        return None
    if (record := kms._resolve_key(key_id)) is None:
        return ServiceError("NotFoundException", f"Key '{key_id}' does not exist")
    if (unusable := kms._check_key_state(record)) is not None:
        error = json.loads(unusable[2])
        return ServiceError(error["__type"], error["message"])
    context = {"kms:ViaService": f"{service}.{get_region()}.amazonaws.com", **(more or {})}
    denials = (refusal(access_key, action, record["Arn"], context) for action in actions)
    return next(filter(None, denials), None)


async def _handle(
    inner: Callable[..., Any], method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any]
) -> Response:
    access_key = extract_access_key_id(headers, query)

    def response_to(keys: set[str], action: str) -> Response | None:
        denied = next(filter(None, (refused(key, "ssm", (action,), access_key) for key in keys)), None)
        if denied and denied.code in UNUSABLE:
            denied = ServiceError("InvalidKeyId", denied.message)
        return denied.response() if denied else None

    request = content(body)
    if response := response_to({str(request["KeyId"])} if request.get("KeyId") else set(), "kms:Encrypt"):
        return response
    response = await inner(method, path, headers, body, query)
    found = content(response[2]) if request.get("WithDecryption") and response[0] == 200 else {}
    return response_to(set(_read(found)), "kms:Decrypt") or response


def _read(response: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the parameters whose values are in a response."""
    for value in [response.get("Parameter") or {}, *response.get("Parameters", [])]:
        if value.get("Type") == "SecureString":
            versions = ssm._parameter_history.get(value["Name"]) or []
            yield next((made["KeyId"] for made in versions if made["Version"] == value["Version"]), "")

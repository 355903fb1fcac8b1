"""Our services behind MiniStack's front door: which requests are theirs, and what IAM has to say about each."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from emulator.ministack.door import enforcement, named_resources, object_names, operations
from emulator.platform.awsapi import Caller, Service
from emulator.platform.errors import Response, ServiceError

_RUNTIME = "sagemaker-runtime"
_INVOCATION = re.compile(r"/endpoints/(?P<name>[^/]+)/.+")
#: Members by which a request hands a role to SageMaker, which iam:PassRole has to allow.
_ROLE_MEMBERS = ("ExecutionRoleArn", "RoleArn")
#: Where a request describes work that will be done later under a role of its own.
_DEFINITION_MEMBERS = ("TrainingJobDefinition",)


def install(services: Mapping[str, Service], runtime: Any) -> None:
    """Register the services with MiniStack's router, dispatcher and IAM.

    Parameters
    ----------
    services
        By botocore's name of the service.
    runtime
        Answers the requests of ``sagemaker-runtime``; has ``handle`` as a `Service` does.
    """
    from ministack import app
    from ministack.core import iam_actions, router

    for name, service in services.items():
        prefix = f"{service.model.metadata['targetPrefix']}."
        router.SERVICE_PATTERNS[name] = {"target_prefixes": [prefix], "host_patterns": []}
        iam_actions.SERVICE_TO_IAM_NAMESPACE[name] = service.model.signing_name
        app.SERVICE_HANDLERS[name] = functools.partial(_authorized, service)
        iam_actions._DENIED_CODES[name] = "AccessDeniedException"
    iam_actions.SERVICE_TO_IAM_NAMESPACE[_RUNTIME] = "sagemaker"
    iam_actions._DENIED_CODES[_RUNTIME] = "AccessDeniedException"
    app.SERVICE_HANDLERS[_RUNTIME] = runtime.handle
    object_names.install()

    detect = app.detect_service
    action_of = iam_actions.extract_iam_action
    resource_of = iam_actions.extract_resource_arn

    def detect_service(method: str, path: str, headers: dict[str, str], query: dict[str, Any]) -> str:
        name = detect(method, path, headers, query)
        # Both APIs of SageMaker are signed as "sagemaker".
        return _RUNTIME if name == "sagemaker" and path.startswith("/endpoints/") else name

    def extract_iam_action(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> str:
        if service == _RUNTIME:
            return "sagemaker:InvokeEndpoint"
        if service in services:
            return f"{services[service].model.signing_name}:{_request(headers, body)[0]}"
        if service == "s3" and object_names.deletes_version(method, path, query, body):
            return "s3:DeleteObjectVersion"
        return operations.action(service, method, path, headers, query, action_of)

    def extract_resource_arn(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str
    ) -> str:
        if service == _RUNTIME:
            return _endpoint_arn(path, Caller(account, region))
        if service in services:
            return _resource_arns(services[service], headers, body, Caller(account, region))[0]
        found = named_resources.arns(service, path, body, query, f"arn:aws:{service}:{region}:{account}:")
        enforcement.further.set(found[1:])
        return found[0] if found else resource_of(service, method, path, headers, body, query, region, account)

    app.detect_service = detect_service
    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.extract_resource_arn = extract_resource_arn


def _endpoint_arn(path: str, caller: Caller) -> str:
    match = _INVOCATION.fullmatch(path)
    name = unquote(match["name"]).lower() if match else "*"
    return f"arn:aws:sagemaker:{caller.region}:{caller.account}:endpoint/{name}"


def _request(headers: Mapping[str, str], body: bytes) -> tuple[str, dict[str, Any]]:
    """Operation and payload; an unreadable payload is empty here and refused by the service itself."""
    _, _, operation = headers.get("x-amz-target", "").partition(".")
    try:
        payload = json.loads(body or b"{}")
    except ValueError:
        payload = {}
    return operation, payload if isinstance(payload, dict) else {}


def _resource_arns(service: Service, headers: Mapping[str, str], body: bytes, caller: Caller) -> list[str]:
    operation, payload = _request(headers, body)
    try:
        return service.resource_arns(operation, payload, caller) or ["*"]
    except (KeyError, TypeError, AttributeError, ValueError, ServiceError):
        # The members that name the resource are missing or of the wrong type. Nothing may be learnt about resources
        # from it, and the service refuses the request afterwards.
        return ["*"]


async def _authorized(
    service: Service, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
) -> Response:
    """Hand a request to the service once IAM has allowed what MiniStack does not check.

    MiniStack has checked the operation on the first resource. Left are its further resources (``CreateEndpoint`` also
    needs the endpoint config) and the right to pass a role.
    """
    from ministack.core.responses import get_account_id, get_region

    caller = Caller(get_account_id(), get_region())
    operation, payload = _request(headers, body)
    arns = _resource_arns(service, headers, body, caller)
    checks: list[tuple[str, str, dict[str, str]]] = [(f"{service.name}:{operation}", arn, {}) for arn in arns[1:]]
    if service.name == "sagemaker":
        context = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        checks += [("iam:PassRole", arn, context) for arn in _passed_roles(payload)]
    for action, arn, context in checks:
        if denied := refusal(action, arn, context, headers, query, caller):
            return denied.response()
    return await service.handle(method, path, headers, body, query)


def _passed_roles(payload: dict[str, Any]) -> list[str]:
    definitions = [payload.get(member) for member in _DEFINITION_MEMBERS]
    places = [payload, *(definition for definition in definitions if isinstance(definition, dict))]
    return [place[member] for place in places for member in _ROLE_MEMBERS if isinstance(place.get(member), str)]


def refusal(
    action: str, arn: str, context: dict[str, str], headers: dict[str, str], query: Mapping[str, Any], caller: Caller
) -> ServiceError | None:
    """Say why IAM does not let the signer of a request do something; see `refusal_to`."""
    from ministack.core.router import extract_access_key_id

    return refusal_to(extract_access_key_id(headers, query), action, arn, context, caller)


def refusal_to(access_key: str, action: str, arn: str, context: dict[str, str], caller: Caller) -> ServiceError | None:
    """Say why IAM does not let the holder of an access key do something, None when it does.

    Parameters
    ----------
    context
        Condition keys of the action.
    """
    from ministack.core.iam_evaluator import AuthError, enforce

    service, _, _ = action.partition(":")
    denied = enforce(access_key, action, service, caller.region, resource_arn=arn, service_context=context)
    if denied is None:
        return None
    if isinstance(denied, AuthError):
        return ServiceError(denied.code, denied.message, 403)
    return ServiceError(
        "AccessDeniedException",
        f"User: {denied.principal_arn} is not authorized to perform: {action} on resource: {arn} because no "
        "identity-based policy allows it",
        400,
    )

"""REST APIs as they are made and deployed: a stage serves what was deployed to it."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from ministack.services import apigateway_v1 as v1
from ministack.services.cloudformation import provisioners, stacks

from emulator.ministack.apigateway.allowed import (
    TYPES,
    check_integration,
    check_integration_response,
    check_properties,
    check_stage,
    refuse_if,
)
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around, within_time
from emulator.platform.errors import Response

_ADDRESS = re.compile(r"https://([0-9a-f]{8})\.execute-api\.[a-z0-9-]+\.amazonaws\.com")
#: Where MiniStack keeps what belongs to a deployment, beside its gateway responses.
_KEPT = "resources"

#: Resources of the API that is served, as they were deployed; None while it is changed.
_deployed: ContextVar[dict[str, Any] | None] = ContextVar("deployed", default=None)


class _Resources(type(v1._resources)):  # type: ignore[misc]
    __slots__ = ()

    def get(self, key: str, default: Any = None) -> Any:
        found = _deployed.get()
        return super().get(key, default) if found is None else found


def install(endpoint_url: str) -> None:
    """Take away the types that are not here, stand before what makes APIs, and write addresses in outputs as they are.

    The CDK makes the address of a stage of names; here it is a path of `endpoint_url`.
    """
    v1._resources.__class__ = _Resources
    for name in ("_check_request_validation", "_invoke_mock_v1", "_select_service_integration_response"):
        around(v1, name, within_time)
    for kind in [name for name in provisioners._RESOURCE_HANDLERS if name.startswith("AWS::ApiGateway::")]:
        if (name := kind.rpartition("::")[2]) in TYPES:
            wrap_handlers(kind, functools.partial(check_properties, name), functools.partial(_made, name))
        else:
            del provisioners._RESOURCE_HANDLERS[kind]
    around(v1, "_put_integration", _put_integration)
    around(v1, "_put_integration_response", _put_integration_response)
    around(v1, "_create_deployment", _create_deployment)
    around(v1, "_delete_deployment", _delete_deployment)
    around(v1, "_create_stage", _create_stage)
    around(v1, "method_authorization_type", _method_authorization_type)
    around(stacks, "_resolve_stack_outputs", functools.partial(_local_outputs, f"{endpoint_url}/_aws/execute-api"))
    missing = {"MissingAuthenticationToken": ("MISSING_AUTHENTICATION_TOKEN", "MissingAuthenticationTokenException")}
    v1._AUTHENTICATION_GATEWAY_ERRORS.update(missing)


@contextlib.contextmanager
def serving(api_id: str, stage_name: str) -> Iterator[None]:
    """Have MiniStack find what was deployed to a stage."""
    stage = v1.stages_for_api(api_id).get(stage_name) or {}
    kept: dict[str, Any] = {}
    for (_, _, name), deployments in v1._deployed_gateway_responses.all_items():
        if name == api_id:
            kept = deployments.get(stage.get("deploymentId"), {}).get(_KEPT, {})
    token = _deployed.set(kept)
    try:
        yield
    finally:
        _deployed.reset(token)


def _local_outputs(beginning: str, inner: Callable[..., Any], *arguments: Any) -> Any:
    outputs, exports = inner(*arguments)
    for output in outputs:
        output["OutputValue"] = _ADDRESS.sub(rf"{beginning}/\1", output["OutputValue"])
    return outputs, exports


def _method_authorization_type(inner: Callable[..., Any], api_id: str, stage_name: str, *rest: Any) -> Any:
    with serving(api_id, stage_name):
        return inner(api_id, stage_name, *rest)


def _made(kind: str, name: str, attributes: Any, properties: Any) -> Any:
    """Keep what MiniStack's handler of a stage drops."""
    if kind == "Stage" and (setting := properties.get("AccessLogSetting")):
        stage = v1._stages_v1[properties["RestApiId"]][properties["StageName"]]
        stage["accessLogSettings"] = {"destinationArn": setting["DestinationArn"], "format": setting["Format"]}
    return attributes


def _method(api_id: str, resource_id: str, http_method: str) -> dict[str, Any]:
    resource = v1._resources.get(api_id, {}).get(resource_id) or {}
    method: dict[str, Any] = resource.get("resourceMethods", {}).get(http_method) or {}
    return method


def _answered(check: Callable[[], None], go_on: Callable[[], Response]) -> Response:
    try:
        check()
    except (TimeoutError, ValueError) as wrong:
        return v1._v1_error("BadRequestException", str(wrong), 400)  # type: ignore[no-any-return]
    return go_on()


def _put_integration(inner: Callable[..., Response], api_id: str, resource_id: str, verb: str, data: Any) -> Response:
    declared = _method(api_id, resource_id, verb).get("requestParameters") or {}
    asked = data.get("httpMethod") if data.get("type") != "MOCK" else None
    return _answered(
        lambda: check_integration({"type": None, **data}, asked, declared),
        lambda: inner(api_id, resource_id, verb, data),
    )


def _put_integration_response(
    inner: Callable[..., Response], api_id: str, resource_id: str, verb: str, status: str, data: Any
) -> Response:
    declared = _method(api_id, resource_id, verb).get("methodResponses", {}).get(status)
    return _answered(
        lambda: check_integration_response(data, declared and (declared.get("responseParameters") or {})),
        lambda: inner(api_id, resource_id, verb, status, data),
    )


def _create_deployment(inner: Callable[..., Response], api_id: str, data: Any) -> Response:
    """Keep the API as it is: a change of it takes effect with the next deployment only."""
    resources = v1._resources.get(api_id, {})

    def check() -> None:
        methods = [method for each in resources.values() for method in each["resourceMethods"].values()]
        refuse_if(not methods, "The REST API doesn't contain any methods")
        refuse_if(not all(method.get("methodIntegration") for method in methods), "No integration defined for method")

    def go_on() -> Response:
        answer = inner(api_id, data)
        if answer[0] < 300:
            identity = json.loads(answer[2])["id"]
            v1._deployed_gateway_responses[api_id][identity][_KEPT] = copy.deepcopy(resources)
        return answer

    return _answered(check, go_on)


def _delete_deployment(inner: Callable[..., Response], api_id: str, identity: str) -> Response:
    stages = [stage for stage in v1._stages_v1.get(api_id, {}).values() if stage["deploymentId"] == identity]
    message = "Active stages pointing to this deployment must be moved or deleted"
    return _answered(lambda: refuse_if(stages, message), lambda: inner(api_id, identity))


def _create_stage(inner: Callable[..., Response], api_id: str, data: Any) -> Response:
    return _answered(lambda: check_stage(api_id, data, None), lambda: inner(api_id, data))

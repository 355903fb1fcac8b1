"""Requests to a stage: who is asked before a function or an endpoint is called, how, and what is told of it.

Sources: API Gateway's Developer Guide, "Quotas for configuring and running a REST API" (sizes), "Data transformations"
(mapping, binary types), "Amazon API Gateway dimensions and metrics", "Set up CloudWatch logging for REST APIs".
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ministack.core import arn as arns
from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import apigateway_v1 as v1
from ministack.services import cloudwatch_logs

from emulator.ministack import identity
from emulator.ministack.apigateway import allowed, control
from emulator.ministack.apigateway.integrations import (
    JSON,
    PRINCIPAL,
    VARIABLE,
    Execution,
    as_text,
    check_headers,
    current,
    looked_up,
)
from emulator.ministack.door.enforcement import admitted, refusal, service_may
from emulator.ministack.functions.corrections import SYNC_PAYLOAD_LIMIT
from emulator.ministack.functions.results import remapped
from emulator.ministack.patching import around
from emulator.platform.errors import Response, ServiceError
from emulator.platform.monitoring import Monitoring

_MOST_BYTES = 10 * 1024 * 1024
#: What a function may answer; anything else is a malformed response.
_PROXY_MEMBERS = frozenset({"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"})


class Executions:
    """`note_change` has logs saved soon."""

    def __init__(self, monitoring: Monitoring, note_change: Callable[[], None]) -> None:
        self._monitoring = monitoring
        self._note_change = note_change

    def install(self) -> None:
        around(v1, "handle_execute", self._handle)
        for module in (arns, v1):
            around(module, "execute_api_arn", _arn)
        around(v1, "_call_lambda_raw", _call_function)
        around(v1, "_lambda_proxy_response", _proxy_response)
        around(v1, "_invoke_lambda_proxy_v1", _timed)
        around(v1, "_invoke_lambda_custom_v1", _timed)

    async def _handle(
        self, inner: Callable[..., Awaitable[Response]], api_id: str, stage_name: str, verb: str, path: str,
        headers: Mapping[str, str], body: bytes, query: Mapping[str, Any],
    ) -> Response:  # fmt: skip
        # IAM has been asked about the caller. What is asked from now on concerns the roles of the API.
        admitted.set(None)
        iam_evaluator._anonymous.set(False)
        scope = v1.find_api_scope(api_id)
        stage = v1.stages_for_api(api_id).get(stage_name)
        if scope is None or stage is None:
            return await inner(api_id, stage_name, verb, path, headers, body, query)
        began = time.perf_counter()
        with request_scope(*scope), control.serving(api_id, stage_name):
            resource, places = v1._match_resource_tree(api_id, [part for part in path.split("/") if part])
            context = _context(api_id, stage_name, verb, path, (resource or {}).get("path", path))
            if v1.method_authorization_type(api_id, stage_name, verb, path) == "AWS_IAM":
                context["identity"] |= v1._iam_caller_identity(headers, query) or {}
            context["identity"]["userAgent"] = headers.get("user-agent", "")
            given = {name: values[0] if isinstance(values, list) else values for name, values in query.items()}
            parameters = {"path": places, "querystring": given, "header": headers}
            execution = Execution(context, parameters, stage.get("variables") or {})
            current.set(execution)
            if len(body) > _MOST_BYTES:
                answer = 413, {"Content-Type": JSON}, b'{"message":"Request Too Long"}'
            else:
                answer = await inner(api_id, stage_name, verb, path, headers, body, query)
                if inspect.isawaitable(answer):  # a MOCK, which MiniStack does not wait for
                    answer = await answer
            try:
                check_headers(answer[1])
            except ValueError as wrong:
                execution.failed(str(wrong))
                answer = 502, {"Content-Type": JSON}, b'{"message": "Internal server error"}'
            status, back, content = answer = answer[0], remapped(answer[1]), answer[2]
            back.setdefault("x-amzn-requestid", context["requestId"])
            milliseconds = round((time.perf_counter() - began) * 1000)
            integration = round(execution.seconds * 1000)
            context.update(status=status, responseLength=len(content))
            context.update(responseLatency=milliseconds, integrationLatency=integration)
            settings = _settings(stage, context)
            self._publish(context, milliseconds, integration, bool(settings.get("metricsEnabled")))
            self._log(execution, stage, settings, body, content)
        return answer

    def _publish(self, context: Mapping[str, Any], milliseconds: int, integration: int, detailed: bool) -> None:
        api = {"ApiName": v1._rest_apis[context["apiId"]]["name"]}
        of_stage = {**api, "Stage": context["stage"]}
        of_method = {**of_stage, "Method": context["httpMethod"], "Resource": context["resourcePath"]}
        status, record = context["status"], self._monitoring.record
        for dimensions in (api, of_stage, *([of_method] if detailed else [])):
            for name, value in (("Count", 1), ("4XXError", 400 <= status < 500), ("5XXError", status >= 500)):
                record(get_region(), "AWS/ApiGateway", name, dimensions, float(value), "Count")
            for name, value in (("Latency", milliseconds), ("IntegrationLatency", integration)):
                record(get_region(), "AWS/ApiGateway", name, dimensions, float(value), "Milliseconds")

    def _log(
        self, execution: Execution, stage: Mapping[str, Any], settings: Mapping[str, Any], body: bytes, content: bytes
    ) -> None:
        """Write the access log and the execution log of a stage that has them, if the account's role may."""
        context = execution.context
        if access := stage.get("accessLogSettings"):
            line = VARIABLE.sub(looked_up(context), access["format"])
            self._write(access["destinationArn"].split(":")[6], [line], False)
        level = settings.get("loggingLevel") or "OFF"
        lines = [
            (f"HTTP Method: {context['httpMethod']}, Resource Path: {context['resourcePath']}", False),
            *execution.lines,
            (f"Method completed with status: {context['status']}", False),
        ]
        if settings.get("dataTraceEnabled"):
            lines.insert(1, (f"Method request body before transformations: {as_text(body)}", False))
            lines.insert(-1, (f"Method response body after transformations: {as_text(content)}", False))
        chosen = [f"({context['requestId']}) {line}" for line, error in lines if level == "INFO" or error]
        if level != "OFF" and chosen:
            self._write(f"API-Gateway-Execution-Logs_{context['apiId']}/{context['stage']}", chosen, True)

    def _write(self, group: str, lines: list[str], create: bool) -> None:
        role = (v1._account_settings.get("settings") or {}).get("cloudwatchRoleArn") or ""
        stream = hashlib.sha256(group.encode()).hexdigest()[:32]
        place = f"{cloudwatch_logs._make_group_arn(group).removesuffix(':*')}:log-stream:{stream}"
        try:
            if refusal(identity.acting_as(PRINCIPAL, role), "logs:PutLogEvents", place, {}):
                return
        except ServiceError:
            return  # AWS drops the lines, too
        named = {"logGroupName": group, "logStreamName": stream}
        if create and group not in cloudwatch_logs._log_groups:
            cloudwatch_logs._create_log_group({"logGroupName": group})
        if group in cloudwatch_logs._log_groups:
            if stream not in cloudwatch_logs._log_groups[group]["streams"]:
                cloudwatch_logs._create_log_stream(named)
            now = int(time.time() * 1000)
            cloudwatch_logs._put_log_events({**named, "logEvents": [{"timestamp": now, "message": m} for m in lines]})
            self._note_change()


def _arn(inner: Callable[..., str], *place: str) -> str:
    """Name what is called alike for all paths that reach it: empty parts of a path count for nothing."""
    return inner(*place[:-1], "/".join(part for part in place[-1].split("/") if part))


def _context(api_id: str, stage_name: str, verb: str, path: str, resource_path: str) -> dict[str, Any]:
    now, request = time.time(), str(uuid.uuid4())
    return {
        "accountId": get_account_id(),
        "apiId": api_id,
        "stage": stage_name,
        "httpMethod": verb,
        "path": f"/{stage_name}{path}",
        "resourcePath": resource_path,
        "protocol": "HTTP/1.1",
        "requestId": request,
        "extendedRequestId": request,
        "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "requestTimeEpoch": int(now * 1000),
        "identity": {"sourceIp": "127.0.0.1"},
        "requestOverride": {"header": {}, "path": {}, "querystring": {}},
        "responseOverride": {"header": {}},
    }


def _settings(stage: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    settings, path = stage.get("methodSettings") or {}, context["resourcePath"]
    return {**settings.get("*/*", {}), **settings.get(f"{path}/{context['httpMethod']}", {})}


async def _timed(
    inner: Callable[..., Awaitable[Any]], integration: Mapping[str, Any], *request: Any, **more: Any
) -> Any:
    """Call what is integrated, with the integration's role and in its time."""
    execution = current.get()
    execution.credentials = integration.get("credentials")
    execution.context["resourcePath"] = request[3]["path"]
    began, seconds = time.perf_counter(), int(integration.get("timeoutInMillis") or 29_000) / 1000
    execution.deadline = time.monotonic() + seconds
    try:
        async with asyncio.timeout(seconds):
            return await inner(integration, *request, **more)
    except TimeoutError:
        execution.lines.append(("Execution failed due to a timeout error", True))
        return v1._gw_error("INTEGRATION_TIMEOUT", "Endpoint request timed out")
    finally:
        execution.seconds = time.perf_counter() - began


async def _call_function(inner: Callable[..., Awaitable[Any]], function: str, event: Any, **scope: Any) -> Any:
    """Call a function if the role of the integration may, or without one, if the function's policy says so."""
    execution = current.get()
    context, match = execution.context, allowed.FUNCTION.fullmatch(function)
    arn = match["arn"] if match else function
    place = context["apiId"], context["stage"], context["httpMethod"], context["resourcePath"]
    if execution.credentials:
        try:
            key = identity.acting_as(PRINCIPAL, execution.credentials)
            may = refusal(key, "lambda:InvokeFunction", arn, {}) is None
        except ServiceError:
            may = False
    else:
        source = arns.execute_api_arn(get_region(), get_account_id(), *place)
        may = service_may(PRINCIPAL, "lambda:InvokeFunction", arn, source)
    if not may:
        execution.failed("Invalid permissions on Lambda function")
        return None, "Invalid permissions on Lambda function"
    if len(json.dumps(event)) > SYNC_PAYLOAD_LIMIT:
        return {"body": {"statusCode": 413, "body": '{"message":"Request Too Long"}'}}, None
    return await inner(function, event, **scope)


def _proxy_response(inner: Callable[..., Any], result: dict[str, Any]) -> Any:
    """Tell callers nothing of what is wrong with a function or with its answer."""
    said = result.get("body")
    well_formed = isinstance(said, dict) and said.keys() <= _PROXY_MEMBERS and isinstance(said.get("body"), str | None)
    if not result.get("throttle") and (result.get("error") or not well_formed):
        return None, "Internal server error"
    answer, _ = inner(result if result.get("throttle") else {**result, "body": {"statusCode": 200, **(said or {})}})
    return (answer, None) if answer else (None, "Internal server error")

"""Our services behind MiniStack's front door: which requests are theirs, and what IAM is asked about each."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.core import iam_actions, responses, router
from ministack.services import lambda_svc

from emulator.ministack.door import available, enforcement, named_resources, operations
from emulator.ministack.patching import around
from emulator.platform.awsapi import Caller, Service
from emulator.platform.errors import ServiceError

_RUNTIME = "sagemaker-runtime"
_INVOCATION = re.compile(r"/endpoints/(?P<name>[^/]+)/.+")
#: What follows InvokeEndpoint in the action's name, by the end of the path.
_ACTIONS = {"async-invocations": "Async", "invocations-response-stream": "WithResponseStream"}


def install(services: Mapping[str, Service], runtime: Any) -> None:
    """Register services, by botocore's names, and the runtime of SageMaker's endpoints with MiniStack."""
    available.install()
    for name, service in services.items():
        prefix = f"{service.model.metadata['targetPrefix']}."
        router.SERVICE_PATTERNS[name] = {"target_prefixes": [prefix], "host_patterns": []}
        iam_actions.SERVICE_TO_IAM_NAMESPACE[name] = service.model.signing_name
        iam_actions._DENIED_CODES[name] = "AccessDeniedException"
        app.SERVICE_HANDLERS[name] = service.handle
    iam_actions.SERVICE_TO_IAM_NAMESPACE[_RUNTIME] = "sagemaker"
    iam_actions._DENIED_CODES[_RUNTIME] = "AccessDeniedException"
    app.SERVICE_HANDLERS[_RUNTIME] = functools.partial(_answer, runtime)
    named_resources.install()
    around(app, "detect_service", _service)
    iam_actions.extract_iam_action = _iam_action
    around(iam_actions, "extract_resource_arn", functools.partial(_resource_arn, services))


async def _answer(runtime: Any, *request: Any) -> Any:
    """Answer a request to the runtime: with a body, or with the messages of an event stream as they come."""
    status, headers, body = await runtime.handle(*request)
    if isinstance(body, bytes):
        return status, headers, body

    async def send_all(send: Callable[..., Any]) -> None:
        async with contextlib.aclosing(body):
            async for message in body:
                frame = lambda_svc._es_encode_message(*message)
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def while_connected(send: Callable[..., Any], receive: Callable[..., Any]) -> None:
        # What is received now is that the client has left.
        tasks = [asyncio.create_task(send_all(send)), asyncio.create_task(receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    return status, headers, responses.StreamingResponse(while_connected)


def _service(detect: Callable[..., str], method: str, path: str, headers: Any, query: Any) -> str:
    name = detect(method, path, headers, query)
    # Both APIs of SageMaker are signed as "sagemaker".
    return _RUNTIME if name == "sagemaker" and path.startswith("/endpoints/") else name


def _iam_action(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> str:
    if service == _RUNTIME:
        return f"sagemaker:InvokeEndpoint{_ACTIONS.get(path.rpartition('/')[2], '')}"
    if service == "s3" and named_resources.version_deleted(method, path, query, body):
        return "s3:DeleteObjectVersion"
    return operations.action(service, method, path, headers, query)


def _resource_arn(
    services: Mapping[str, Service], inner: Callable[..., str],
    service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str,
) -> str:  # fmt: skip
    """The first resource that IAM is asked about; `enforcement` asks about the others with it."""
    if service == _RUNTIME:
        match = _INVOCATION.fullmatch(path)
        name = unquote(match["name"]).lower() if match else "*"
        return f"arn:aws:sagemaker:{region}:{account}:endpoint/{name}"
    if service in services:
        found = _arns(services[service], headers, body, Caller(account, region))
    else:
        found = named_resources.arns(service, path, body, query, f"arn:aws:{service}:{region}:{account}:")
    enforcement.further.set(found[1:])
    return found[0] if found else inner(service, method, path, headers, body, query, region, account)


def _arns(service: Service, headers: Mapping[str, str], body: bytes, caller: Caller) -> list[str]:
    _, _, operation = headers.get("x-amz-target", "").partition(".")
    try:
        return service.resource_arns(operation, operations.content(body), caller) or ["*"]
    except (KeyError, TypeError, AttributeError, ValueError, ServiceError):
        # The members that name the resource are missing or of the wrong type. Nothing may be learnt about resources
        # from it, and the service refuses the request afterwards.
        return ["*"]

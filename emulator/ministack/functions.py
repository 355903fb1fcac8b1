"""Where MiniStack's Lambda behaves unlike AWS's: corrected from outside."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import types
from collections.abc import Callable, Collection
from typing import Any

from emulator.platform.errors import Response
from emulator.platform.processes import ProcessRegistry

#: A synchronous request or response may have this many bytes, an asynchronous request that many.
SYNC_PAYLOAD_LIMIT = 6 * 1024 * 1024
ASYNC_PAYLOAD_LIMIT = 1024 * 1024

#: As it is stored: without the port, which may be another one tomorrow.
_STORED_URL = re.compile(r"https://(?P<id>[a-z0-9]{32})\.lambda-url\.[a-z0-9-]+\.on\.aws/")
_LOCAL_URL = re.compile(r"http://127\.0\.0\.1:\d+/_aws/lambda-url/")
_URL_PATH = re.compile(r"/functions/[^/]+/urls?(\?|$)")

# How long the answer of a function waits for its log lines: for the first, for a further one, and at most. A function
# writes its lines before its answer, so they are on their way; MiniStack would wait 50 ms for a first line.
_LOG_WAIT_SECONDS = (0.005, 0.002, 0.25)


def local_url(url: str, endpoint_url: str) -> str:
    """Write a function URL as it can be called here: on the loopback address, without looking up a name."""
    return _STORED_URL.sub(rf"{endpoint_url}/_aws/lambda-url/\g<id>/", url)


def moved(text: str, endpoint_url: str) -> str:
    """Write the local function URLs in a text as they are on this server, whatever port an earlier one had."""
    return _LOCAL_URL.sub(f"{endpoint_url}/_aws/lambda-url/", text)


def install(endpoint_url: str, processes: ProcessRegistry, private: Collection[str]) -> None:
    """Correct MiniStack's Lambda; no function sees the `private` environment variables of the server."""
    _correct_api(endpoint_url)
    _guard_urls()
    _confine_hosts()
    _reserve_concurrency()
    _start_workers(processes, private)


def _start_workers(processes: ProcessRegistry, private: Collection[str]) -> None:
    from ministack.core import lambda_runtime

    def popen(args: list[str], **options: Any) -> Any:
        environment = options.pop("env", None) or os.environ
        options["env"] = {name: value for name, value in environment.items() if name not in private}
        worker = subprocess.Popen(args, start_new_session=True, **options)
        processes.adopt(worker)
        return worker

    # A module of its own for this one importer: everybody else keeps the real one.
    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": popen})

    lambda_runtime.Worker._drain_stderr_bounded.__defaults__ = _LOG_WAIT_SECONDS


def _reserve_concurrency() -> None:
    """Reserve concurrency as the template says, and for calls by alias, version or URL."""
    from ministack.services import lambda_svc

    reserved = lambda_svc._reserved_concurrency

    def reserved_concurrency(function: dict[str, Any], config: dict[str, Any]) -> int | None:
        # A version's record has no reservation of its own: the function's is shared by all of its versions.
        region, account, _, name = config["FunctionArn"].split(":")[3:7]
        return reserved(lambda_svc._functions.get_scoped(account, region, name, function), config)

    lambda_svc._reserved_concurrency = reserved_concurrency

    def reserve(name: str, attributes: Any, properties: Any) -> Any:
        wanted = properties.get("ReservedConcurrentExecutions")
        lambda_svc._functions[name]["concurrency"] = None if wanted is None else int(wanted)
        return attributes

    wrap_handlers("AWS::Lambda::Function", after=reserve)


def wrap_handlers(
    resource_type: str,
    before: Callable[[str, Any], None] = lambda identity, properties: None,
    after: Callable[[str, Any, Any], Any] = lambda name, attributes, properties: attributes,
) -> None:
    """Put something around the handlers of CloudFormation that create and update a type.

    `before` gets identity and wanted properties, and refuses by a ValueError; `after` gives the attributes.
    """
    from ministack.services.cloudformation import provisioners

    def wrapped(handler: Callable[..., Any], properties_at: int) -> Callable[..., Any]:
        @functools.wraps(handler)
        def provision(*args: Any) -> Any:
            before(args[0], args[properties_at])
            name, attributes = handler(*args)
            return name, after(name, attributes, args[properties_at])

        return provision

    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    around = {"create": wrapped(handlers["create"], 1), "update": wrapped(handlers["update"], 2)}
    provisioners._RESOURCE_HANDLERS[resource_type] = {**handlers, **around}


def _correct_api(endpoint_url: str) -> None:
    """Refuse what is too large, and hand out function URLs that can be called as they are."""
    from ministack import app

    handler = app.SERVICE_HANDLERS["lambda"]

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: Any) -> Any:
        if path.endswith("/invocations") and (refusal := _too_large(headers, body)):
            return refusal
        status, answer_headers, answer = await handler(method, path, headers, body, query)
        if _URL_PATH.search(path) and isinstance(answer, bytes):
            answer = local_url(answer.decode(), endpoint_url).encode()
        return status, answer_headers, answer

    app.SERVICE_HANDLERS["lambda"] = handle

    def localized(name: str, attributes: Any, properties: Any) -> Any:
        return {**attributes, "FunctionUrl": local_url(attributes["FunctionUrl"], endpoint_url)}

    wrap_handlers("AWS::Lambda::Url", after=localized)


def _too_large(headers: dict[str, str], body: bytes) -> Response | None:
    limit = ASYNC_PAYLOAD_LIMIT if headers.get("x-amz-invocation-type") == "Event" else SYNC_PAYLOAD_LIMIT
    if len(body) <= limit:
        return None
    message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    answer = json.dumps({"Type": "User", "message": message}).encode()
    return 413, {"Content-Type": "application/json", "x-amzn-errortype": "RequestTooLargeException"}, answer


def _guard_urls() -> None:
    """Ask callers of a function URL for both permissions that AWS asks for, and refuse what is too large."""
    from ministack.services import lambda_svc

    serve_url = lambda_svc.handle_function_url_request

    async def handle_url(
        url_id: str, method: str, path: str, headers: dict[str, str], body: bytes, query: Any, **options: Any
    ) -> Any:
        resolved = options.pop("resolved", None) or lambda_svc.resolve_function_url(url_id)
        preflight = method == "OPTIONS" and resolved is not None and resolved[-1].get("Cors")
        if resolved is not None and not preflight and _may_not_invoke(resolved, headers, query):
            return 403, {"Content-Type": "application/json"}, b'{"Message":"Forbidden"}'
        if _event_bytes(headers, body) > SYNC_PAYLOAD_LIMIT:
            return 413, {"Content-Type": "application/json"}, b'{"Message":"Request Entity Too Large"}'
        return await serve_url(url_id, method, path, headers, body, query, resolved=resolved, **options)

    lambda_svc.handle_function_url_request = handle_url


def _confine_hosts() -> None:
    """Have what is addressed to a function URL, an API or a bucket's host reach that alone: it may be anybody's.

    MiniStack looks at the path first, so it would serve its own pages, and other services, on every host.
    """
    from ministack import app

    pages, shortcuts = app._handle_pre_body_request, app._handle_post_body_shortcuts
    special = app._handle_special_data_plane_request

    def public(headers: Any, path: str) -> bool:
        host = headers.get("host", "")
        return any(parse(host, path) for parse in (app._parse_lambda_url, app._parse_execute_api_url))

    async def handle_page(method: str, path: str, headers: Any, *rest: Any) -> Any:
        if public(headers, path):
            return None
        if app._extract_s3_vhost_bucket(headers.get("host", "")):
            return app._handle_options_request(method, path, headers, *rest)
        return await pages(method, path, headers, *rest)

    async def handle_shortcut(method: str, path: str, headers: Any, *rest: Any) -> Any:
        if public(headers, path) or app._extract_s3_vhost_bucket(headers.get("host", "")):
            return None
        return await shortcuts(method, path, headers, *rest)

    async def handle_data_plane(
        method: str, path: str, headers: Any, body: bytes, query: Any, request_id: str, **raw: Any
    ) -> Any:
        if not public(headers, path):
            return await special(method, path, headers, body, query, request_id, **raw)
        host = headers.get("host", "")
        if response := await app._handle_lambda_url_request(host, path, method, headers, body, query):
            if not any(name.lower() == "x-amzn-requestid" for name in response[1]):
                response[1]["x-amzn-RequestId"] = request_id
            return response
        return 404, {"Content-Type": "application/json"}, b'{"message": "Not Found"}'  # there are no APIs here

    app._handle_pre_body_request = handle_page
    app._handle_post_body_shortcuts = handle_shortcut
    app._handle_special_data_plane_request = handle_data_plane


def _event_bytes(headers: dict[str, str], body: bytes) -> int:
    """Count the bytes of the body within the event that the function gets: base64, unless it is text."""
    from ministack.services import lambda_svc

    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("text/") or content_type in lambda_svc._FUNCTION_URL_TEXT_TYPES:
        return len(body)
    return (len(body) + 2) // 3 * 4


def _may_not_invoke(resolved: tuple[Any, ...], headers: dict[str, str], query: Any) -> bool:
    """Say whether the caller lacks lambda:InvokeFunction, which a function URL also demands.

    MiniStack has checked the latter.
    """
    from ministack.core.iam_evaluator import enforce
    from ministack.core.router import extract_access_key_id

    account, region, name, qualifier, _ = resolved
    access_key = extract_access_key_id(headers, query)
    arn = f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")
    context = {"lambda:InvokedViaFunctionUrl": "true"}
    denied = enforce(access_key, "lambda:InvokeFunction", "lambda", region, resource_arn=arn, service_context=context)
    return denied is not None

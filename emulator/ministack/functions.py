"""Where MiniStack's Lambda behaves unlike AWS's: corrected from outside."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
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


def install(endpoint_url: str, processes: ProcessRegistry, private: frozenset[str]) -> None:
    """Correct MiniStack's Lambda.

    Parameters
    ----------
    endpoint_url
        Of this server, for function URLs.
    processes
        Where the functions' processes are recorded.
    private
        Environment variables of the server that no function may see.
    """
    _correct_api(endpoint_url)
    _guard_urls()
    _confine_hosts()
    _reserve_concurrency()
    _start_workers(processes, private)


def _start_workers(processes: ProcessRegistry, private: frozenset[str]) -> None:
    from ministack.core import lambda_runtime

    def popen(args: list[str], **options: Any) -> Any:
        environment = options.pop("env", None) or os.environ
        options["env"] = {name: value for name, value in environment.items() if name not in private}
        worker = subprocess.Popen(args, start_new_session=True, **options)
        processes.adopt(worker, args)
        return worker

    # A module of its own for this one importer: everybody else keeps the real one.
    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": popen})

    detect = lambda_runtime._detect_runtime_binary

    @functools.wraps(detect)
    def runtime_binary(runtime: str) -> tuple[str, str]:
        # Whatever version of Python a function asks for, it gets the server's, the only one known to be there.
        binary, script = detect(runtime)
        return (sys.executable if runtime.startswith("python") else binary), script

    lambda_runtime._detect_runtime_binary = runtime_binary
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

    def reserving(handler: Callable[..., Any], properties_at: int) -> Callable[..., Any]:
        @functools.wraps(handler)
        def provision(*args: Any) -> Any:
            name, attributes = handler(*args)
            wanted = args[properties_at].get("ReservedConcurrentExecutions")
            lambda_svc._functions[name]["concurrency"] = None if wanted is None else int(wanted)
            return name, attributes

        return provision

    wrap_handlers("AWS::Lambda::Function", reserving)


def wrap_handlers(resource_type: str, wrap: Callable[[Callable[..., Any], int], Callable[..., Any]]) -> None:
    """Put something around the handlers of CloudFormation that create and update a type.

    Parameters
    ----------
    wrap
        Gets a handler and says at which of its positions the wanted properties are.
    """
    from ministack.services.cloudformation import provisioners

    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    wrapped = {"create": wrap(handlers["create"], 1), "update": wrap(handlers["update"], 2)}
    provisioners._RESOURCE_HANDLERS[resource_type] = {**handlers, **wrapped}


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

    def localized(provision: Callable[..., Any], _: int) -> Callable[..., Any]:
        @functools.wraps(provision)
        def run(*args: Any) -> Any:
            identity, attributes = provision(*args)
            return identity, {**attributes, "FunctionUrl": local_url(attributes["FunctionUrl"], endpoint_url)}

        return run

    wrap_handlers("AWS::Lambda::Url", localized)


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
        raw.pop("client_ip")
        response = await app._handle_execute_api_request(host, path, method, headers, body, query, **raw)
        return app._with_data_plane_headers(response, request_id, wildcard_cors=False)

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

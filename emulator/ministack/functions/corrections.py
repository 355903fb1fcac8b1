"""Where MiniStack's Lambda behaves unlike AWS's: corrected from outside."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import types
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator, lambda_runtime
from ministack.core.iam_evaluator import caller_arn, pin_request_caller
from ministack.core.router import extract_access_key_id
from ministack.services import cloudwatch_logs, lambda_svc
from ministack.services.cloudformation import provisioners

from emulator.ministack.configuration import ContractError
from emulator.ministack.patching import around, around_service
from emulator.platform.errors import Response, ServiceError
from emulator.platform.processes import ProcessRegistry

#: A synchronous request or response may have this many bytes, an asynchronous request that many.
SYNC_PAYLOAD_LIMIT = 6 * 1024 * 1024
ASYNC_PAYLOAD_LIMIT = 1024 * 1024

#: As it is stored: without the port, which may be another one tomorrow.
_STORED_URL = re.compile(r"https://(?P<id>[a-z0-9]{32})\.lambda-url\.[a-z0-9-]+\.on\.aws/")
_LOCAL_URL = re.compile(r"http://127\.0\.0\.1:\d+(?=/_aws/(lambda-url|execute-api)/)")
_URL_PATH = re.compile(r"/functions/[^/]+/urls?(\?|$)")

# How long the answer of a function waits for its log lines: for the first, for a further one, and at most. A function
# writes its lines before its answer, so they are on their way; MiniStack would wait 50 ms for a first line.
_LOG_WAIT_SECONDS = (0.005, 0.002, 0.25)

#: What a function of a template's own text may import.
_PROVIDED_MODULE = "cfnresponse.py"

#: Starts a function's program with the installed libraries, but without what files of paths among them (.pth) lead to:
#: a project that is installed in place would stand in for modules that the function's package lacks.
_START = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path(sys.argv[1], run_name='__main__')"


def moved(text: str, endpoint_url: str) -> str:
    """Write the local URLs of functions and APIs in a text as they are on this server, on whatever port they were."""
    return _LOCAL_URL.sub(endpoint_url, text)


def install(endpoint_url: str, processes: ProcessRegistry, private: Collection[str]) -> None:
    """Correct MiniStack's Lambda; no function sees the `private` environment variables of the server."""

    def localized(name: str, attributes: Any, properties: Any) -> Any:
        return {**attributes, "FunctionUrl": _local_url(attributes["FunctionUrl"], endpoint_url)}

    def popen(args: list[str], **options: Any) -> Any:
        environment = options.pop("env", None) or os.environ
        options["env"] = {name: value for name, value in environment.items() if name not in private}
        options["env"].setdefault("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        if args[0] == sys.executable:
            args = [sys.executable, "-SP", "-c", _START, sysconfig.get_path("purelib"), *args[1:]]
        worker = subprocess.Popen(args, start_new_session=True, **options)
        processes.adopt(worker)
        return worker

    around_service("lambda", functools.partial(_handle, endpoint_url))
    around(lambda_svc, "handle_function_url_request", _handle_url)
    around(lambda_svc, "_build_function_url_event", _url_event)
    around(lambda_svc, "_emit_lambda_logs", _write_log)
    around(provisioners, "_zip_inline", _inline_archive)
    wrap_handlers("AWS::Lambda::Url", after=localized)
    wrap_handlers("AWS::Lambda::Function", after=_reserve)
    # A module of its own for this one importer: everybody else keeps the real one.
    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    lambda_runtime.Worker._drain_stderr_bounded.__defaults__ = _LOG_WAIT_SECONDS


def _local_url(url: str, endpoint_url: str) -> str:
    """Write a function URL as it can be called here: on the loopback address, without looking up a name."""
    return _STORED_URL.sub(rf"{endpoint_url}/_aws/lambda-url/\g<id>/", url)


def _write_log(inner: Callable[..., None], function: Any, *arguments: Any, **options: Any) -> None:
    """Write a function's log; a group that is missing, as after its deletion, is made only if the role may."""
    config = function.get("config") or function
    group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
    if group in cloudwatch_logs._log_groups or _may_create(config["Role"], cloudwatch_logs._make_group_arn(group)):
        inner(function, *arguments, **options)


def _may_create(role: str, group: str) -> bool:
    account, region = role.split(":")[4], group.split(":")[3]
    asked = iam_evaluator.EvalContext(role, "AssumedRole", account, "logs:CreateLogGroup", group, region)
    policies = iam_evaluator._gather_role_policies(role.rpartition("/")[2], account)
    return bool(iam_evaluator.evaluate(asked, policies).decision == "Allow")


def replaced(program: str, texts: Mapping[str, str]) -> str:
    """Replace texts of one of MiniStack's programs, which have to be there."""
    for old, new in texts.items():
        if old not in program:
            raise ContractError(f"MiniStack's program of functions has changed: {old!r} is missing.")
        program = program.replace(old, new)
    return program


def _inline_archive(inner: Callable[..., bytes | None], source: str | None, handler: str, runtime: str) -> bytes | None:
    """Put the module that Lambda provides beside a template's own text."""
    archive = inner(source, handler, runtime)
    if archive is None or not runtime.startswith("python"):
        return archive
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as files:
        files.write(Path(__file__).with_name(_PROVIDED_MODULE), _PROVIDED_MODULE)
    return buffer.getvalue()


def _reserve(name: str, attributes: Any, properties: Any) -> Any:
    wanted = properties.get("ReservedConcurrentExecutions")
    lambda_svc._functions[name]["concurrency"] = None if wanted is None else int(wanted)
    lambda_svc._functions[name]["config"]["VpcConfig"] = lambda_svc._vpc_config_with_id(properties.get("VpcConfig"))
    return attributes


def wrap_handlers(
    resource_type: str,
    before: Callable[[str, Any], None] = lambda identity, properties: None,
    after: Callable[[str, Any, Any], Any] = lambda name, attributes, properties: attributes,
) -> None:
    """Put something around the handlers of CloudFormation that create and update a type.

    `before` gets identity and wanted properties, and refuses by a ValueError; `after` gives the attributes.
    """

    def wrapped(handler: Callable[..., Any], properties_at: int) -> Callable[..., Any]:
        @functools.wraps(handler)
        def provision(*args: Any) -> Any:
            before(args[0], args[properties_at])
            name, attributes = handler(*args)
            return name, after(name, attributes, args[properties_at])

        return provision

    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    places = {"create": 1, "update": 2}
    replaced = {name: wrapped(handlers[name], at) for name, at in places.items() if name in handlers}
    provisioners._RESOURCE_HANDLERS[resource_type] = {**handlers, **replaced}


async def _handle(
    endpoint_url: str,
    inner: Callable[..., Any],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query: Any,
) -> Any:
    """Refuse what is too large, and hand out function URLs that can be called as they are."""
    if path.endswith("/invocations") and (refusal := _too_large(headers, body) or _not_json(body)):
        return refusal
    status, answer_headers, answer = await inner(method, path, headers, body, query)
    if status == 429:
        answer_headers = {**answer_headers, "x-amzn-errortype": "TooManyRequestsException"}
    if _URL_PATH.search(path) and isinstance(answer, bytes):
        answer = _local_url(answer.decode(), endpoint_url).encode()
    return status, answer_headers, answer


def _too_large(headers: dict[str, str], body: bytes) -> Response | None:
    limit = ASYNC_PAYLOAD_LIMIT if headers.get("x-amz-invocation-type") == "Event" else SYNC_PAYLOAD_LIMIT
    if len(body) <= limit:
        return None
    message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    answer = json.dumps({"Type": "User", "message": message}).encode()
    return 413, {"Content-Type": "application/json", "x-amzn-errortype": "RequestTooLargeException"}, answer


def _not_json(body: bytes) -> Response | None:
    try:
        json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        message = f"Could not parse request body into json: {error}"
        return ServiceError("InvalidRequestContentException", message, fields={"Type": "User"}).response()
    return None


async def _handle_url(
    inner: Callable[..., Any],
    url_id: str, method: str, path: str, headers: dict[str, str], body: bytes, query: Any, **options: Any,
) -> Any:  # fmt: skip
    """Ask callers of a function URL for both permissions that AWS asks for, and refuse what is too large."""
    pin_request_caller(headers, query)
    resolved = options.pop("resolved", None) or lambda_svc.resolve_function_url(url_id)
    preflight = method == "OPTIONS" and resolved is not None and resolved[-1].get("Cors")
    if resolved is not None and not preflight and _may_not_invoke(resolved, headers, query):
        return 403, {"Content-Type": "application/json"}, b'{"Message":"Forbidden"}'
    if _event_bytes(headers, body) > SYNC_PAYLOAD_LIMIT:
        return 413, {"Content-Type": "application/json"}, b'{"Message":"Request Entity Too Large"}'
    return await inner(url_id, method, path, headers, body, query, resolved=resolved, **options)


def _url_event(inner: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """Tell a function who signed, as AWS does (Lambda guide, "Request payload format" of function URLs)."""
    event = inner(*arguments, **options)
    if event["requestContext"]["accountId"] != "anonymous":
        arn = caller_arn()
        event["requestContext"]["authorizer"] = {"iam": {"accountId": arn.split(":")[4], "userArn": arn}}
    return event


def _event_bytes(headers: dict[str, str], body: bytes) -> int:
    """Count the bytes of the body within the event that the function gets: base64, unless it is text."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("text/") or content_type in lambda_svc._FUNCTION_URL_TEXT_TYPES:
        return len(body)
    return (len(body) + 2) // 3 * 4


def _may_not_invoke(resolved: tuple[Any, ...], headers: dict[str, str], query: Any) -> bool:
    """Say whether the caller lacks lambda:InvokeFunction; MiniStack has asked for lambda:InvokeFunctionUrl."""
    account, region, name, qualifier, _ = resolved
    access_key = extract_access_key_id(headers, query)
    arn = f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")
    context = {"lambda:InvokedViaFunctionUrl": "true"}
    return iam_evaluator.enforce(access_key, "lambda:InvokeFunction", "lambda", region, arn, context) is not None

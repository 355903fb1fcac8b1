"""Which operation a request asks for: one, the one that is executed.

MiniStack takes the parameter ``Action`` and the header ``X-Amz-Target`` of any request for the operation that IAM has
to allow, whatever its service goes by, and the query before the body, which its services read the other way around.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.model import OperationModel
from ministack.core import iam_actions, router
from ministack.services import lambda_svc, s3

from emulator.ministack.door import members
from emulator.ministack.door.signatures import RESERVED
from emulator.ministack.patching import around_service
from emulator.platform.awsapi import service_model
from emulator.platform.errors import ServiceError

#: Services of the query protocol: the parameter ``Action`` names the operation.
QUERY_SERVICES = frozenset({"cloudformation", "ec2", "iam", "monitoring", "sns", "sts"})
#: One of them also speaks JSON, with this prefix of ``X-Amz-Target``, and CBOR.
_METRICS = "GraniteServiceVersion20100801"
_CBOR = re.compile(rf"/service/{_METRICS}/operation/(\w+)", re.ASCII)
#: In bytes.
_LONGEST_KEY = 1024
_FUNCTION = re.compile(r"/[0-9-]+/functions/([^/]+)")
#: Services of MiniStack in JSON of which no other code here checks the values.
_UNCHECKED = ("codebuild", "dynamodb", "ecr", "events", "kms", "lambda", "ssm", "tagging")
#: IAM's name of an operation of Lambda where it is another.
_LAMBDA_ACTIONS = {
    "GetLayerVersionByArn": "GetLayerVersion",
    **dict.fromkeys(("Invoke", "InvokeAsync", "InvokeWithResponseStream"), "InvokeFunction"),
}


def action(service: str, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, Any]) -> str:
    """Name what IAM has to allow; nothing follows the colon when the request names no operation.

    Parameters of the query protocol are in `query`, wherever the request has them.
    """
    namespace = iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service, service)
    target = headers.get("x-amz-target", "")
    name: str | None
    if match := service == "monitoring" and _CBOR.fullmatch(path):
        name = match[1]
    elif service in QUERY_SERVICES:
        prefixes = [f"{_METRICS}."] if service == "monitoring" else []
        name = _after_prefix(target, prefixes) if target else (query.get("Action") or [None])[0]
    elif service == "apigateway":
        name = method
    elif service == "lambda":
        operation = route(service, method, path, query)
        name = operation and _LAMBDA_ACTIONS.get(operation, operation)
    elif service == "s3":
        name = iam_actions._s3_action(method, path, query)
    else:
        name = _after_prefix(target, router.SERVICE_PATTERNS.get(service, {}).get("target_prefixes", ()))
    return f"{namespace}:{name or ''}"


def _after_prefix(target: str, prefixes: Sequence[str]) -> str | None:
    return target.rpartition(".")[2] or None if target.startswith(tuple(prefixes)) else None


def form(body: bytes) -> dict[str, list[str]]:
    """Read the parameters in the body of a request of the query protocol."""
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def content(body: bytes) -> dict[str, Any]:
    """Read a JSON object; none where there is no object, which the service refuses."""
    try:
        read = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def install() -> None:
    """Have values that MiniStack takes and AWS does not refused, once IAM has allowed the request."""
    for service in _UNCHECKED:
        around_service(service, functools.partial(_with_values, service))
    around_service("s3", _with_xml)


async def _with_xml(
    inner: Callable[..., Any], method: str, path: str, headers: Any, body: bytes, query: Any, **options: Any
) -> Any:
    try:
        if len(path[1:].partition("/")[2].encode(errors="surrogateescape")) > _LONGEST_KEY:
            raise ServiceError("KeyTooLongError", "Your key is too long")
        if method in ("PUT", "POST") and (operation := route("s3", method, path, query, headers)):
            members.check_xml(operation, body)
    except ServiceError as error:
        return s3._error(error.code, error.message, error.status)
    return await inner(method, path, headers, body, query, **options)


async def _with_values(
    service: str, inner: Callable[..., Any], method: str, path: str, headers: Any, body: bytes, query: Any
) -> Any:
    named = route(service, method, path, query) if service == "lambda" else headers.get("x-amz-target")
    try:
        members.check_values(service, (named or "").rpartition(".")[2], functools.partial(content, body))
    except ServiceError as error:
        return error.response()
    return await inner(method, path, headers, body, query)


def ambiguity(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Sequence[str]]
) -> str | None:
    """Say in which way a request asks for several operations, or for one in several ways."""
    if service == "s3":
        return _ambiguous_s3(method, path, headers, query)
    if unquote(path) != path:
        return "The path is encoded twice."
    parameters = {name: values for name, values in query.items() if name.lower() not in RESERVED}
    target = headers.get("x-amz-target")
    if service not in QUERY_SERVICES:
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return "This service takes no form."
        if service == "lambda":
            return _ambiguous_lambda(method, path, headers, body, parameters)
        if service == "apigateway":
            return members.foreign(service, route(service, method, path, query) or "", content(body), query, headers)
        if target is None:
            return None
        if parameters:
            return "The operation is named by the header, and parameters are in the query."
        return members.foreign(service, target.rpartition(".")[2], content(body), {}, headers)
    by_path = service == "monitoring" and _CBOR.fullmatch(path)
    if target is not None or by_path:
        if service != "monitoring" or parameters or (target is not None and by_path):
            return "The operation is named by more than one of header, path and parameters."
        return None if by_path else members.foreign(service, str(target).rpartition(".")[2], content(body), {}, headers)
    if body and parameters:
        return "Parameters are in the query and in the body."
    parameters = {**parameters, **form(body)}
    doubled = [name for name, values in parameters.items() if len(values) > 1]
    if doubled:
        return f"Given more than once: {', '.join(doubled)}."
    return members.foreign_in_query(service, (parameters.get("Action") or [""])[0], parameters)


def _ambiguous_lambda(
    method: str, path: str, headers: Mapping[str, str], body: bytes, parameters: Mapping[str, Any]
) -> str | None:
    """Say in which way a function's version or alias is named twice, or what is none of the operation's."""
    if "x-amz-qualifier" in headers:
        return "The qualifier belongs into the query."
    operation = route("lambda", method, path, parameters) or ""
    match = _FUNCTION.match(path)
    qualifier = lambda_svc._resolve_name_and_qualifier(match[1])[1] if match else None
    if qualifier and operation and not members.takes("lambda", operation, "Qualifier"):
        return f"{operation} takes no qualifier."
    if qualifier and parameters.get("Qualifier", [qualifier]) != [qualifier]:
        return "The derived qualifier from the function name does not match the specified qualifier."
    if len(parameters.get("Qualifier", ())) > 1:
        return "Qualifier is given more than once."
    return members.foreign("lambda", operation, content(body), parameters, headers)


def _ambiguous_s3(method: str, path: str, headers: Mapping[str, str], query: Mapping[str, Any]) -> str | None:
    if path.startswith("/v20180820/"):
        return "The local AWS has no S3 Control."
    operation, named = route("s3", method, path, query, headers), sorted(_subresources("s3") & query.keys())
    if len(named) > 1:
        return f"Conflicting query string parameters: {', '.join(named)}"
    if operation is None or iam_actions._s3_action(method, path, query) is None:
        return "The specified method is not allowed against this resource."
    return members.forgotten("s3", operation, {name: values[0] for name, values in query.items()}, headers)


def route(
    service: str, method: str, path: str, query: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> str | None:
    """Name the operation of a service whose operations are paths; None for none of its."""
    given = query.keys() | (headers or {}).keys()
    for pattern, needed, name in _routes(service).get(method, ()):
        if needed <= given and pattern.fullmatch(path):
            # What names a part of a bucket, such as its policy, is never left aside: DELETE would be for the bucket.
            return None if service == "s3" and _subresources(service) & query.keys() - needed else name
    return None


@functools.cache
def _subresources(service: str) -> frozenset[str]:
    """Parameters that name a part of a bucket or an object, such as its policy."""
    return frozenset().union(*(_parameters(operation.http["requestUri"]) for operation in _operations(service)))


@functools.cache
def _routes(service: str) -> dict[str, list[tuple[re.Pattern[str], frozenset[str], str]]]:
    """By method: path, what tells the route from others of the same path, and operation; those that tell most first."""
    uses = Counter((one.http["method"], one.http["requestUri"]) for one in _operations(service))
    routes = defaultdict(list)
    for operation in _operations(service):
        method, uri = operation.http["method"], operation.http["requestUri"]
        path, _, _ = uri.partition("?")
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path.removesuffix("/")))
        pattern = re.sub(r"\\\{\w+\\\+\\\}", ".+", pattern)
        needed = _parameters(uri)
        if uses[method, uri] > 1 and (shape := operation.input_shape) is not None:
            places = [shape.members[name].serialization for name in shape.required_members]
            needed |= {place["name"] for place in places if place.get("location") in ("header", "querystring")}
        routes[method].append((re.compile(f"{pattern}/?", re.DOTALL), frozenset(needed), operation.name))
    for several in routes.values():
        several.sort(key=lambda route: (-len(route[1]), route[0].pattern.count("[^/]+")))
    return dict(routes)


def _operations(service: str) -> list[OperationModel]:
    model = service_model(service)
    return [model.operation_model(name) for name in model.operation_names]


def _parameters(uri: str) -> set[str]:
    return {parameter.partition("=")[0] for parameter in uri.partition("?")[2].split("&") if parameter}

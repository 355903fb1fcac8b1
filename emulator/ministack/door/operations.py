"""Which operation a request asks for: one, the one that is executed.

MiniStack takes the parameter ``Action`` and the header ``X-Amz-Target`` of any request for the operation that IAM has
to allow, whatever its service goes by, and the query before the body, which its services read the other way around.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from defusedxml.ElementTree import ParseError, fromstring

from emulator.ministack.door import members
from emulator.ministack.door.signatures import RESERVED

#: Services of the query protocol: the parameter ``Action`` names the operation.
QUERY_SERVICES = frozenset(
    {
        *("autoscaling", "cloudformation", "documentdb", "ec2", "elasticache", "elasticloadbalancing", "iam"),
        *("monitoring", "rds", "ses", "sns", "sqs", "sts"),
    }
)
#: Those that also speak JSON, by the prefix of ``X-Amz-Target``, or CBOR.
_TARGETS = {"sqs": ("AmazonSQS.",), "monitoring": ("GraniteServiceVersion20100801.",)}
_CBOR = re.compile(r"/service/GraniteServiceVersion20100801/operation/(\w+)", re.ASCII)
_S3_CONTROL_TAGS = "/v20180820/tags/"
_BUCKET_ARN = re.compile(r"arn:aws:s3:::[a-z0-9.-]+")
#: What DeleteObjects may say of an object.
_OBJECT_PARTS = frozenset({"Key", "VersionId", "ETag", "LastModifiedTime", "Size"})
_FUNCTION = re.compile(r"/[0-9-]+/functions/([^/]+)")
#: IAM's name of an operation of Lambda where it is another.
_LAMBDA_ACTIONS = {
    "GetLayerVersionByArn": "GetLayerVersion",
    "Invoke": "InvokeFunction",
    "InvokeAsync": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
}


def action(
    service: str, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, Any], rest: Callable[..., Any]
) -> str:
    """Name what IAM has to allow.

    Parameters
    ----------
    query
        Parameters of the query protocol are among them, wherever the request has them.
    rest
        MiniStack's `extract_iam_action`, asked about method, path and query of REST services alone.

    Returns
    -------
    Nothing follows the colon when the request names no operation.
    """
    from ministack.core import iam_actions, router

    namespace = iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service, service)
    target = headers.get("x-amz-target", "")
    name: str | None
    if _speaks_query(service, path):
        if match := service == "monitoring" and _CBOR.fullmatch(path):
            name = match[1]
        else:
            named = query.get("Action") or [None]
            name = _after_prefix(target, _TARGETS.get(service, ())) if target else named[0]
    elif prefixes := router.SERVICE_PATTERNS.get(service, {}).get("target_prefixes"):
        name = _after_prefix(target, tuple(prefixes))
    elif service == "lambda":
        name = _lambda_action(method, path, query)
    else:
        parameters = {parameter: values for parameter, values in query.items() if parameter != "Action"}
        return rest(service, method, path, {}, b"", parameters) or f"{namespace}:"
    return f"{namespace}:{name or ''}"


def _speaks_query(service: str, path: str) -> bool:
    return service in QUERY_SERVICES and not (service == "ses" and path.startswith("/v2/"))


def _after_prefix(target: str, prefixes: tuple[str, ...]) -> str | None:
    return target.rpartition(".")[2] or None if target.startswith(prefixes) else None


def ambiguity(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Sequence[str]]
) -> str | None:
    """Say in which way a request asks for several operations, or for one in several ways."""
    if service == "s3":
        return _ambiguous_s3(method, path, query) or _ambiguous_deletion(method, query, body)
    if unquote(path) != path:
        return "The path is encoded twice."
    parameters = {name: values for name, values in query.items() if name.lower() not in RESERVED}
    if not _speaks_query(service, path):
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded") and (
            service != "unknown_query"
        ):
            return "This service takes no form."
        return _foreign_members(service, method, path, headers, body, parameters)
    if "x-amz-target" in headers or _CBOR.fullmatch(path):
        if service not in _TARGETS or parameters:
            return "The operation is named by the header or the path and by parameters."
        return None if _CBOR.fullmatch(path) else _foreign_members(service, method, path, headers, body, {})
    if body and parameters:
        return "Parameters are in the query and in the body."
    parameters = {**parameters, **form(body)}
    doubled = [name for name, values in parameters.items() if len(values) > 1]
    if doubled:
        return f"Given more than once: {', '.join(doubled)}."
    url = parameters.get("QueueUrl", [""])[0]
    if service == "sqs" and url and path != "/" and url.split("/")[-2:] != path.split("/")[-2:]:
        return "The path and the parameter QueueUrl name different queues."
    return members.foreign(service, (parameters.get("Action") or [""])[0], parameters, query_protocol=True)


def _foreign_members(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, parameters: Mapping[str, Any]
) -> str | None:
    """Say what in the JSON of a request, or in its query, is none of its operation's."""
    from ministack.core import iam_actions

    if "x-amz-target" in headers and service != "lambda" and service not in iam_actions._BOTOCORE_SERVICE_MAP:
        if parameters:
            return "The operation is named by the header, and parameters are in the query."
        operation = headers["x-amz-target"].rpartition(".")[2]
        return members.foreign(service, operation, members.of_json(body), query_protocol=False)
    if service == "lambda":
        route = _lambda_route(method, path, parameters)
        if "x-amz-qualifier" in headers:
            return "The qualifier belongs into the query."
        qualified = _ambiguous_qualifier(path, parameters, route)
    else:
        route, qualified = iam_actions._match_rest_action(service, method, path, parameters), None
    return qualified or members.foreign_rest(service, route or "", members.of_json(body), parameters)


def form(body: bytes) -> dict[str, list[str]]:
    """Read the parameters in the body of a request of the query protocol."""
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def _ambiguous_s3(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    from ministack.core import iam_actions

    if path.startswith(_S3_CONTROL_TAGS) and not _BUCKET_ARN.fullmatch(unquote(path.removeprefix(_S3_CONTROL_TAGS))):
        return "Tags by way of S3 Control are there for buckets: arn:aws:s3:::NAME."

    tables = (iam_actions._S3_QUERY_ACTIONS, iam_actions._S3_BUCKET_QUERY_ACTIONS, iam_actions._S3_OBJECT_QUERY_ACTIONS)
    named = sorted({name for table in tables for name in table} & query.keys())
    if len(named) > 1:
        return f"Conflicting query string parameters: {', '.join(named)}"
    if iam_actions._s3_action(method, path, query) is None:
        return "The specified method is not allowed against this resource."
    return None


def _ambiguous_deletion(method: str, query: Mapping[str, Any], body: bytes) -> str | None:
    """Say in what a request to delete several objects is not what S3's schema has it be."""
    if method != "POST" or "delete" not in query:
        return None
    try:
        root = fromstring(body)
    except (ParseError, ValueError):
        return "The XML you provided was not well-formed."
    namespace = root.tag.rpartition("Delete")[0]
    known = root.tag == f"{namespace}Delete" and {child.tag for child in root} <= {
        f"{namespace}Object",
        f"{namespace}Quiet",
    }
    for element in root:
        parts = [part.tag.removeprefix(namespace) for part in element]
        known = known and len(parts) == len({*parts} & _OBJECT_PARTS) and not any(len(part) for part in element)
    return None if known else "The XML you provided did not validate against our published schema."


def _ambiguous_qualifier(path: str, parameters: Mapping[str, Any], operation: str | None) -> str | None:
    """Say in which way a function's version or alias is named twice, or where it means nothing."""
    from ministack.services import lambda_svc

    match = _FUNCTION.match(path)
    qualifier = lambda_svc._resolve_name_and_qualifier(match[1])[1] if match else None
    if qualifier and operation and not members.takes("lambda", operation, "Qualifier"):
        return f"{operation} takes no qualifier."
    if qualifier and parameters.get("Qualifier", [qualifier]) != [qualifier]:
        return "The derived qualifier from the function name does not match the specified qualifier."
    return "Qualifier is given more than once." if len(parameters.get("Qualifier", ())) > 1 else None


def _lambda_action(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    name = _lambda_route(method, path, query)
    return name and _LAMBDA_ACTIONS.get(name, name)


def _lambda_route(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    for route_method, pattern, parameter, name in _lambda_routes():
        if (
            method == route_method
            and pattern.fullmatch(path.removesuffix("/"))
            and (not parameter or parameter in query)
        ):
            return name
    return None


@functools.cache
def _lambda_routes() -> list[tuple[str, re.Pattern[str], str, str]]:
    """Method, path, a parameter that tells the route from one of the same path, and operation; literal paths first."""
    from ministack.core import iam_actions

    routes = []
    for name, operation in iam_actions._load_botocore_model("lambda")["operations"].items():
        path, _, parameter = operation["http"]["requestUri"].partition("?")
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path.removesuffix("/")))
        routes.append((operation["http"]["method"], re.compile(pattern), parameter.partition("=")[0], name))
    return sorted(routes, key=lambda route: (not route[2], route[1].pattern.count("[^/]+")))

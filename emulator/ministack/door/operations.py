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
        return _ambiguous_s3(method, path, query)
    if unquote(path) != path:
        return "The path is encoded twice."
    if not _speaks_query(service, path):
        return None
    parameters = {name: values for name, values in query.items() if name.lower() not in RESERVED}
    if "x-amz-target" in headers or _CBOR.fullmatch(path):
        if service not in _TARGETS or parameters:
            return "The operation is named by the header or the path and by parameters."
        return None
    if body and parameters:
        return "Parameters are in the query and in the body."
    doubled = [name for name, values in {**parameters, **_form(body)}.items() if len(values) > 1]
    return f"Given more than once: {', '.join(doubled)}." if doubled else None


def _form(body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def _ambiguous_s3(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    from ministack.core import iam_actions

    tables = (iam_actions._S3_QUERY_ACTIONS, iam_actions._S3_BUCKET_QUERY_ACTIONS, iam_actions._S3_OBJECT_QUERY_ACTIONS)
    named = sorted({name for table in tables for name in table} & query.keys())
    if len(named) > 1:
        return f"Conflicting query string parameters: {', '.join(named)}"
    if iam_actions._s3_action(method, path, query) is None:
        return "The specified method is not allowed against this resource."
    return None


def _lambda_action(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    for route_method, pattern, parameter, name in _lambda_routes():
        if (
            method == route_method
            and pattern.fullmatch(path.removesuffix("/"))
            and (not parameter or parameter in query)
        ):
            return _LAMBDA_ACTIONS.get(name, name)
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

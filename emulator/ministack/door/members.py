"""Which members a request may have: those of its operation.

MiniStack reads the resource that IAM is asked about from members of any operation of the service, in an order of its
own, while its services read theirs only.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, StructureShape

#: Models of botocore by MiniStack's name of the service, where it has another.
_MODELS = {
    "apigateway": ("apigateway", "apigatewayv2"),
    "documentdb": ("docdb",),
    "elasticfilesystem": ("efs",),
    "elasticloadbalancing": ("elbv2", "elb"),
    "elasticmapreduce": ("emr",),
    "airflow": ("mwaa",),
    "monitoring": ("cloudwatch",),
    "ses": ("ses", "sesv2"),
    "states": ("stepfunctions",),
    "tagging": ("resourcegroupstaggingapi",),
}
_NONE = StructureShape("NoMembers", {"type": "structure", "members": {}})
#: What every request of the query protocol has; the older form of SQS's has names that its model no longer tells.
_COMMON = frozenset({"Action", "Version"})
_QUEUE_MEMBERS = frozenset({"QueueUrl", "QueueName"})
#: Members of which a request names its resource by one.
_EITHER = {
    "kinesis": {"StreamARN", "StreamName"},
    "logs": {"logGroupName", "logGroupIdentifier", "logGroupNames", "logGroupIdentifiers"},
    "sns": {"TopicArn", "TargetArn", "PhoneNumber"},
}


def foreign(service: str, operation: str, names: Iterable[str], *, query_protocol: bool) -> str | None:
    """Say which members are another operation's, or name one resource in two ways."""
    if refused := _token(service, operation):
        return refused
    given = {name.partition(".")[0] if query_protocol else name for name in names} - _COMMON
    shapes = _input_shapes(service, operation)
    allowed = {name for shape in shapes for name in _names(shape, query_protocol)}
    if service == "sqs" and query_protocol:
        given &= _QUEUE_MEMBERS
    if shapes and (unknown := sorted(given - allowed)):
        return f"{operation} has no such members: {', '.join(unknown)}."
    several = sorted(_EITHER.get(service, set()) & given)
    return f"Give one of these, not all: {', '.join(several)}." if len(several) > 1 else None


def of_json(body: bytes) -> list[str]:
    """Names of the members of a JSON object; none of what is no object, which the service refuses."""
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        return []
    return list(content) if isinstance(content, dict) else []


def foreign_rest(service: str, operation: str, names: Iterable[str], query: Mapping[str, Any]) -> str | None:
    """Say which members of a REST request's body, or of its query, are none of its operation's."""
    if refused := _token(service, operation):
        return refused
    given = {"body": set(names), "querystring": set(query)}
    for model in (models := _operations(service, operation)):
        static = parse_qsl(model.http["requestUri"].partition("?")[2], keep_blank_values=True)
        given["querystring"] -= {name for name, _ in static}
        for name, member in (model.input_shape or _NONE).members.items():
            place = member.serialization.get("location", "body")
            if place == "querystring" and member.type_name == "map":
                given[place] = set()
            elif place in given:
                given[place].discard(member.serialization.get("name", name))
        if model.input_shape is not None and "payload" in model.input_shape.serialization:
            given["body"] = set()
    unknown = sorted(given["body"] | given["querystring"])
    return f"{operation} has no such members: {', '.join(unknown)}." if models and unknown else None


def _token(service: str, operation: str) -> str | None:
    """Refuse what AWS serves without a signature, to those who hold a token: MiniStack believes any token."""
    unsigned = any(model.auth_type == "none" for model in _operations(service, operation))
    return f"{operation} goes by a token, and the local AWS verifies none." if unsigned else None


def takes(service: str, operation: str, member: str) -> bool:
    """Whether an operation has a member."""
    return any(member in shape.members for shape in _input_shapes(service, operation))


def _names(shape: StructureShape, query_protocol: bool) -> set[str]:
    names = set()
    for name, member in shape.members.items():
        serialized = member.serialization.get("name", name)
        names.add(serialized)
        if query_protocol:
            ec2 = member.serialization.get("queryName") or serialized[:1].upper() + serialized[1:]
            names |= {name, ec2}
            if isinstance(member, ListShape) and member.serialization.get("flattened"):
                names.add(member.member.serialization.get("name", name))
    return names


def _input_shapes(service: str, operation: str) -> list[StructureShape]:
    return [model.input_shape or _NONE for model in _operations(service, operation)]


def _operations(service: str, operation: str) -> list[Any]:
    found = []
    for name in _MODELS.get(service, (service,)):
        if (model := _model(name)) and operation in model.operation_names:
            found.append(model.operation_model(operation))
    return found


@functools.cache
def _model(name: str) -> ServiceModel | None:
    loader = Loader()
    if name not in loader.list_available_services("service-2"):
        return None
    return ServiceModel(loader.load_service_model(name, "service-2"), name)

"""Which members a request may have: those of its operation.

MiniStack reads the resource that IAM is asked about from members of any operation of the service, in an order of its
own, while its services read theirs only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, OperationModel, Shape, StructureShape
from botocore.utils import parse_timestamp
from defusedxml.ElementTree import ParseError, fromstring

from emulator.platform.awsapi import service_model
from emulator.platform.errors import ServiceError
from emulator.platform.validation import in_headers, refused_members, validate

#: Models of botocore by MiniStack's name of the service, where it has another.
MODELS = {"monitoring": "cloudwatch", "tagging": "resourcegroupstaggingapi"}
_NONE = StructureShape("NoMembers", {"type": "structure", "members": {}})
_MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"
#: A thousand keys of the longest kind fit. The worst XML of so many bytes holds the server for about five seconds.
_MOST_BYTES = 6 * 2**20
_READERS: dict[str, Callable[[str], Any]] = {
    **{"integer": lambda text: _integer(text, 31), "long": lambda text: _integer(text, 63)},
    "timestamp": lambda text: parse_timestamp(text).timestamp(),
    "boolean": lambda text: {"true": True, "false": False}[text.strip().lower()],
}
#: What every request of the query protocol has.
_COMMON = frozenset({"Action", "Version"})
#: Members of which a request names its resource by one.
_EITHER = {
    "logs": {"logGroupName", "logGroupIdentifier", "logGroupNames", "logGroupIdentifiers"},
    "sns": {"TopicArn", "TargetArn", "PhoneNumber"},
}


def foreign_in_query(service: str, operation: str, parameters: Mapping[str, Sequence[str]]) -> str | None:
    """Say which parameters of the query protocol are another operation's, or name one resource in two ways."""
    model = _operation(service, operation)
    if model is None:
        return None  # which the service refuses
    given = {name.partition(".")[0] for name in parameters} - _COMMON
    unknown = _unsigned(model) or _unknown(model, given - _parameters(model)) or _doubled(service, given)
    values = {name.partition(".")[0]: value for name, (value, *_) in parameters.items() if value != "false"}
    return unknown or forgotten(service, operation, values)


def foreign(
    service: str, operation: str, request: Mapping[str, Any], query: Mapping[str, Any], headers: Mapping[str, str]
) -> str | None:
    """Say which members of a request's JSON, or of its query, are another operation's, or name a resource twice."""
    model = _operation(service, operation)
    if model is None:
        return None
    static = parse_qsl(model.http["requestUri"].partition("?")[2], keep_blank_values=True)
    given = {"body": set(request), "querystring": query.keys() - {name for name, _ in static}}
    doubled = _doubled(service, given["body"])
    for name, member in (model.input_shape or _NONE).members.items():
        place = member.serialization.get("location", "body")
        if place == "querystring" and member.type_name == "map":
            given[place] = set()
        elif place in given:
            given[place].discard(member.serialization.get("name", name))
    if model.input_shape is not None and "payload" in model.input_shape.serialization:
        given["body"] = set()
    unknown = _unsigned(model) or _unknown(model, given["body"] | given["querystring"]) or doubled
    asked = {name: value[0] if isinstance(value, list) else value for name, value in query.items()}
    return unknown or forgotten(service, operation, {**asked, **request}, headers)


def forgotten(
    service: str, operation: str, request: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> str:
    """Say which members MiniStack would drop without a word, and what to do."""
    model = _operation(service, operation)
    shape = (model and model.input_shape) or _NONE
    members = {**request, **in_headers(shape, headers or {})}
    return " ".join(refused_members(service, operation, members, shape))


def check_values(service: str, operation: str, read: Callable[[], Mapping[str, Any]]) -> None:
    """Refuse values in the JSON of a request that its operation does not take."""
    shape = (model := _operation(service, operation)) and model.input_shape
    if shape is not None and "payload" not in shape.serialization:
        validate(read(), shape, whole=False)


def check_xml(operation: str, body: bytes) -> None:
    """Refuse a request to S3 whose XML is not that of its operation's model, or says what is not here."""
    shape, required = xml_shape(operation)
    if shape is None or not (body or required):
        return
    if len(body) > _MOST_BYTES:
        raise ServiceError("MaxMessageLengthExceeded", "Your request was too large.")
    try:
        root = fromstring(body)
        namespace = root.tag.removesuffix(shape.serialization["name"])
        if namespace not in ("", f"{{{shape.serialization['xmlNamespace']['uri']}}}"):
            raise ValueError
        payload = _read_xml(root, shape, namespace)
        if payload.get("LocationConstraint") == "":
            del payload["LocationConstraint"]  # some clients send it for us-east-1
        validate(payload, shape)
    except (ParseError, ValueError, LookupError, RuntimeError):  # the last for dates that are no number of seconds
        raise ServiceError("MalformedXML", _MALFORMED) from None
    except ServiceError as wrong:
        if ".events." in wrong.message:
            return  # which notifications have words of their own for
        if "'locationConstraint'" in wrong.message:
            raise ServiceError("InvalidLocationConstraint", "The specified location-constraint is not valid") from None
        raise ServiceError("MalformedXML", f"{_MALFORMED}: {wrong.message}") from None
    if shape.name == "CompletedMultipartUpload" and not payload:
        raise ServiceError("InvalidRequest", "You must specify at least one part")
    keys = [tag["Key"] for tag in payload.get("TagSet", ())]
    if len(set(keys)) < len(keys):
        raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key")
    if any(key.startswith("aws:") for key in keys):
        raise ServiceError("InvalidTag", "System tags cannot be added/updated by requester")
    if refused := " ".join(refused_members("s3", operation, payload, shape, shape.name)):
        raise ServiceError("NotImplemented", refused, 501)


@functools.cache
def xml_shape(operation: str) -> tuple[StructureShape | None, bool]:
    """Give what the body of a request to S3 is, and whether it has to be there; None where it is no XML."""
    # Two operations had forerunners of the same path.
    request = (_operation("s3", f"{operation}Configuration") or _operation("s3", operation)).input_shape or _NONE  # type: ignore[union-attr]
    name = request.serialization.get("payload", "")
    shape = request.members.get(name)
    return (shape, name in request.required_members) if isinstance(shape, StructureShape) else (None, False)


@functools.cache
def _names(shape: StructureShape, namespace: str) -> dict[str, tuple[str, Shape, Shape | None]]:
    """By tag: the member, its shape, and that of its own members if they stand there without a list around them."""
    return {
        f"{namespace}{of.serialization.get('name', name)}": (
            name, of, of.member if isinstance(of, ListShape) and of.serialization.get("flattened") else None
        )
        for name, of in shape.members.items()
    }  # fmt: skip


def _read_xml(element: Any, shape: Shape, namespace: str) -> Any:
    """Read an element as botocore would have written it; a ValueError or LookupError says that it would not."""
    if isinstance(shape, StructureShape):
        names = _names(shape, namespace)
        found = {names[f"{namespace}xsi:{key.rpartition('}')[2]}"][0]: value for key, value in element.items()}
        for child in element:
            name, of, flattened = names[child.tag]
            if flattened is not None:
                found.setdefault(name, []).append(_read_xml(child, flattened, namespace))
            elif name in found:
                raise ValueError
            else:
                found[name] = _read_xml(child, of, namespace)
        return found
    if isinstance(shape, ListShape):
        tag = f"{namespace}{shape.member.serialization.get('name', 'member')}"
        if any(child.tag != tag for child in element):
            raise ValueError
        return [_read_xml(child, shape.member, namespace) for child in element]
    if len(element):
        raise ValueError
    return _READERS.get(shape.type_name, str)(element.text or "")


def _integer(text: str, bits: int) -> int:
    if text.isascii() and "_" not in text and -(2**bits) <= (number := int(text)) < 2**bits:
        return number
    raise ValueError


def takes(service: str, operation: str, member: str) -> bool:
    """Whether an operation has a member."""
    model = _operation(service, operation)
    return model is not None and model.input_shape is not None and member in model.input_shape.members


def _unsigned(model: OperationModel) -> str | None:
    """Refuse what AWS serves without a signature, to those who hold a token: MiniStack believes any token."""
    return f"{model.name} goes by a token, and the local AWS verifies none." if model.auth_type == "none" else None


def _unknown(model: OperationModel, names: set[str]) -> str | None:
    return f"{model.name} has no such members: {', '.join(sorted(names))}." if names else None


def _doubled(service: str, given: set[str]) -> str | None:
    several = sorted(_EITHER.get(service, set()) & given)
    return f"Give one of these, not all: {', '.join(several)}." if len(several) > 1 else None


def _parameters(model: OperationModel) -> set[str]:
    """The names that an operation's members have in the query protocol, EC2's spelling of it among them."""
    names = set()
    for name, member in (model.input_shape or _NONE).members.items():
        serialized = member.serialization.get("name", name)
        ec2 = member.serialization.get("queryName") or serialized[:1].upper() + serialized[1:]
        names |= {name, serialized, ec2}
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            names.add(member.member.serialization.get("name", name))
    return names


def _operation(service: str, name: str) -> OperationModel | None:
    model = service_model(MODELS.get(service, service))
    return model.operation_model(name) if name in model.operation_names else None

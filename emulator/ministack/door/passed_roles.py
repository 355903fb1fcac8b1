"""``iam:PassRole`` for the services of MiniStack that work under a role which a request names."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

from emulator.ministack.door.operations import QUERY_SERVICES
from emulator.ministack.routing import refusal
from emulator.platform.awsapi import Caller
from emulator.platform.errors import Response

#: A member by or below which an input names a role, or an instance profile, which holds one.
MEMBER = re.compile(r"role|instanceprofile", re.IGNORECASE)
_ROLE_ARN = re.compile(r"arn:aws:iam::\d*:role/.+")
_PROFILE_ARN = re.compile(r"arn:aws:iam::\d*:instance-profile/(.+/)?(?P<name>.+)")
#: They name roles without handing them to a service, hold data that looks like it, or ask elsewhere (our own).
NOT_ASKED = frozenset({"application-autoscaling", "sagemaker", "sagemaker-runtime", "sts"})
#: By service, where it is not its own name: whom a role is passed to.
PRINCIPALS = {"iam": "ec2"}
#: What a function is called with is data, and so is an object of S3.
_INVOCATION = re.compile(r".*/(invocations|invoke-async|response-streaming-invocations)/?")
_OBJECT = re.compile(r"/+(?!v20180820/)[^/]+/+[^/].*", re.DOTALL)
#: Below these a request holds what its sender names.
_DATA = frozenset({"environment", "environmentvariables", "input", "tags"})
_IAM_OPERATION = "AddRoleToInstanceProfile"


def install() -> None:
    """Stand before every service that MiniStack has; before S3 where all of its host names lead."""
    from ministack import app
    from ministack.services import s3

    for service, handler in app.SERVICE_HANDLERS.items():
        if service not in {*NOT_ASKED, "s3"}:
            app.SERVICE_HANDLERS[service] = functools.partial(_handle, handler, service)
    s3.handle_request = functools.partial(_handle, s3.handle_request, "s3")


async def _handle(
    inner: Callable[..., Any], service: str,
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any], **options: Any,
) -> Response:  # fmt: skip
    """Ask IAM for the roles that a request hands to a service, before the service sees the request."""
    from ministack.core.responses import error_response_xml, get_account_id, get_region
    from ministack.services import s3

    caller = Caller(get_account_id(), get_region())
    if not (_OBJECT if service == "s3" else _INVOCATION).fullmatch(path):
        context = {"iam:PassedToService": f"{PRINCIPALS.get(service, service)}.amazonaws.com"}
        for role in sorted(passed(service, body, query)):
            if denied := refusal("iam:PassRole", role, context, headers, query, caller):
                if service in QUERY_SERVICES:
                    return error_response_xml("AccessDenied", denied.message, 403)  # type: ignore[no-any-return]
                if service == "s3":
                    return s3._error("AccessDenied", denied.message, 403)  # type: ignore[no-any-return]
                return denied.response()
    return await inner(method, path, headers, body, query, **options)  # type: ignore[no-any-return]


def passed(service: str, body: bytes, query: Mapping[str, Any]) -> set[str]:
    """ARNs of the roles that a request names, in its query or its body, whatever protocol it speaks."""
    request = [dict(query), _content(body)]
    if service == "iam" and all(_IAM_OPERATION not in part.get("Action", ()) for part in request):
        return set()
    return named(request)


def named(content: Any) -> set[str]:
    """ARNs of the roles that members of a request or a template's properties name."""
    return {arn for value in _values(content) for arn in _roles(value)}


def _content(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}")
        return request if isinstance(request, dict) else {}
    except ValueError:
        pass
    try:
        elements = ElementTree.fromstring(body).iter()  # noqa: S314  expat limits what entities grow to
    except ElementTree.ParseError:
        return parse_qs(body.decode("utf-8", "replace"))
    return {str(index): {element.tag.rpartition("}")[2]: element.text} for index, element in enumerate(elements)}


def _values(request: Any, below: bool = False) -> Iterator[str]:
    """Texts of the members that name a role."""
    if isinstance(request, dict):
        for name, value in request.items():
            if name.lower() not in _DATA:
                yield from _values(value, below or bool(MEMBER.search(name)))
    elif isinstance(request, list):
        for value in request:
            yield from _values(value, below)
    elif below and isinstance(request, str):
        yield request


def _roles(value: str) -> list[str]:
    """The role that a text names, by ARN or by name, or those of the instance profile."""
    from ministack.services import iam

    if _ROLE_ARN.fullmatch(value):
        return [value]
    match = _PROFILE_ARN.fullmatch(value)
    profile = iam._lookup_instance_profile(match["name"] if match else value, "")
    names = [value, *(profile or {}).get("Roles", [])]
    return [iam._roles[name]["Arn"] for name in names if name in iam._roles]

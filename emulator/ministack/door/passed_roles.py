"""``iam:PassRole`` for the services that work under a role which a request names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ministack import app
from ministack.core.router import extract_access_key_id
from ministack.services import iam

from emulator.ministack.door import operations
from emulator.ministack.door.enforcement import answer, refusal
from emulator.ministack.patching import around_service
from emulator.platform.errors import Response

#: A member by or below which an input names a role, or an instance profile, which holds one.
MEMBER = re.compile(r"role|instanceprofile|^credentials$", re.IGNORECASE)
_ROLE_ARN = re.compile(r"arn:aws:iam::\d*:role/.+")
_PROFILE_ARN = re.compile(r"arn:aws:iam::\d*:instance-profile/(.+/)?(?P<name>.+)")
#: They name roles without handing them to a service, hold data that looks like it, or take none.
NOT_ASKED = frozenset({"application-autoscaling", "s3", "sagemaker-runtime", "service-quotas", "sts"})
#: By service, where it is not its own name: whom a role is passed to.
PRINCIPALS = {"iam": "ec2"}
#: What a function is called with is data.
_INVOCATION = re.compile(r".*/(invocations|invoke-async|response-streaming-invocations)/?")
#: Below these a request holds what its sender names.
_DATA = frozenset({"environment", "environmentvariables", "hyperparameters", "input", "statichyperparameters", "tags"})
_IAM_OPERATION = "AddRoleToInstanceProfile"


def install() -> None:
    """Stand before every service that takes roles."""
    for service in set(app.SERVICE_HANDLERS) - NOT_ASKED:
        around_service(service, functools.partial(_handle, service))


async def _handle(
    service: str, inner: Callable[..., Any],
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any],
) -> Response:  # fmt: skip
    """Ask IAM for the roles that a request hands to a service, before the service sees the request."""
    if not _INVOCATION.fullmatch(path):
        context = {"iam:PassedToService": f"{PRINCIPALS.get(service, service)}.amazonaws.com"}
        for role in sorted(passed(service, body, query)):
            if denied := refusal(extract_access_key_id(headers, query), "iam:PassRole", role, context):
                return answer(service, "AccessDenied", denied.message, headers=headers)
    return await inner(method, path, headers, body, query)  # type: ignore[no-any-return]


def passed(service: str, body: bytes, query: Mapping[str, Any]) -> set[str]:
    """ARNs of the roles that a request names, in its query or its body, whatever protocol it speaks."""
    request = [dict(query), operations.content(body) or operations.form(body)]
    if service == "iam" and all(_IAM_OPERATION not in part.get("Action", ()) for part in request):
        return set()
    return named(request)


def named(content: Any) -> set[str]:
    """ARNs of the roles that members of a request or a template's properties name."""
    return {arn for value in _values(content) for arn in _roles(value)}


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
    if _ROLE_ARN.fullmatch(value):
        return [value]
    match = _PROFILE_ARN.fullmatch(value)
    profile = iam._lookup_instance_profile(match["name"] if match else value, "")
    names = [value, *(profile or {}).get("Roles", [])]
    return [iam._roles[name]["Arn"] for name in names if name in iam._roles]

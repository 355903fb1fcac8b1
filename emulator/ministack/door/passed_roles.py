"""``iam:PassRole`` for the services of MiniStack that work under a role which a request names."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from emulator.ministack.routing import refusal
from emulator.platform.awsapi import Caller
from emulator.platform.errors import Response

#: Paths of CreateFunction and UpdateFunctionConfiguration.
_FUNCTION_PATH = re.compile(r"/[0-9-]+/functions(/[^/]+/configuration)?/?")


def install() -> None:
    """Stand before Lambda, CodeBuild and CloudFormation."""
    from ministack import app

    for service, find in (("lambda", _of_function), ("codebuild", _of_project), ("cloudformation", _of_stack)):
        app.SERVICE_HANDLERS[service] = functools.partial(_handle, app.SERVICE_HANDLERS[service], service, find)


def _of_function(path: str, body: bytes) -> Any:
    return _json(body).get("Role") if _FUNCTION_PATH.fullmatch(path) else None


def _of_project(path: str, body: bytes) -> Any:
    request = _json(body)
    return request.get("serviceRole") or request.get("serviceRoleOverride")


def _of_stack(path: str, body: bytes) -> Any:
    return parse_qs(body.decode("latin-1")).get("RoleARN", [None])[0]


def _json(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return {}  # the service refuses it
    return request if isinstance(request, dict) else {}


async def _handle(
    inner: Callable[..., Any], service: str, find: Callable[[str, bytes], Any],
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any],
) -> Response:  # fmt: skip
    """Ask IAM for the role that a request hands to a service, before the service sees the request."""
    from ministack.core.responses import error_response_xml, get_account_id, get_region

    role = find(path, body)
    if isinstance(role, str):
        context = {"iam:PassedToService": f"{service}.amazonaws.com"}
        caller = Caller(get_account_id(), get_region())
        if denied := refusal("iam:PassRole", role, context, headers, query, caller):
            if service == "cloudformation":
                return error_response_xml("AccessDenied", denied.message, 403)  # type: ignore[no-any-return]
            return denied.response()
    return await inner(method, path, headers, body, query)  # type: ignore[no-any-return]

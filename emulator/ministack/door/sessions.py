"""How long a session may last, and what no policy allows it: MiniStack's STS takes any number of seconds.

MiniStack verifies no MFA device, so that the sessions of GetSessionToken are those without one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from emulator.ministack.door.operations import form
from emulator.platform.errors import Response

_SHORTEST = 900
#: By operation: the most seconds that it takes.
_LONGEST = {"AssumeRole": 43_200, "GetFederationToken": 129_600, "GetSessionToken": 129_600}
_CHAINED = 3_600
#: What the session of a user may ask of STS, a federated one only of the first; the last two are parts of AssumeRole.
_OF_FEDERATED = frozenset({"sts:GetCallerIdentity"})
_OF_USERS = _OF_FEDERATED | {"sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"}


def install() -> None:
    """Stand before STS."""
    from ministack import app

    app.SERVICE_HANDLERS["sts"] = functools.partial(_handle, app.SERVICE_HANDLERS["sts"])


def closed(access_key_id: str, action: str) -> tuple[str, str] | None:
    """Say by code and message why a session of a user or a federated one may not do something despite its policies."""
    from ministack.services import sts

    session = sts._sessions.get(access_key_id)
    service, _, operation = action.partition(":")
    if session is None or session.get("Arn", "").split(":", 5)[-1].startswith("assumed-role/"):
        return None
    if service == "iam" and action != "iam:PassRole":  # which is no operation
        return "InvalidClientTokenId", "The security token included in the request is invalid."
    open_to_it = _OF_FEDERATED if session.get("PrincipalType") == "FederatedUser" else _OF_USERS
    if service == "sts" and action not in open_to_it:
        return "AccessDenied", f"Cannot call {operation} with session credentials"
    return None


async def _handle(
    inner: Callable[..., Any], method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any]
) -> Response:
    from ministack.core.responses import error_response_xml
    from ministack.core.router import extract_access_key_id

    parameters = {name: values[0] for name, values in {**query, **form(body)}.items()}
    if problem := _problem(parameters, extract_access_key_id(headers, query)):
        return error_response_xml("ValidationError", problem, 400)  # type: ignore[no-any-return]
    return await inner(method, path, headers, body, query)  # type: ignore[no-any-return]


def _problem(parameters: Mapping[str, str], access_key_id: str) -> str | None:
    """Say what is wrong with the length of the session that is asked for."""
    from ministack.services import iam, sts

    given, action = parameters.get("DurationSeconds"), parameters.get("Action", "")
    if given is None or action not in _LONGEST:
        return None
    if not given.isdecimal() or not _SHORTEST <= int(given) <= _LONGEST[action]:
        return f"DurationSeconds of {action} is a number from {_SHORTEST} to {_LONGEST[action]}, not {given!r}."
    if action != "AssumeRole":
        return None
    if ":assumed-role/" in sts._sessions.get(access_key_id, {}).get("Arn", "") and int(given) > _CHAINED:
        return "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
    role = iam._roles.get(parameters.get("RoleArn", "").rpartition("/")[2]) or {}
    if int(given) > int(role.get("MaxSessionDuration", _CHAINED)):
        return "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    return None

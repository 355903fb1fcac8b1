"""How long a session of a role may last: MiniStack's STS takes any number of seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emulator.ministack.door.operations import form
from emulator.ministack.patching import around_service
from emulator.platform.errors import Response

_SHORTEST, _LONGEST, _CHAINED = 900, 43_200, 3_600


def install() -> None:
    """Stand before STS."""
    around_service("sts", _handle)


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

    given = parameters.get("DurationSeconds")
    if given is None or parameters.get("Action") != "AssumeRole":
        return None
    if not given.isdecimal() or not _SHORTEST <= int(given) <= _LONGEST:
        return f"DurationSeconds of AssumeRole is a number from {_SHORTEST} to {_LONGEST}, not {given!r}."
    if ":assumed-role/" in sts._sessions.get(access_key_id, {}).get("Arn", "") and int(given) > _CHAINED:
        return "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
    role = iam._roles.get(parameters.get("RoleArn", "").rpartition("/")[2]) or {}
    if int(given) > int(role.get("MaxSessionDuration", _CHAINED)):
        return "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    return None

"""Who a caller is to IAM: a session has the rights of its role, no longer than the role allows.

MiniStack's STS takes any number of seconds. Its policies know a session by its own ARN only, and no `NotPrincipal`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import error_response_xml
from ministack.core.router import extract_access_key_id
from ministack.services import iam, sts

from emulator.ministack.door.operations import form
from emulator.ministack.patching import around, around_service
from emulator.platform.errors import Response

_SESSION = re.compile(r"arn:aws:sts::(\d{12}):assumed-role/([^/]+)/.+")
_SHORTEST, _LONGEST, _CHAINED = 900, 43_200, 3_600  # seconds
_CALLER = re.compile(r"arn:aws:(?:iam|sts)::(\d{12}):.+")


def install() -> None:
    """Stand before STS, and where MiniStack compares a caller with a policy."""
    around(iam_evaluator, "_resolve_condition_key", _resolve_condition_key)
    around(iam_evaluator, "evaluate_resource_policy", _with_all_denials)
    around(iam_evaluator, "evaluate_trust_policy", _with_all_denials)
    around_service("sts", _handle)


def _resolve_condition_key(inner: Callable[..., Any], key: str, context: Any) -> Any:
    return _principal(context.principal_arn) if key.lower() == "aws:principalarn" else inner(key, context)


def _principal(arn: str) -> str:
    """The ARN of a caller as policies know it: a session's is that of its role, with its path."""
    if not (match := _SESSION.fullmatch(arn)):
        return arn
    account, name = match.groups()
    role = iam._roles.get_scoped(account, None, name)
    return str(role["Arn"]) if role else f"arn:aws:iam::{account}:role/{name}"


def _with_all_denials(inner: Callable[..., Any], document: Any, caller: Any, *arguments: Any, **options: Any) -> Any:
    arn = caller if isinstance(caller, str) else caller.principal_arn
    return inner(_for_caller(document, arn, options.get("service")), caller, *arguments, **options)


def _for_caller(document: Any, arn: str, service: str | None) -> Any:
    """Put each Deny with a NotPrincipal as one that names the caller, or leave it out."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return None
    if not isinstance(document, dict):
        return document
    meant = []
    for statement in listed(document.get("Statement", [])):
        if isinstance(statement, dict) and statement.get("Effect") == "Deny" and "NotPrincipal" in statement:
            if _left_out(statement["NotPrincipal"], arn, service):
                continue
            statement = {**statement, "Principal": "*"}
        meant.append(statement)
    return {**document, "Statement": meant}


def _left_out(named: Any, arn: str, service: str | None) -> bool:
    """Whether a NotPrincipal names all that a caller is: a session also its role, and everybody their account."""
    if not isinstance(named, dict):
        return bool(named == "*")
    if service:
        return service in listed(named.get("Service"))
    names, account = {name for name in listed(named.get("AWS")) if isinstance(name, str)}, _CALLER.fullmatch(arn)
    if "*" in names or account is None:
        return "*" in names
    return {arn, _principal(arn)} <= names and bool(names & {account[1], f"arn:aws:iam::{account[1]}:root"})


def listed(value: Any) -> list[Any]:
    """One item of a policy, or several, as a list."""
    return value if isinstance(value, list) else [value]


async def _handle(
    inner: Callable[..., Any], method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any]
) -> Response:
    parameters = {name: values[0] for name, values in {**query, **form(body)}.items()}
    if (arn := parameters.get("RoleArn")) and arn != (iam._roles.get(arn.rpartition("/")[2]) or {}).get("Arn", arn):
        return error_response_xml("AccessDenied", f"No role has the ARN {arn}: another path.", 403)  # type: ignore[no-any-return]
    if problem := _problem(parameters, extract_access_key_id(headers, query)):
        return error_response_xml("ValidationError", problem, 400)  # type: ignore[no-any-return]
    return await inner(method, path, headers, body, query)  # type: ignore[no-any-return]


def _problem(parameters: Mapping[str, str], access_key_id: str) -> str | None:
    """Say what is wrong with the length of the session that is asked for."""
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

"""Keys of KMS that other services use for a caller, who needs them as well: MiniStack asks nobody about a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emulator.ministack.door.enforcement import refusal
from emulator.ministack.door.operations import content
from emulator.ministack.patching import around_service
from emulator.platform.errors import Response, ServiceError

#: KMS's errors of keys that nobody can use.
UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})


def install() -> None:
    """Stand before Parameter Store."""
    around_service("ssm", _handle)


def refused(key_id: str, service: str, actions: tuple[str, ...], access_key: str) -> ServiceError | None:
    """Why a caller may not use a key by way of a service: one of `UNUSABLE`, or a denial.

    The key that AWS manages for the service is there for everybody.
    """
    from ministack.core.responses import get_region
    from ministack.services import kms

    if key_id.rpartition(":")[2] == f"alias/aws/{service}":
        return None
    if (record := kms._resolve_key(key_id)) is None:
        return ServiceError("NotFoundException", f"Key '{key_id}' does not exist")
    if (unusable := kms._check_key_state(record)) is not None:
        error = json.loads(unusable[2])
        return ServiceError(error["__type"], error["message"])
    context = {"kms:ViaService": f"{service}.{get_region()}.amazonaws.com"}
    denials = (refusal(access_key, action, record["Arn"], context) for action in actions)
    return next(filter(None, denials), None)


async def _handle(
    inner: Callable[..., Any], method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any]
) -> Response:
    from ministack.core.router import extract_access_key_id

    access_key = extract_access_key_id(headers, query)

    def response_to(keys: set[str], action: str) -> Response | None:
        denied = next(filter(None, (refused(key, "ssm", (action,), access_key) for key in keys)), None)
        if denied and denied.code in UNUSABLE:
            denied = ServiceError("InvalidKeyId", denied.message)
        return denied.response() if denied else None

    request = content(body)
    if response := response_to({str(request["KeyId"])} if request.get("KeyId") else set(), "kms:Encrypt"):
        return response
    response = await inner(method, path, headers, body, query)
    found = content(response[2]) if request.get("WithDecryption") and response[0] == 200 else {}
    return response_to(set(_read(found)), "kms:Decrypt") or response


def _read(response: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the parameters whose values are in a response."""
    from ministack.services import ssm

    for value in [response.get("Parameter") or {}, *response.get("Parameters", [])]:
        if value.get("Type") == "SecureString":
            versions = ssm._parameter_history.get(value["Name"]) or []
            yield next((made["KeyId"] for made in versions if made["Version"] == value["Version"]), "")

"""Keys of KMS that other services use for a caller, who needs them as well: MiniStack asks nobody about a key."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emulator.ministack.door.enforcement import refusal
from emulator.ministack.door.operations import content
from emulator.platform.errors import Response, ServiceError

#: KMS's errors of keys that nobody can use.
UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
#: What a service calls such a key.
_UNUSABLE = {"secretsmanager": "DecryptionFailure", "ssm": "InvalidKeyId"}
#: What it does with the key of what it writes.
_WRITING = {"secretsmanager": ("kms:GenerateDataKey", "kms:Decrypt"), "ssm": ("kms:Encrypt",)}


def install() -> None:
    """Stand before Secrets Manager and Parameter Store."""
    from ministack import app

    for service in _UNUSABLE:
        app.SERVICE_HANDLERS[service] = functools.partial(_handle, app.SERVICE_HANDLERS[service], service)


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
    inner: Callable[..., Any], service: str,
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any],
) -> Response:  # fmt: skip
    from ministack.core.router import extract_access_key_id

    access_key = extract_access_key_id(headers, query)

    def response_to(keys: Iterator[str], *actions: str) -> Response | None:
        denied = next(filter(None, (refused(key, service, actions, access_key) for key in set(keys))), None)
        if denied and denied.code in UNUSABLE:
            denied = ServiceError(_UNUSABLE[service], denied.message)
        return denied.response() if denied else None

    request = content(body)
    if response := response_to(_written(request), *_WRITING[service]):
        return response
    response = await inner(method, path, headers, body, query)
    readable = service == "secretsmanager" or request.get("WithDecryption")
    found = content(response[2]) if readable and response[0] == 200 else {}
    return response_to(_read(found), "kms:Decrypt") or response


def _written(request: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a request names, and that of the secret whose value it sets."""
    from ministack.services import secretsmanager

    regions = [region for region in request.get("AddReplicaRegions") or [] if isinstance(region, dict)]
    for place in (request, *regions):
        yield from (str(place[name]) for name in ("KeyId", "KmsKeyId") if place.get(name))
    if "SecretString" in request or "SecretBinary" in request:
        secret = secretsmanager._resolve(str(request.get("SecretId", "")))[1] or {}
        yield from filter(None, [secret.get("KmsKeyId")])


def _read(response: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the secrets and the parameters whose values are in a response."""
    from ministack.services import secretsmanager, ssm

    for value in [response, *response.get("SecretValues", [])]:
        if "SecretString" in value or "SecretBinary" in value:
            yield from filter(None, [(secretsmanager._resolve(value["ARN"])[1] or {}).get("KmsKeyId")])
    for value in [response.get("Parameter") or {}, *response.get("Parameters", [])]:
        if value.get("Type") == "SecureString":
            versions = ssm._parameter_history.get(value["Name"]) or []
            yield next((made["KeyId"] for made in versions if made["Version"] == value["Version"]), "")

"""Who calls: sessions of roles for what SageMaker and EC2 run."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.iam_evaluator import EvalContext
from ministack.services import iam, sts

from emulator.ministack.door.principals import listed
from emulator.platform.errors import ServiceError
from emulator.platform.running.layout import access_key_id

#: Access keys of the sessions that services keep, by service and role.
_kept: dict[tuple[str, str], str] = {}


def open_session(service: str, role_arn: str, session_name: str) -> dict[str, str]:
    """Assume a role on behalf of a service, such as sagemaker.amazonaws.com.

    The session ends with the server only: a process cannot be handed new environment variables, as containers are.
    A role that does not exist, or does not trust the service, is a ValidationException.
    """
    account, role = _assumed(service, role_arn)
    name, session = role["RoleName"], session_name[:64]  # as long as a name of a session may be
    credentials = {
        "AWS_ACCESS_KEY_ID": access_key_id("ASIA"),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        "AWS_SESSION_TOKEN": secrets.token_urlsafe(120),
    }
    sts.register_session(
        credentials["AWS_ACCESS_KEY_ID"],
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
            "UserId": f"{role['RoleId']}:{session}",
            "SecretAccessKey": credentials["AWS_SECRET_ACCESS_KEY"],
            "SessionToken": credentials["AWS_SESSION_TOKEN"],
        },
    )
    return credentials


def acting_as(service: str, role_arn: str) -> str:
    """Give the access key of the one session of a role that a service keeps, as long as the role trusts it."""
    _, role = _assumed(service, role_arn)
    place = service, role["RoleId"]
    if _kept.get(place) not in sts._sessions:
        _kept[place] = open_session(service, role_arn, service.partition(".")[0])["AWS_ACCESS_KEY_ID"]
    return _kept[place]


def _assumed(service: str, role_arn: str) -> tuple[str, dict[str, Any]]:
    account, role = _role(role_arn)
    if role is None or not _trusts(role, service, account):
        raise ServiceError(
            "ValidationException",
            f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
            f"'{service}' to assume the role.",
        )
    return account, role


def _role(role_arn: str) -> tuple[str, dict[str, Any] | None]:
    fields = role_arn.split(":", 5)
    if len(fields) != 6 or fields[2] != "iam" or not fields[5].startswith("role/"):
        return "", None
    role = iam._roles.get_scoped(fields[4], None, fields[5].rsplit("/", 1)[-1])
    return fields[4], role if role is not None and role["Arn"] == role_arn else None


def _trusts(role: dict[str, Any], service: str, account: str) -> bool:
    """Say whether a role lets an AWS service assume it.

    MiniStack evaluates trust policies for IAM principals only, so what names the service is put as naming everybody.
    """
    document = json.loads(role["AssumeRolePolicyDocument"])
    applicable = [
        {**statement, "Principal": "*"}
        for statement in listed(document["Statement"])
        if isinstance(statement.get("Principal"), dict) and service in listed(statement["Principal"].get("Service", []))
    ]
    keys = {"aws:sourceaccount": account}
    context = EvalContext(service, "Service", account, "sts:AssumeRole", role["Arn"], "", service_context=keys)
    return bool(iam_evaluator.evaluate_trust_policy({**document, "Statement": applicable}, service, context))

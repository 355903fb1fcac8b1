"""Who calls: sessions of roles for what SageMaker and EC2 run."""

from __future__ import annotations

import json
import secrets
from typing import Any

from emulator.platform.errors import ServiceError
from emulator.platform.layout import access_key_id

_SESSION_NAME_LIMIT = 64


def open_session(service: str, role_arn: str, session_name: str) -> dict[str, str]:
    """Assume a role on behalf of a service, such as sagemaker.amazonaws.com.

    The session has no end, unlike AWS's: a process cannot be handed new environment variables, and the containers that
    it stands for renew theirs. It is not saved, so it ends with the server.

    Raises
    ------
    ServiceError
        ValidationException when the role does not exist or does not trust the service.
    """
    from ministack.services import sts

    account, role = _role(role_arn)
    if role is None or not _trusts(role, service, account):
        raise ServiceError(
            "ValidationException",
            f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
            f"'{service}' to assume the role.",
        )
    name, session = role["RoleName"], session_name[:_SESSION_NAME_LIMIT]
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


def _role(role_arn: str) -> tuple[str, dict[str, Any] | None]:
    from ministack.services import iam

    fields = role_arn.split(":", 5)
    if len(fields) != 6 or fields[2] != "iam" or not fields[5].startswith("role/"):
        return "", None
    role = iam._roles.get_scoped(fields[4], None, fields[5].rsplit("/", 1)[-1])
    return fields[4], role if role is not None and role["Arn"] == role_arn else None


def _trusts(role: dict[str, Any], service: str, account: str) -> bool:
    """Say whether a role lets an AWS service assume it.

    MiniStack evaluates trust policies for IAM principals only. The statements that name the service are put to it as
    if they named everybody, so that their effect, actions and conditions count.
    """
    from ministack.core.iam_evaluator import EvalContext, evaluate_trust_policy

    document = json.loads(role["AssumeRolePolicyDocument"])
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    applicable = [
        {**statement, "Principal": "*"}
        for statement in statements
        if isinstance(statement.get("Principal"), dict)
        and service in _as_list(statement["Principal"].get("Service", []))
    ]
    context = EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account=account,
        action="sts:AssumeRole",
        resource_arn=role["Arn"],
        region="",
        service_context={"aws:sourceaccount": account},
    )
    return evaluate_trust_policy({**document, "Statement": applicable}, service, context)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

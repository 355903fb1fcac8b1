"""The role under which `kennel audit` reads an account."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.constructs.inline_role import InlineRole
from infra.gate.compliance import acknowledge, acknowledge_caller
from infra.gate.policies import knows_resources

#: Operations by service.
READS: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def audit_role(scope: Construct, construct_id: str, *, trusted: Sequence[str]) -> InlineRole:
    """Make a role that reads what an audit looks at, and that these principals may assume."""
    principal = iam.CompositePrincipal(*(iam.ArnPrincipal(arn) for arn in trusted))
    role = InlineRole(scope, construct_id, principal=principal, description="Audit")
    because = "An audit looks at all that is in the account; it reads configuration, and no data."
    actions = [f"{service}:{action}" for service, names in READS.items() for action in names.split()]
    role.allow("Audit", actions, ["*"], because=because)
    for action in filter(knows_resources, map(str.lower, actions)):
        acknowledge(role.resource, f"ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER[{action}]", because)
    for arn in trusted:
        acknowledge_caller(role.resource, arn, "The settings name this caller (audit.trusted).")
    return role

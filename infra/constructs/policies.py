"""Short forms for the inline policies of roles: permissions are never a resource of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Aws
from aws_cdk import aws_iam as iam


def policy(*statements: iam.PolicyStatement) -> iam.PolicyDocument:
    """A policy of these statements."""
    return iam.PolicyDocument(statements=list(statements))


def allow(
    actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
) -> iam.PolicyStatement:
    """A statement that allows the actions on the resources, and on no other."""
    return iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)


def allow_in_s3(
    actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
) -> iam.PolicyStatement:
    """Build a statement about buckets of this account only.

    An ARN in S3 names no account: another one that takes the name of a deleted bucket could feed us with objects, or be
    sent ours.
    """
    return allow(actions, resources, {"StringEquals": {"aws:ResourceAccount": Aws.ACCOUNT_ID}, **(conditions or {})})

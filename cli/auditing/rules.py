"""All rules of the audit: one table for the findings, SARIF and the documentation."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Rule(NamedTuple):
    """What a rule looks for; its title completes "The audit found …"."""

    severity: Severity
    title: str


RULES = {
    # identities: what policies allow
    "policy-admin": Rule(Severity.CRITICAL, "a policy that allows every action on every resource"),
    "policy-service-wildcard": Rule(Severity.HIGH, "a policy that allows all actions of a service on every resource"),
    "policy-not-action": Rule(Severity.HIGH, "a policy that allows all actions but a few (NotAction) or resources"),
    "policy-aws-admin": Rule(Severity.CRITICAL, "an attached AdministratorAccess, PowerUserAccess or IAMFullAccess"),
    "policy-aws-full-access": Rule(Severity.HIGH, "an attached AWS-managed policy …FullAccess"),
    "policy-escalation": Rule(Severity.CRITICAL, "permissions with which a principal can become an administrator"),
    "policy-exfiltration": Rule(Severity.HIGH, "permissions to read all data of a service"),
    "policy-exposure": Rule(Severity.HIGH, "permissions to open resources to others, on every resource"),
    "policy-credentials": Rule(Severity.HIGH, "permissions to obtain others' credentials, on every resource"),
    "policy-wildcard-resource": Rule(Severity.MEDIUM, "a policy with Resource * where a resource could be named"),
    # identities: who may take a role
    "trust-world": Rule(Severity.CRITICAL, "a role that anybody may assume"),
    "trust-foreign-account": Rule(Severity.HIGH, "a role that another account may assume without sts:ExternalId"),
    "trust-confused-deputy": Rule(Severity.MEDIUM, "a role that trusts a shared service without aws:SourceAccount"),
    "trust-github": Rule(Severity.CRITICAL, "a role that every repository of GitHub may assume"),
    # identities: what nobody uses, and how people sign in
    "role-unused": Rule(Severity.MEDIUM, "a role that nobody has used for long"),
    "permission-unused": Rule(Severity.LOW, "permissions for services that their holder has not used for long"),
    "policy-unused": Rule(Severity.LOW, "a customer-managed policy that is attached to nobody"),
    "user-unused": Rule(Severity.MEDIUM, "a user who has not signed in or called AWS for long"),
    "password-unused": Rule(Severity.MEDIUM, "a password that nobody has used for long"),
    "key-unused": Rule(Severity.MEDIUM, "an active access key that nobody has used for long"),
    "user-without-mfa": Rule(Severity.HIGH, "a user with a password and no MFA device"),
    "root-key": Rule(Severity.CRITICAL, "an access key of the root user"),
    "root-without-mfa": Rule(Severity.CRITICAL, "a root user without an MFA device"),
}

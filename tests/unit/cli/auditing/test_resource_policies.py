"""Whom a resource's policy lets in from outside, by principal and condition."""

from typing import Any

import pytest

from cli.auditing.resources.policies import outsiders

OWN, OTHER = "123456789012", "999999999999"
ANYBODY, SERVICE = {"Principal": "*"}, {"Principal": {"Service": "s3.amazonaws.com"}}


def when(key: str, value: Any, operator: str = "StringEquals") -> dict[str, Any]:
    return {"Condition": {operator: {key: value}}}


@pytest.mark.parametrize(
    ("statement", "endings"),
    [
        (ANYBODY, ["public"]),
        ({"Principal": {"AWS": ["*", OWN]}}, ["public"]),
        ({"NotPrincipal": {"AWS": OWN}}, ["public"]),
        ({**ANYBODY, "Effect": "Deny"}, []),
        ({"Principal": {"AWS": f"arn:aws:iam::{OWN}:role/r"}}, []),
        ({"Principal": {"AWS": OTHER}}, ["foreign-account"]),
        (SERVICE, ["confused-deputy"]),
        *((who | when("aws:SourceAccount", OWN), []) for who in (ANYBODY, SERVICE)),
        *((who | when("AWS:SourceAccount", [OWN, OTHER]), ["foreign-account"]) for who in (ANYBODY, SERVICE)),
        (SERVICE | when("aws:SourceArn", "arn:aws:s3:::bucket", "ArnLike"), []),
        (SERVICE | when("aws:SourceArn", "*", "ArnLike"), ["confused-deputy"]),
        (ANYBODY | when("aws:PrincipalOrgID", "o-1"), []),
        (ANYBODY | when("aws:SourceAccount", OWN, "StringEqualsIfExists"), ["public"]),
        (ANYBODY | when("aws:SourceAccount", OTHER, "StringNotEquals"), ["public"]),
        (ANYBODY | when("aws:SourceIp", "203.0.113.0/24", "IpAddress"), []),
        (ANYBODY | when("aws:SourceIp", ["203.0.113.0/24", "0.0.0.0/0"], "IpAddress"), ["public"]),
        (ANYBODY | when("aws:SecureTransport", "true", "Bool"), ["public"]),
    ],
)
def test_who_is_let_in(statement: dict[str, Any], endings: list[str]) -> None:
    assert [ending for ending, _ in outsiders({"Effect": "Allow", **statement}, OWN)] == endings

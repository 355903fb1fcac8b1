"""What the audit reads in policies and trust policies, whatever the spelling."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.auditing.account import Account
from cli.auditing.findings import NotChecked, examine
from cli.auditing.identities import combined_rights, flaws, policy_rights
from cli.auditing.statements import actions, every_action
from cli.auditing.trust import trust_flaws
from cli.auditing.unused import sign_in, unused_roles
from cli.auditing.usage import Service, least_privilege

QUICKLY = settings(deadline=None, max_examples=30)
OWN = "123456789012"
ROLE = f"arn:aws:iam::{OWN}:role/r"
SERVICES = ("s3", "iam", "sagemaker", "lambda", "kms", "logs", "ec2")

everything = st.sampled_from(["*", "**", "*:*", "?*", "*?:*", [f"{letter}*" for letter in string.ascii_lowercase]])
any_resource = st.sampled_from(
    ["*", "**", "arn:*", "arn:aws:*", "arn:*:*:*:*:*", ["arn:aws:s3:::named", "*"], "arn:aws:*:*:123456789012:*"]
)
of_statement = st.one_of(any_resource.map(lambda it: {"Resource": it}), st.just({"NotResource": "arn:aws:s3:::but"}))
named_actions = st.lists(st.sampled_from(sorted(every_action())), min_size=1, max_size=5)
named = st.builds(
    lambda names, arn: {"Effect": "Allow", "Action": names, "Resource": arn},
    named_actions,
    st.sampled_from(
        ["arn:aws:s3:::bucket/*", f"arn:aws:iam::{OWN}:role/r", f"arn:aws:sagemaker:eu-west-1:{OWN}:endpoint/e*"]
    ),
)


def rules(*statements: dict[str, Any]) -> set[str]:
    return {flaw.rule for flaw in flaws({"Statement": list(statements)})}


@QUICKLY
@given(everything, of_statement, st.lists(named, max_size=2), st.booleans())
def test_full_access_is_found_in_any_spelling(
    names: Any, where: dict[str, Any], others: list[Any], inverted: bool
) -> None:
    allowed = {"NotAction": "nothing:AtAll"} if inverted else {"Action": names}
    statement = {"Effect": "Allow", **allowed, **where}
    assert rules(*others, statement) == {"policy-admin"}
    assert {flaw.rule for flaw in flaws({"Statement": statement})} == {"policy-admin"}  # one, not in a list
    assert "policy-admin" in rules({**statement, "Condition": {"Bool": {"aws:SecureTransport": "true"}}})
    assert "policy-admin" not in rules(statement, {"Effect": "Deny", "Action": "iam:*", "Resource": "*"})
    assert rules(statement, {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::*"}) >= {"policy-escalation"}


@QUICKLY
@given(st.sampled_from(SERVICES), of_statement, st.sampled_from(["{}:*", "{}:**", "{}:?*", "listed"]), st.booleans())
def test_a_whole_service_is_found_in_any_spelling(service: str, where: dict[str, Any], form: str, upper: bool) -> None:
    its = [action for action in every_action() if action.startswith(f"{service}:")]
    pattern = form.format(service.upper() if upper else service)
    statement = {"Effect": "Allow", "Action": its if form == "listed" else pattern, **where}
    found = rules(statement)
    assert "policy-admin" not in found
    assert ("policy-not-action" if "NotResource" in where else "policy-service-wildcard") in found
    assert rules({**statement, "Effect": "Deny"}) == set()
    if "NotResource" not in where:
        assert rules(statement) == rules({**statement, "Action": "*", "Resource": f"arn:aws:{service}:::*"})


@QUICKLY
@given(st.lists(named, max_size=4))
def test_named_actions_on_named_resources_are_no_finding(statements: list[dict[str, Any]]) -> None:
    assert rules(*statements) == set()


@pytest.mark.parametrize(
    ("allowed", "rule"),
    [
        (["iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction"], "policy-escalation"),
        (["iam:CreatePolicyVersion"], "policy-escalation"),
        (["s3:GetObject"], "policy-exfiltration"),
        (["s3:PutBucketPolicy"], "policy-exposure"),
        (["sts:AssumeRole"], "policy-credentials"),
        (["sagemaker:DeleteEndpoint"], "policy-wildcard-resource"),
    ],
)
def test_dangerous_actions_are_found_on_every_resource_only(allowed: list[str], rule: str) -> None:
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    assert rule in rules(statement)
    assert rules({**statement, "Resource": "arn:aws:s3:::named"}) == set()
    assert rule not in rules(statement, {"Effect": "Deny", "Action": allowed[0], "Resource": "*"})


def test_what_cannot_name_a_resource_or_is_of_the_caller_is_no_finding() -> None:
    free = ["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "ssm:UpdateInstanceInformation"]
    assert rules({"Effect": "Allow", "Action": free, "Resource": "*"}) == set()


OIDC = {"Federated": f"arn:aws:iam::{OWN}:oidc-provider/token.actions.githubusercontent.com"}
SUBJECT = "token.actions.githubusercontent.com:sub"


@pytest.mark.parametrize(
    ("principal", "condition", "rule"),
    [
        ("*", {}, "trust-world"),
        ({"AWS": ["arn:aws:iam::*:root"]}, {"Bool": {"aws:SecureTransport": "true"}}, "trust-world"),
        ({"AWS": "*"}, {"StringNotEquals": {"aws:PrincipalAccount": "1"}}, "trust-world"),
        ({"AWS": "*"}, {"StringLike": {"aws:PrincipalOrgID": "*"}}, "trust-world"),
        ({"AWS": "*"}, {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}, None),
        ({"AWS": "999999999999"}, {}, "trust-foreign-account"),
        ({"AWS": "arn:aws:iam::999999999999:role/r"}, {}, "trust-foreign-account"),
        ({"AWS": "arn:aws:iam::999999999999:root"}, {"StringEquals": {"sts:ExternalId": "x"}}, None),
        ({"AWS": [OWN, f"arn:aws:iam::{OWN}:user/u"]}, {}, None),
        ({"Service": "sagemaker.amazonaws.com"}, {}, "trust-confused-deputy"),
        ({"Service": "sagemaker.amazonaws.com"}, {"StringEquals": {"AWS:SourceAccount": OWN}}, None),
        ({"Service": ["lambda.amazonaws.com", "ec2.amazonaws.com"]}, {}, None),
        (OIDC, {"StringEquals": {"token.actions.githubusercontent.com:aud": "sts.amazonaws.com"}}, "trust-github"),
        (OIDC, {"StringLike": {SUBJECT: "repo:*"}}, "trust-github"),
        (OIDC, {"StringLike": {SUBJECT: ["repo:owner/*", "repo:o*/x"]}}, "trust-github"),
        (OIDC, {"StringLike": {SUBJECT: "repo:owner/*"}}, None),
    ],
)
def test_trust(principal: Any, condition: dict[str, Any], rule: str | None) -> None:
    assert [found for found, _ in trust_flaws({"Principal": principal, "Condition": condition}, OWN)] == [rule] * bool(
        rule
    )


@QUICKLY
@given(st.lists(named, max_size=3), named_actions, st.sets(st.sampled_from(SERVICES)))
def test_the_generated_policy_allows_what_was_used_and_nothing_more(
    statements: list[dict[str, Any]], broad: list[str], used: set[str]
) -> None:
    aws = FakeAccount()
    aws.answers["get_caller_identity"] = {"Account": OWN, "Arn": f"arn:aws:iam::{OWN}:user/u"}
    account = Account(FakeStage("dev", aws))
    idle = frozenset(broad[:1])
    account.usage[ROLE] = {service: Service(account.now if service in used else None, idle) for service in SERVICES}
    before = [*statements, {"Effect": "Allow", "Action": [*broad, "s3:get*"], "Resource": "*"}]
    after = least_privilege(account, ROLE, [{"Statement": before}])
    needed = {each for old in before for each in actions(old) if each.partition(":")[0] in used} - idle
    made = after["Statement"] if after else []
    assert {each for new in made for each in actions(new)} == needed
    for old in statements:
        kept = {each for each in actions(old) if each in needed}
        assert not kept or any(actions(new) == kept and new["Resource"] == old["Resource"] for new in made)
    assert "${" not in str(after)


def principal(kind: str, name: str, *policies: dict[str, Any], path: str = "/", **members: Any) -> dict[str, Any]:
    inline = [
        {"PolicyName": f"p{number}", "PolicyDocument": {"Statement": each}} for number, each in enumerate(policies)
    ]
    arn, created = f"arn:aws:iam::{OWN}:{kind.lower()}{path}{name}", datetime(2020, 1, 1, tzinfo=UTC)
    return {
        **{"Arn": arn, "Path": path, "CreateDate": created, "AttachedManagedPolicies": [], f"{kind}PolicyList": inline},
        **{f"{kind}Name": name, **members},
    }


def test_whole_principals_are_read_and_what_only_bounds_or_is_of_aws_is_not() -> None:
    star = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    first, second = (
        {**star, "Action": action} for action in ("iam:PassRole", ["lambda:CreateFunction", "lambda:InvokeFunction"])
    )
    arns = {name: f"arn:aws:iam::{OWN}:policy/{name}" for name in ("bounds", "attached")}
    versions = [{"IsDefaultVersion": True, "Document": {"Statement": star}}, {"IsDefaultVersion": False}]
    aws = FakeAccount()
    full = [{"PolicyName": name, "PolicyArn": f"arn:aws:iam::aws:policy/{name}"} for name in ("AmazonS3FullAccess",)]
    aws.answers |= {
        "get_caller_identity": {"Account": OWN, "Arn": f"arn:aws:iam::{OWN}:user/u"},
        "get_account_summary": {"SummaryMap": {"AccountAccessKeysPresent": 1}},
        "generate_credential_report": {"State": "COMPLETE"},
        "get_credential_report": {"Content": b"arn"},
        "get_account_authorization_details": {
            "UserDetailList": [principal("User", "u", first, GroupList=["g"])],
            "GroupDetailList": [principal("Group", "g", second, AttachedManagedPolicies=full)],
            "RoleDetailList": [
                principal("Role", "unknown"),
                principal("Role", "of-aws", star, path="/aws-service-role/x/"),
            ],
            "Policies": [{"Arn": arn, "PolicyName": name, "PolicyVersionList": versions} for name, arn in arns.items()],
        },
        "list_policies": {
            "Policies": [
                {"Arn": arn, "AttachmentCount": int(name == "attached"), "PermissionsBoundaryUsageCount": 1}
                for name, arn in arns.items()
            ]
        },
        "list_access_keys": {"AccessKeyMetadata": []},
    }
    aws.refused.add("generate_service_last_accessed_details")
    report = examine(Account(FakeStage("dev", aws)), (policy_rights, combined_rights, unused_roles, sign_in))
    found = {(finding.rule, finding.resource.rpartition(":")[2]) for finding in report.findings}
    assert found == {
        *(("policy-admin", "policy/attached"), ("policy-escalation", "user/u"), ("policy-aws-full-access", "group/g")),
        *(
            ("policy-exposure", "user/u"),
            ("policy-wildcard-resource", "user/u"),
            ("policy-wildcard-resource", "group/g"),
        ),
        ("root-key", "root"),
    }
    assert {each.check for each in report.not_checked} == {"unused roles", "sign in"}
    assert all(isinstance(each, NotChecked) and OWN in each.reason for each in report.not_checked)

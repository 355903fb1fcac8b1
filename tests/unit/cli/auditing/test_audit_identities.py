"""What the audit reads in policies and trust policies, whatever the spelling."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_account import FakeAccount
from fake_stage import FakeStage
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.auditing.account import Account, Service
from cli.auditing.identities import flaws, least_privilege
from cli.auditing.statements import actions, known_actions

TABLE = yaml.safe_load(Path(__file__).with_name("statements.yaml").read_text(encoding="utf-8"))
DANGEROUS: dict[str, list[Any]] = TABLE["dangerous on every resource"]
QUICKLY = settings(deadline=None, max_examples=30)
OWN = "123456789012"
SERVICES = ("s3", "IAM", "sagemaker", "lambda", "kms", "logs", "ec2")
STAR = {"Effect": "Allow", "Action": "*", "Resource": "*"}

every_name = st.sampled_from(["*", "**", "*:*", "?*", "*?:*", [f"{letter}*" for letter in string.ascii_lowercase]])
all_actions = every_name.map(lambda it: {"Action": it}) | st.just({"NotAction": "nothing:AtAll"})
any_resource = st.sampled_from(
    ["*", "**", "arn:*", "arn:aws:*", "arn:*:*:*:*:*", ["arn:aws:s3:::named", "*"], "arn:aws:*:*:123456789012:*"]
)
everywhere = any_resource.map(lambda it: {"Resource": it}) | st.just({"NotResource": "arn:aws:s3:::but"})
names = st.sampled_from([*sorted(known_actions()), "ec2:MadeTomorrow", "tomorrow:*"])
named_actions = st.lists(names, min_size=1, max_size=5)
NAMED = ("arn:aws:s3:::bucket/*", f"arn:aws:iam::{OWN}:role/r", f"arn:aws:sagemaker:eu-west-1:{OWN}:endpoint/e*")
named = st.builds(lambda those, arn: {**STAR, "Action": those, "Resource": arn}, named_actions, st.sampled_from(NAMED))


def rules(*statements: dict[str, Any]) -> set[str]:
    return set(flaws({"Statement": list(statements)}))


@QUICKLY
@given(all_actions, everywhere, st.lists(named, max_size=2))
def test_full_access_is_found_in_any_spelling(allowed: Any, where: Any, others: list[Any]) -> None:
    statement = {"Effect": "Allow", **allowed, **where}
    assert rules(*others, statement) == {"policy-admin"} == set(flaws({"Statement": statement}))  # a list, or one
    assert rules({**statement, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}) == {"policy-admin"}
    assert "policy-admin" not in rules(statement, {"Effect": "Deny", "Action": "iam:*", "Resource": "*"})
    assert "policy-escalation" in rules(statement, {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::*"})


@QUICKLY
@given(st.sampled_from(SERVICES), everywhere, st.sampled_from(["{}:*", "{}:**", "{}:?*"]))
def test_a_whole_service_is_found_in_any_spelling(service: str, where: Any, form: str) -> None:
    statement = {"Effect": "Allow", "Action": form.format(service), **where}
    found = rules(statement)
    assert "policy-admin" not in found
    assert ("policy-not-action" if "NotResource" in where else "policy-service-wildcard") in found
    assert rules({**statement, "Action": [statement["Action"], "ec2:MadeTomorrow", "tomorrow:*"]}) == found
    assert rules({**statement, "Effect": "Deny"}) == set()


@QUICKLY
@given(st.lists(named, max_size=4))
def test_what_is_named_or_cannot_be_is_no_finding(statements: list[Any]) -> None:
    free = ["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "ssm:UpdateInstanceInformation"]
    assert rules(*statements, {**STAR, "Action": free}) == set()


@pytest.mark.parametrize("rule", DANGEROUS)
def test_dangerous_actions_are_found_on_every_resource_only(rule: str) -> None:
    for allowed, everything in DANGEROUS[rule]:
        statement = {**STAR, "Action": allowed}
        assert all(rule in rules({**statement, "Resource": where}) for where in ("*", everything))
        assert rules({**statement, "Resource": "arn:aws:s3:::named"}) == set()
        assert rule not in rules(statement, {"Effect": "Deny", "Action": allowed[0], "Resource": "*"})


def account(aws: FakeAccount) -> Account:
    aws.answers["get_caller_identity"] = {"Account": OWN, "Arn": f"arn:aws:iam::{OWN}:user/u"}
    return Account(FakeStage("dev", aws))


@QUICKLY
@given(st.lists(named, max_size=3), named_actions, st.sets(st.sampled_from(SERVICES)))
def test_the_generated_policy_allows_what_was_used_and_nothing_more(
    statements: list[dict[str, Any]], broad: list[str], used: set[str]
) -> None:
    its, idle = account(FakeAccount()), frozenset(broad[:1])
    before = [*statements, {**STAR, "Action": [*broad, "s3:get*", "s3:madeTomorrow"]}]
    services = {service: Service(its.now, idle) for service in used} | {"unused": Service(None, idle)}
    after = least_privilege(its, services, [{"Statement": before}])
    needed = {each for old in before for each in actions(old) if each.partition(":")[0] in used} - idle
    made = after["Statement"] if after else []
    assert {each for new in made for each in actions(new)} == needed
    for old in statements:
        kept = actions(old) & needed
        assert not kept or any(actions(new) == kept and new["Resource"] == old["Resource"] for new in made)
    assert "${" not in str(after)

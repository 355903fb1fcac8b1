"""The table of the roles, put to an evaluator of IAM's policies with what the templates say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate, fnmatch_iam_cs, parse_policy_document
from role_table import ACCOUNT, REGION, ROLES, Case, cases, documents, expectations, made_up, names
from templates import SynthesisedStage

#: Whatever is not in the templates.
ELSEWHERE = {name: f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{name}" for name in ("OwnInstance", "OtherInstance")}


@pytest.fixture(scope="module")
def known(stages: list[SynthesisedStage]) -> dict[str, str]:
    attacked, other = stages
    return names(attacked, made_up(attacked)) | names(other, made_up(other), "Other") | ELSEWHERE


def roles_of(stage: SynthesisedStage) -> dict[str, list[dict[str, Any]]]:
    """The policies of every role of a stage by its description, and those of a caller."""
    found = {}
    for _, _, resource in stage.all_resources():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::IAM::Role":
            found[properties["Description"]] = documents(stage, resource)
        elif resource["Type"] == "AWS::IAM::ManagedPolicy":
            found["Caller"] = documents(stage, {"Properties": {"Policies": [properties]}})
    return found


@pytest.fixture(scope="module")
def policies(stages: list[SynthesisedStage]) -> dict[str, list[dict[str, Any]]]:
    attacked, other = map(roles_of, stages)
    return {**attacked, "Other SageMaker endpoint": other["SageMaker endpoint"]}


def allowed(policy: list[dict[str, Any]], case: Case, address: str = "127.0.0.1") -> bool:
    """Whether IAM would let somebody with these policies, and no others, do this."""
    keys = {name.lower(): value for name, value in case.keys}
    context = EvalContext("", "AssumedRole", ACCOUNT, *case[:2], REGION, source_ip=address, service_context=keys)
    return bool(evaluate(context, [parse_policy_document(document) for document in policy]).decision == "Allow")


def test_every_role_is_in_the_table_and_has_no_policy_beside_its_own(
    stages: list[SynthesisedStage], policies: dict[str, Any]
) -> None:
    assert set(policies) == set(ROLES)
    for stage in stages:
        assert set(roles_of(stage)) < set(ROLES)
        for _, _, resource in stage.all_resources():
            assert resource["Type"] != "AWS::IAM::Policy" and "ManagedPolicyArns" not in resource["Properties"]
            if resource["Type"] == "AWS::IAM::ManagedPolicy":
                assert not {"Roles", "Users", "Groups"} & resource["Properties"].keys()


@pytest.mark.parametrize("role", ROLES)
def test_the_templates_allow_a_role_all_that_it_must_and_nothing_that_it_must_not(
    role: str, known: dict[str, str], policies: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    expected = expectations(known)[role]
    assert {case: allowed(policies[role], case) for case in expected} == expected
    assert list(expected.values()).count(False) >= 40
    record_property("rights of roles that templates give, as they must", list(expected.values()).count(True))
    record_property("rights of roles that templates do not give", list(expected.values()).count(False))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_no_right_that_it_does_not_need(role: str, known: dict[str, str], policies: dict[str, Any]) -> None:
    """Every action and every resource of every statement is there for something that the role must do."""
    for statement in (statement for document in policies[role] for statement in document["Statement"]):
        if statement["Effect"] == "Deny":
            continue
        used = [case for case in cases(role, known) if case.action in statement["Action"]]
        used = [c for c in used if any(fnmatch_iam_cs(c.resource, pattern) for pattern in statement["Resource"])]
        assert {case.action for case in used} == set(statement["Action"]), statement
        for pattern in statement["Resource"]:
            assert any(fnmatch_iam_cs(case.resource, pattern) for case in used), (pattern, statement)


def test_addresses_of_callers_count_whatever_else_they_are_allowed(
    known: dict[str, str], policies: dict[str, Any]
) -> None:
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for case in cases("Caller", known):
        assert allowed([*policies["Caller"], everything], case)
        assert not allowed([*policies["Caller"], everything], case, "203.0.113.7")

"""The table of the roles, put to an evaluator of IAM's policies with what the templates say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document
from role_table import ACCOUNT, REGION, ROLES, Case, cases, documents, expectations, made_up, names
from templates import SynthesisedStage

ELSEWHERE = "111122223333"
#: Whatever is not in the templates.
INSTANCES = {name: f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{name}" for name in ("OwnInstance", "OtherInstance")}


@pytest.fixture(scope="module")
def known(stages: list[SynthesisedStage]) -> dict[str, str]:
    attacked, other = stages
    return names(attacked, made_up(attacked)) | names(other, made_up(other), "Other") | INSTANCES


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
    account = keys.get("aws:resourceaccount", ACCOUNT)  # the evaluator takes buckets for the caller's own
    context = EvalContext("", "AssumedRole", account, *case[:2], REGION, source_ip=address, service_context=keys)
    return bool(evaluate(context, [parse_policy_document(document) for document in policy]).decision == "Allow")


def beside(name: str) -> str:
    """A name that begins like this one, and not below the same prefix."""
    return re.sub("(:log-stream:.*|[-/]?x)?$", "x", name, count=1)


def neighbours(case: Case) -> Iterator[Case]:
    """Nearly the same: in another region or account, of another name, or with a condition key other or missing."""
    action, resource, keys = case
    parts = resource.split(":", 5)
    for at, other in ((3, "eu-west-1"), (4, ELSEWHERE)):
        if any(parts[at : at + 1]):
            yield Case(action, ":".join([*parts[:at], other, *parts[at + 1 :]]), keys)
    if resource != "*" and "aws:ResourceTag/stage" not in dict(keys):  # tags count for resources of any name
        yield Case(action, beside(resource), keys)
    if resource.startswith("arn:aws:s3:"):
        yield Case(action, resource, (*keys, ("aws:ResourceAccount", ELSEWHERE)))
    for name, value in keys:
        rest = tuple(key for key in keys if key[0] != name)
        yield Case(action, resource, rest)
        yield Case(action, resource, (*rest, (name, beside(value))))


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
    own = {*cases(role, known)}
    near = {neighbour: neighbour in own for case in own for neighbour in neighbours(case)}
    expected = near | expectations(known)[role]
    assert {case: allowed(policies[role], case) for case in expected} == expected
    assert list(expected.values()).count(False) >= 40
    record_property("rights of roles that templates give, as they must", list(expected.values()).count(True))
    record_property("rights of roles that templates do not give", list(expected.values()).count(False))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_no_right_that_it_does_not_need(role: str, known: dict[str, str], policies: dict[str, Any]) -> None:
    """Without any action or resource of any statement it could not do something that it must."""
    (document,) = policies[role]
    for statement in (it for it in document["Statement"] if it["Effect"] == "Allow"):
        others = [it for it in document["Statement"] if it != statement]
        for kind, items in (("Action", statement["Action"]), ("Resource", statement["Resource"])):
            for item in items:
                fewer = {**statement, kind: [it for it in items if it != item] or ["nothing"]}
                less = [{**document, "Statement": [*others, fewer]}]
                assert not all(allowed(less, case) for case in cases(role, known)), (item, statement)
        assert not any("*" in action for action in statement["Action"])


def test_addresses_of_callers_count_whatever_else_they_are_allowed(
    known: dict[str, str], policies: dict[str, Any]
) -> None:
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for case in expectations(known)["Caller"]:
        calls = case.action.startswith("lambda:Invoke") and case.resource == known["ClassifierLive"]
        assert allowed([*policies["Caller"], everything], case)
        assert allowed([*policies["Caller"], everything], case, "203.0.113.7") is not calls

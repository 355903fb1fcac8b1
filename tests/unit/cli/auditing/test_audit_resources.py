"""What the audit says of resources: whom their policies let in, and cases that the local AWS does not have."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.auditing.account import Account
from cli.auditing.command import bootstrap_in_one
from cli.auditing.findings import NotChecked, found
from cli.auditing.resources import exposed, sagemaker
from cli.auditing.resources.policies import closed, flaw, let_in

TABLE = yaml.safe_load(Path(__file__).with_name("statements.yaml").read_text(encoding="utf-8"))
LET_IN: dict[str, list[Any]] = TABLE["lets in"]
OWN, LONG_AGO = "123456789012", datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def aws() -> FakeAccount:
    made = FakeAccount()
    made.answers["get_caller_identity"] = {"Account": OWN, "Arn": f"arn:aws:iam::{OWN}:user/u"}
    made.answers |= {"get_account_authorization_details": {}, "list_policies": {"Policies": []}}
    return made


@pytest.fixture
def account(aws: FakeAccount) -> Account:
    return Account(FakeStage("dev", aws))


@pytest.mark.parametrize(("kind", "statement", "endings"), [(kind, *it) for kind in LET_IN for it in LET_IN[kind]])
def test_who_is_let_in_and_the_fix_lets_nobody_in(
    kind: str, statement: dict[str, Any], endings: list[str], account: Account
) -> None:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole" if kind == "trust" else "s3:GetObject", **statement}
    assert [ending for ending, _ in let_in(kind, statement, OWN)] == endings
    assert not list(let_in(kind, closed(statement, account), OWN))


def test_the_environment_of_what_cannot_be_read_is_not_repeated(aws: FakeAccount, account: Account) -> None:
    topic = f"arn:aws:sns:us-east-1:123456789012:{'a' * 50}"  # names no secret
    variables = {"DB_PASSWORD": "hunter2-and-more", "DB_PASSWORD_NAME": "prod/password", "TOPIC_ARN": topic}
    function = {"FunctionName": "f", "FunctionArn": "arn:aws:lambda:r:1:function:f", "Role": "r"}
    environment = {"Variables": variables, "Error": {"Message": "no kms:Decrypt"}}
    aws.answers["list_functions"] = {"Functions": [{**function, "Environment": environment}]}
    aws.refused |= {"list_function_url_configs", "list_versions_by_function", "list_aliases", "get_policy"}
    encrypted, secret, skipped, *_ = exposed.functions(account)
    assert encrypted == NotChecked("environment of arn:aws:lambda:r:1:function:f", "no kms:Decrypt")
    assert (secret.rule, secret.evidence) == ("secret-in-environment", "DB_PASSWORD: Secret Keyword")
    assert skipped.where == ("f",) and "hunter2" not in skipped.reason


@pytest.mark.parametrize(("requests", "idle"), [({"a": 1}, False), ({}, True)])
def test_an_endpoint_is_idle_when_all_its_variants_are(
    requests: dict[str, int], idle: bool, aws: FakeAccount, account: Account
) -> None:
    endpoint = {"EndpointName": "e", "EndpointArn": "arn:aws:sagemaker:r:1:endpoint/e", "CreationTime": LONG_AGO}
    variants = [{"VariantName": "a"}, {"VariantName": "b"}]
    aws.answers |= {
        "list_endpoints": {"Endpoints": [endpoint]},
        "describe_endpoint": {**endpoint, "ProductionVariants": variants},
        "get_metric_statistics": lambda Dimensions, **_: {
            "Datapoints": [{"Sum": requests.get(Dimensions[1]["Value"], 0)}]
        },
        "list_tags": {"Tags": [{"Key": "project"}]},
    }
    assert bool(list(sagemaker.endpoints(account))) == idle


def test_a_name_in_a_command_is_one_word() -> None:
    assert "--log-group-name '#a;b c' " in flaw("log-group-endless", "arn:aws:logs:r:1:log-group:#a;b c", "").fix


def test_the_bootstrap_of_the_cdk_is_one_finding_and_more_rights_than_its_template_has_are_others() -> None:
    def of(kind: str, rule: str, evidence: str) -> Any:
        return found(rule, f"arn:aws:iam::{OWN}:role/cdk-hnb659fds-{kind}-role-{OWN}-r", evidence, "")

    by_design = "default allows cloudformation:createchangeset + cloudformation:executechangeset: {}"
    others = [
        *(of("deploy", "policy-aws-admin", "AdministratorAccess: {}"), of("cfn-exec", "policy-admin", "p: {}")),
        of("deploy", "policy-escalation", "p allows iam:PutUserPolicy: {}"),
        of("deploy", "policy-exfiltration", 'default allows s3:GetObject: {"Sid": "Mine"}'),
        of("lookup", "policy-exfiltration", "p allows s3:GetObject: {}"),
    ]
    design = [
        of("cfn-exec", "policy-aws-admin", "AdministratorAccess: {}"),
        of("deploy", "policy-escalation", by_design),
        of(
            "deploy",
            "policy-exfiltration",
            'default allows s3:GetObject: {"Sid": "PipelineCrossAccountArtifactsBucket"}',
        ),
        of("lookup", "policy-exfiltration", "ReadOnlyAccess allows s3:GetObject: {}"),
    ]
    *kept, one = bootstrap_in_one([*others, *design])
    assert (kept, one.rule) == (others, "cdk-bootstrap")
    assert list(bootstrap_in_one(others)) == others

"""The audit of a clean account finds nothing, that of a rotten one all that was planted and nothing else."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from local_aws_harness import function_archive, policy, trust
from sagemaker_local import IMAGE, LocalSageMaker, local_aws

from cli.auditing.account import Account
from cli.auditing.command import GLOBAL, REGIONAL, assess
from cli.auditing.findings import Report
from cli.aws import Stage
from infra.constructs.audit_role import READS

Flaws = set[tuple[str, str]]
ACCOUNTS = tomllib.loads(Path(__file__).with_name("accounts.toml").read_text(encoding="utf-8"))
COMMON = {
    "create_function": {"Runtime": "python3.14", "Handler": "app.handler", "Code": {"ZipFile": function_archive("")}},
    "create_role": {"AssumeRolePolicyDocument": trust("lambda.amazonaws.com")["Statement"]},
}
POLICIES = ("Policy", "PolicyDocument", "AssumeRolePolicyDocument", "policyText", "AttributeValue")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    with local_aws(tmp_path_factory.mktemp("state")) as made, pytest.MonkeyPatch.context() as environment:
        for name, value in made.environment.items():
            environment.setenv(name, value)
        yield made


def plant(aws: LocalSageMaker, account: str) -> tuple[Flaws, Flaws]:
    """Make what the table says of an account; what the audit must find then, at once and later."""
    found, later = Flaws(), Flaws()
    for row in ACCOUNTS[account]:
        answers = []
        for service, operation, request in row["plant"]:
            request = {**COMMON.get(operation, {}), **request}
            if operation == "create_model":
                given = request.get("PrimaryContainer", {})
                request["PrimaryContainer"] = {"Image": IMAGE, "ModelDataUrl": aws.artifact("1"), **given}
            if "KmsKeyId" in request:  # of a key that is there
                request["KmsKeyId"] = request["KmsKeyId"].format(*answers)
            for name in request.keys() & set(POLICIES):
                request[name] = json.dumps(policy(*request[name]))
            answers.append(getattr(aws if service == "here" else aws.client(service), operation)(**request))
        found |= {(rule, end.format(*answers)) for rule, end in row.get("found", [])}
        later |= {(rule, end) for rule, end in row.get("later", [])}
    return found, later


def audited(days: int = 0) -> tuple[Report, Flaws]:
    """The report of some days later; its findings by rule and end of the resource's ARN."""
    account = Account(Stage("local"))
    report = assess(Account(account.stage, now=account.now + timedelta(days)), ["us-east-1"])
    return report, {(each.rule, each.resource.split(":", 5)[5]) for each in report.findings}


def test_all_that_was_planted_is_found_and_nothing_else(
    aws: LocalSageMaker, record_property: Callable[[str, object], None]
) -> None:
    _, aged = plant(aws, "clean")
    report, found = audited()
    assert not found
    assert [each.check for each in report.not_checked] == ["access analyzer"]
    planted, later = plant(aws, "rotten")
    assert audited()[1] == planted
    found = audited(days=200)[1]
    assert found == planted | later | aged
    record_property("flaws planted in an account", len(planted | later))
    record_property("of them found by kennel audit", len(found & (planted | later)))


def test_the_role_for_audits_may_read_all_of_it_and_what_nobody_may_is_not_checked(
    aws: LocalSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def audited_as(key: dict[str, str]) -> tuple[set[str], Flaws]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        report, found = audited()
        return {each.check for each in report.not_checked}, found

    report, found = audited()
    reads = [f"{service}:{action}" for service, actions in READS.items() for action in actions.split()]
    not_checked, found_so = audited_as(aws.user("auditor", policy({"Action": reads, "Resource": "*"})))
    assert not_checked == {each.check for each in report.not_checked}
    assert found_so >= found
    not_checked, found_so = audited_as(aws.user("nobody"))
    assert (len(not_checked), found_so) == (len([*GLOBAL, *REGIONAL]), set())

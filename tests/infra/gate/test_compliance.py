"""The security gate, cfn-lint and checkov: they find what is bad; every exception is exact, in use and documented."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnResource, Stack
from aws_cdk import aws_s3 as s3
from templates import PROJECT, SynthesisedStage, accepted

from infra.gate import compliance
from infra.gate.compliance import ComplianceError
from infra.settings import NotebookSettings

OWN_RULES = re.findall(r"^rule (\w+)", compliance.RULES.read_text(encoding="utf-8"), re.MULTILINE)
DOCUMENTED = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
CHECKOV = Path(os.environ.get("CHECKOV", PROJECT / "build" / "checkov" / "bin" / "checkov"))

URL = {"TargetFunctionArn": "f"}
CALL = {"Action": "lambda:InvokeFunctionUrl", "FunctionName": "f"}
MODEL = {"EnableNetworkIsolation": True}
CONFIG = {"ProductionVariants": [{"VariantName": "main", "InitialVariantWeight": 1}]}
ENDPOINT = {"EndpointConfigName": "c"}
KEPT = {**ENDPOINT, "RetainAllVariantProperties": True}
ROUTING = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}
ROLLOUT = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": ROUTING}}
ROLLBACK = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}}
ALARM = {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 3, "MetricName": "Errors"}
REPOSITORY = {
    "ImageTagMutability": "IMMUTABLE",
    "ImageScanningConfiguration": {"ScanOnPush": True},
    "LifecyclePolicy": {"LifecyclePolicyText": "{}"},
}
LOGIN = {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"}
READ_ONE = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::b/k"}
READ_AMONG = {**LOGIN, "Action": ["ecr:GetAuthorizationToken", "s3:GetObject"], "Resource": ["arn:aws:s3:::b", "*"]}
ANY_RESOURCE = "ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER"


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def role(*statements: dict[str, Any], services: list[str] | None = None, **trust: Any) -> dict[str, Any]:
    principal = {"Service": [f"{service}.amazonaws.com" for service in services or ["lambda"]]}
    trusted = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal, **trust}
    policies = [{"PolicyName": "p", "PolicyDocument": document(*statements)}] if statements else []
    return {"AssumeRolePolicyDocument": document(trusted), "Policies": policies}


# (type, properties, our rule that it breaks or None)
SAMPLES: list[tuple[str, dict[str, Any], str | None]] = [
    ("AWS::Lambda::Url", {**URL, "AuthType": "NONE"}, "FUNCTION_URL_IS_SIGNED"),
    ("AWS::Lambda::Url", {**URL, "AuthType": "AWS_IAM"}, None),
    ("AWS::Lambda::Permission", {**CALL, "Principal": "*"}, "FUNCTION_HAS_NAMED_CALLERS"),
    ("AWS::Lambda::Permission", {**CALL, "Principal": "111122223333"}, None),
    ("AWS::SageMaker::Model", {}, "MODEL_IS_ISOLATED"),
    ("AWS::SageMaker::Model", MODEL, None),
    ("AWS::SageMaker::Model", {**MODEL, "ModelName": "dogs"}, "MODEL_NAME_IS_GENERATED"),
    ("AWS::SageMaker::EndpointConfig", {**CONFIG, "EndpointConfigName": "c"}, "ENDPOINT_CONFIG_NAME_IS_GENERATED"),
    ("AWS::SageMaker::EndpointConfig", CONFIG, None),
    ("AWS::SageMaker::Endpoint", {**ENDPOINT, "RetainAllVariantProperties": False}, "ENDPOINT_KEEPS_ITS_CAPACITY"),
    ("AWS::SageMaker::Endpoint", KEPT, None),
    ("AWS::SageMaker::Endpoint", {**KEPT, "DeploymentConfig": ROLLOUT}, "ROLLOUT_GOES_BACK_BY_ALARMS"),
    ("AWS::SageMaker::Endpoint", {**KEPT, "DeploymentConfig": {**ROLLOUT, **ROLLBACK}}, None),
    ("AWS::CloudWatch::Alarm", ALARM, "ALARM_TELLS_SOMEBODY"),
    ("AWS::CloudWatch::Alarm", {**ALARM, "AlarmActions": ["arn:aws:sns:eu-west-1:111122223333:alarms"]}, None),
    ("AWS::SNS::Topic", {}, "TOPIC_IS_ENCRYPTED"),
    ("AWS::SNS::Topic", {"KmsMasterKeyId": "k"}, None),
    ("AWS::Logs::LogGroup", {}, "LOG_GROUP_EXPIRES"),
    ("AWS::Logs::LogGroup", {"RetentionInDays": 7}, None),
    ("AWS::ECR::Repository", REPOSITORY, None),
    ("AWS::ECR::Repository", {**REPOSITORY, "ImageTagMutability": "MUTABLE"}, "REPOSITORY_TAGS_ARE_IMMUTABLE"),
    ("AWS::ECR::Repository", {**REPOSITORY, "ImageScanningConfiguration": {}}, "REPOSITORY_SCANS_ON_PUSH"),
    ("AWS::ECR::Repository", {**REPOSITORY, "LifecyclePolicy": {}}, "REPOSITORY_EXPIRES_IMAGES"),
    ("AWS::IAM::Role", role(services=["lambda", "sagemaker"]), "SERVICE_TRUST_NAMES_THE_ACCOUNT"),
    ("AWS::IAM::Role", role(services=["codebuild"]), "SERVICE_TRUST_NAMES_THE_ACCOUNT"),
    ("AWS::IAM::Role", role(services=["sagemaker"], Condition={"StringEquals": {"aws:SourceAccount": "1"}}), None),
    ("AWS::IAM::Role", role(READ_AMONG), ANY_RESOURCE),
    ("AWS::IAM::Role", role(LOGIN, READ_ONE), None),
    ("AWS::IAM::Policy", {"PolicyName": "p", "Roles": ["r"], "PolicyDocument": document(READ_AMONG)}, ANY_RESOURCE),
    ("AWS::IAM::ManagedPolicy", {"PolicyDocument": document(READ_AMONG)}, ANY_RESOURCE),
]


def report(app: App) -> list[dict[str, Any]]:
    """What the plugins report of a synthesis that must fail."""
    compliance.add_checks(app)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    return json.loads((Path(app.outdir) / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]


def places(violation: dict[str, Any]) -> set[str]:
    return {construct["constructPath"] for construct in violation["violatingConstructs"]}


@pytest.fixture(scope="module")
def findings(make_app: Callable[[], App]) -> list[tuple[str, set[str]]]:
    """Rules and the places where the samples break them; one synthesis for all of them."""
    app = make_app()
    stack = Stack(app, "Samples")
    for index, (resource_type, properties, _) in enumerate(SAMPLES):
        CfnResource(stack, f"Sample{index}", type=resource_type, properties=properties)
    return [(violation["ruleName"], places(violation)) for plugin in report(app) for violation in plugin["violations"]]


@pytest.mark.parametrize("index", range(len(SAMPLES)), ids=lambda i: f"{SAMPLES[i][0]}-{SAMPLES[i][2] or 'good'}")
def test_own_rules_find_what_is_bad_and_only_that(findings, index):
    rule = SAMPLES[index][2]
    found = {name for name, where in findings if f"Samples/Sample{index}" in where}
    assert found & set(OWN_RULES) == ({rule} if rule else set())


def test_every_own_rule_has_a_sample_that_breaks_it_and_is_documented():
    assert {rule for _, _, rule in SAMPLES if rule} == set(OWN_RULES)
    assert [rule for rule in OWN_RULES if rule not in DOCUMENTED] == []


def test_an_acknowledgement_covers_its_finding_and_no_other(make_app):
    app = make_app()
    stack = Stack(app, "Bad")
    buckets = {name: s3.Bucket(stack, name, enforce_ssl=True) for name in ("Known", "Unknown")}
    compliance.acknowledge(buckets["Known"].node.default_child, "AwsSolutions-S1", "A test.")
    (plugin,) = report(app)
    assert [places(violation) for violation in plugin["violations"]] == [{"Bad/Unknown/Resource"}]
    assert [places(violation) for violation in plugin["suppressedViolations"]] == [{"Bad/Known/Resource"}]


def test_an_acknowledgement_without_a_finding_fails_the_synthesis(make_app):
    app = make_app()
    bucket = s3.CfnBucket(Stack(app, "Fine"), "Bucket", logging_configuration={"logFilePrefix": "self/"})
    compliance.acknowledge(bucket, "AwsSolutions-S10", "A test.")
    compliance.add_checks(app)
    assembly = Path(app.synth().directory)
    compliance.require_used(app, assembly)
    compliance.acknowledge(bucket, "AwsSolutions-S2", "Once it was needed.")
    with pytest.raises(ComplianceError, match=r"do not occur.*\n  Fine/Bucket: AwsSolutions::AwsSolutions-S2$"):
        compliance.require_used(app, assembly)


@pytest.fixture(scope="module")
def everything(stages: dict[str, SynthesisedStage], synthesise: Callable[..., SynthesisedStage]) -> SynthesisedStage:
    """A stage that has all that a stage can have."""
    return synthesise(replace(stages["dev"].settings, stage="everything", notebook=NotebookSettings()))


def test_our_stacks_have_no_finding_left_not_even_a_warning(stages, everything):
    reports = [plugin for stage in (*stages.values(), everything) for plugin in stage.report()]
    assert [violation for plugin in reports for violation in plugin["violations"]] == []


def test_every_exception_is_for_one_finding_at_one_resource_with_a_documented_reason(everything):
    suppressed = [violation for plugin in everything.report() for violation in plugin["suppressedViolations"]]
    assert suppressed
    for violation in suppressed:
        # Acknowledged at the resource itself: an acknowledgement further up would cover whatever is added below it.
        assert places(violation) == {violation["acknowledgedAt"]}
        assert violation["reason"] in DOCUMENTED


@pytest.fixture(scope="module")
def templates(stages: dict[str, SynthesisedStage], everything: SynthesisedStage, tmp_path_factory) -> Path:
    """A folder with the templates of all stages."""
    folder = tmp_path_factory.mktemp("templates")
    for stage in (*stages.values(), everything):
        for template in stage.assembly.glob("*.template.json"):
            shutil.copy(template, folder)
    assert len(list(folder.iterdir())) == 15
    return folder


def output(*command: str | Path) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_cfn_lint_finds_nothing_else(templates: Path):
    found = output(Path(sys.executable).with_name("cfn-lint"), "--format", "json", *sorted(templates.iterdir()))
    where = [
        (f"cfn-lint {match['Rule']['Id']}", match["Location"]["Path"] or [None, match["Message"]]) for match in found
    ]
    assert {(rule, str(path[1])) for rule, path in where} == accepted("cfn-lint")


@pytest.mark.skipif(not CHECKOV.exists(), reason="checkov is not installed: make infra")
def test_checkov_finds_nothing_else(templates: Path):
    options = ["--skip-download", "--framework", "cloudformation", "--output", "json"]
    found = output(CHECKOV, *options, "--directory", templates)
    assert (found["summary"]["passed"] > 100, found["summary"]["parsing_errors"]) == (True, 0)
    failed = {(f"checkov {c['check_id']}", c["resource"].rpartition(".")[2]) for c in found["results"]["failed_checks"]}
    assert failed == accepted("checkov")

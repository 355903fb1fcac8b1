"""The security gate: it fails a bad stack, every exception is exact and in use, and nothing slips by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnResource, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from templates import PROJECT

from infra.gate import compliance
from infra.gate.compliance import ComplianceError

OWN_RULES = re.findall(r"^rule (\w+)", compliance.RULES.read_text(encoding="utf-8"), re.MULTILINE)
TRUST_LAMBDA = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
TRUST_SAGEMAKER = {**TRUST_LAMBDA, "Principal": {"Service": "sagemaker.amazonaws.com"}}
TRUST_CODEBUILD = {**TRUST_LAMBDA, "Principal": {"Service": "codebuild.amazonaws.com"}}
TRUST_BOTH = {**TRUST_LAMBDA, "Principal": {"Service": ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]}}
READ_ANY = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
REPOSITORY = {
    "ImageTagMutability": "IMMUTABLE",
    "ImageScanningConfiguration": {"ScanOnPush": True},
    "LifecyclePolicy": {"LifecyclePolicyText": "{}"},
}
VARIANTS = {"ProductionVariants": [{"VariantName": "main", "InitialVariantWeight": 1}]}
ENDPOINT = {"EndpointConfigName": "c"}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def role(*statements: dict[str, Any], trust: dict[str, Any] = TRUST_LAMBDA) -> dict[str, Any]:
    return {
        "AssumeRolePolicyDocument": document(trust),
        "Policies": [{"PolicyName": "p", "PolicyDocument": document(*statements)}] if statements else [],
    }


LOGIN = {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"}
READ_ONE = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::b/k"}
READ_AMONG = {**LOGIN, "Action": ["ecr:GetAuthorizationToken", "s3:GetObject"], "Resource": ["arn:aws:s3:::b", "*"]}
THIS_ACCOUNT = {"Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}}}
CALL = {"Action": "lambda:InvokeFunctionUrl", "FunctionName": "f"}
ANY_RESOURCE = "ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER"


def without(properties: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key != name}


# (type, properties, our rule that it breaks or None)
SAMPLES: list[tuple[str, dict[str, Any], str | None]] = [
    ("AWS::Lambda::Url", {"AuthType": "NONE", "TargetFunctionArn": "f"}, "FUNCTION_URL_IS_SIGNED"),
    ("AWS::Lambda::Url", {"AuthType": "AWS_IAM", "TargetFunctionArn": "f"}, None),
    ("AWS::Lambda::Permission", {**CALL, "Principal": "*"}, "FUNCTION_HAS_NAMED_CALLERS"),
    ("AWS::Lambda::Permission", {**CALL, "Principal": "111122223333"}, None),
    ("AWS::SageMaker::Model", {}, "MODEL_IS_ISOLATED"),
    ("AWS::SageMaker::Model", {"EnableNetworkIsolation": False}, "MODEL_IS_ISOLATED"),
    ("AWS::SageMaker::Model", {"EnableNetworkIsolation": True}, None),
    ("AWS::SageMaker::Model", {"EnableNetworkIsolation": True, "ModelName": "dogs"}, "MODEL_NAME_IS_GENERATED"),
    ("AWS::SageMaker::EndpointConfig", {**VARIANTS, "EndpointConfigName": "c"}, "ENDPOINT_CONFIG_NAME_IS_GENERATED"),
    ("AWS::SageMaker::EndpointConfig", VARIANTS, None),
    ("AWS::SageMaker::Endpoint", ENDPOINT, "ENDPOINT_KEEPS_ITS_CAPACITY"),
    ("AWS::SageMaker::Endpoint", {**ENDPOINT, "RetainAllVariantProperties": False}, "ENDPOINT_KEEPS_ITS_CAPACITY"),
    ("AWS::SageMaker::Endpoint", {**ENDPOINT, "RetainAllVariantProperties": True}, None),
    ("AWS::Logs::LogGroup", {}, "LOG_GROUP_EXPIRES"),
    ("AWS::Logs::LogGroup", {"RetentionInDays": 7}, None),
    ("AWS::ECR::Repository", REPOSITORY, None),
    ("AWS::ECR::Repository", {**REPOSITORY, "ImageTagMutability": "MUTABLE"}, "REPOSITORY_TAGS_ARE_IMMUTABLE"),
    ("AWS::ECR::Repository", without(REPOSITORY, "ImageScanningConfiguration"), "REPOSITORY_SCANS_ON_PUSH"),
    ("AWS::ECR::Repository", without(REPOSITORY, "LifecyclePolicy"), "REPOSITORY_EXPIRES_IMAGES"),
    ("AWS::IAM::Role", role(trust=TRUST_CODEBUILD), "SERVICE_TRUST_NAMES_THE_ACCOUNT"),
    ("AWS::IAM::Role", role(trust=TRUST_SAGEMAKER), "SERVICE_TRUST_NAMES_THE_ACCOUNT"),
    ("AWS::IAM::Role", role(trust=TRUST_BOTH), "SERVICE_TRUST_NAMES_THE_ACCOUNT"),
    ("AWS::IAM::Role", role(trust={**TRUST_SAGEMAKER, **THIS_ACCOUNT}), None),
    ("AWS::IAM::Role", role(), None),
    ("AWS::IAM::Role", role(trust={**TRUST_LAMBDA, "Principal": {"AWS": "*"}}), None),
    ("AWS::IAM::Role", role(READ_ANY), ANY_RESOURCE),
    ("AWS::IAM::Role", role(READ_AMONG), ANY_RESOURCE),
    ("AWS::IAM::Role", role(LOGIN, READ_ONE), None),
    ("AWS::IAM::Policy", {"PolicyName": "p", "Roles": ["r"], "PolicyDocument": document(READ_ANY)}, ANY_RESOURCE),
    ("AWS::IAM::ManagedPolicy", {"PolicyDocument": document(READ_ANY)}, ANY_RESOURCE),
]


@pytest.fixture(scope="module")
def findings(make_app: Callable[[], App]) -> dict[str, set[str]]:
    """Our rules that each sample broke, by the sample's logical id; one synthesis for all of them."""
    app = make_app()
    stack = Stack(app, "Samples")
    for index, (resource_type, properties, _) in enumerate(SAMPLES):
        CfnResource(stack, f"Sample{index}", type=resource_type, properties=properties)
    found: dict[str, set[str]] = {}
    for rule, paths in synthesised_findings(app).items():
        for path in paths:
            found.setdefault(path.split("/")[-1], set()).add(rule)
    return found


def synthesised_findings(app: App) -> dict[str, set[str]]:
    """Construct paths by rule, of a synthesis that must fail."""
    compliance.add_checks(app)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = json.loads((Path(app.outdir) / "validation-report.json").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for plugin in report["pluginReports"]:
        for violation in plugin["violations"]:
            if violation["severity"] == "error":
                paths = {construct["constructPath"] for construct in violation["violatingConstructs"]}
                found.setdefault(violation["ruleName"], set()).update(paths)
    return found


@pytest.mark.parametrize("index", range(len(SAMPLES)), ids=lambda i: f"{SAMPLES[i][0]}-{SAMPLES[i][2] or 'good'}")
def test_own_rules_find_what_is_bad_and_only_that(findings, index):
    rule = SAMPLES[index][2]
    assert findings.get(f"Sample{index}", set()) & set(OWN_RULES) == ({rule} if rule else set())


def test_every_own_rule_has_a_sample_that_breaks_it():
    assert {rule for _, _, rule in SAMPLES if rule} == set(OWN_RULES)


def test_gate_fails_what_aws_solutions_finds(make_app):
    app = make_app()
    stack = Stack(app, "Bad")
    s3.Bucket(stack, "Open")
    bad = iam.Role(
        stack,
        "Role",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name("AmazonSageMakerFullAccess")],
    )
    bad.add_to_policy(iam.PolicyStatement(actions=["s3:*"], resources=["arn:aws:s3:::b/*"]))
    rules = set(synthesised_findings(app))
    assert {
        "AwsSolutions-S1",
        "AwsSolutions-S10",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/AmazonSageMakerFullAccess]",
        "AwsSolutions-IAM5[Action::s3:*]",
        "AwsSolutions-IAM5[Resource::arn:aws:s3:::b/*]",
    } <= rules


def test_an_acknowledgement_covers_its_finding_and_no_other(make_app):
    app = make_app()
    stack = Stack(app, "Bad")
    buckets = {name: s3.Bucket(stack, name, enforce_ssl=True) for name in ("Known", "Unknown")}
    compliance.acknowledge(buckets["Known"].node.default_child, "AwsSolutions-S1", "A test.")
    compliance.add_checks(app)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = json.loads((Path(app.outdir) / "validation-report.json").read_text(encoding="utf-8"))
    (plugin,) = report["pluginReports"]
    (violation,) = plugin["violations"]
    (suppressed,) = plugin["suppressedViolations"]
    assert [construct["constructPath"] for construct in violation["violatingConstructs"]] == ["Bad/Unknown/Resource"]
    assert [construct["constructPath"] for construct in suppressed["violatingConstructs"]] == ["Bad/Known/Resource"]


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


def test_our_stacks_have_no_finding_left_not_even_a_warning(stage):
    assert [violation for plugin in stage.report() for violation in plugin["violations"]] == []


def test_every_exception_is_for_one_finding_at_one_resource_with_a_documented_reason(stage):
    suppressed = [violation for plugin in stage.report() for violation in plugin["suppressedViolations"]]
    documented = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    assert suppressed
    for violation in suppressed:
        # Acknowledged at the resource itself: an acknowledgement further up would cover whatever is added below it.
        assert {c["constructPath"] for c in violation["violatingConstructs"]} == {violation["acknowledgedAt"]}
        assert violation["reason"] in documented


def test_every_own_rule_is_documented():
    documented = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    assert [rule for rule in OWN_RULES if rule not in documented] == []

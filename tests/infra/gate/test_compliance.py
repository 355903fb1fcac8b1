"""The security gate, cfn-lint and checkov: they find what is bad; every exception is exact, in use and documented."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Acknowledgment, App, CfnMapping, CfnParameter, CfnResource, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from templates import PROJECT, SynthesisedStage, accepted

from infra.gate import compliance
from infra.gate.compliance import ComplianceError
from infra.settings import NotebookSettings
from infra.tables.gate import PACKS, GateSettings
from infra.validation import SettingsError, read_table

DOCUMENTED = (PROJECT / "docs" / "security-gate.md").read_text(encoding="utf-8")
CHECKOV = Path(os.environ.get("CHECKOV", PROJECT / "build" / "checkov" / "bin" / "checkov"))


ANY = "ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER"


def report(app: App, **gate: Any) -> list[dict[str, Any]]:
    """What the plugins report of a synthesis that must fail."""
    compliance.add_checks(app, read_table(GateSettings, gate))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    return json.loads((Path(app.outdir) / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]


def test_an_acknowledgement_covers_its_finding_and_no_other(make_app):
    app = make_app()
    stack = Stack(app, "Bad")
    buckets = {name: s3.Bucket(stack, name, enforce_ssl=True) for name in ("Known", "Unknown")}
    compliance.acknowledge(buckets["Known"].node.default_child, "AwsSolutions-S1", "A test.")
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "*"}
    policy = iam.CfnRolePolicy(stack, "Policy", policy_name="p", role_name="r", policy_document={"Statement": allowed})
    compliance.acknowledge(policy, f"{ANY}[s3:getobject]", "A test.")
    of_buckets, own = (plugin for plugin in report(app) if plugin["pluginName"] in ("AwsSolutions", "kennel"))
    for kind, path in (("violations", "Bad/Unknown/Resource"), ("suppressedViolations", "Bad/Known/Resource")):
        assert [place["constructPath"] for found in of_buckets[kind] for place in found["violatingConstructs"]] == [
            path
        ]
    for kind, action in (("violations", "s3:putobject"), ("suppressedViolations", "s3:getobject")):
        assert [found["ruleName"] for found in own[kind]] == [f"{ANY}[{action}]"]


def test_what_only_the_template_shows_is_looked_at(make_app):
    app = make_app()
    stack = Stack(app, "Bad")
    CfnResource(stack, "Bucket", type="AWS::S3::Bucket", properties={"PublicAccessBlockConfiguration": {}})
    volume = ec2.CfnVolume(stack, "Volume", availability_zone="a", size=8, encrypted=True)
    volume.add_property_override("Encrypted", False)
    policy = iam.CfnRolePolicy(stack, "Policy", policy_name="p", role_name="r", policy_document={"Statement": []})
    CfnMapping(stack, "Map", mapping={"a": {"c": "arn:aws:s3:::b"}})
    somewhere = {"Fn::FindInMap": ["Map", "a", "b", {"DefaultValue": "*"}]}
    allowed = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": somewhere}
    policy.add_property_override("PolicyDocument.Statement", [allowed])
    hidden = {("Bucket", "AwsSolutions-S2"), ("Volume", "AwsSolutions-EC26"), ("Policy", f"{ANY}[s3:getobject]")}
    found = [each for plugin in report(app) for each in plugin["violations"]]
    places = {(place["constructPath"], each["ruleName"]) for each in found for place in each["violatingConstructs"]}
    assert {(f"Bad/{name}", rule) for name, rule in hidden} <= places


def test_an_acknowledgement_without_a_finding_fails_the_synthesis(make_app):
    app = make_app()
    bucket = s3.CfnBucket(Stack(app, "Fine"), "Bucket", logging_configuration={"logFilePrefix": "self/"})
    compliance.acknowledge(bucket, "AwsSolutions-S10", "A test.", until=date.max)
    compliance.add_checks(app, GateSettings())
    assembly = Path(app.synth().directory)
    compliance.require_order(app, assembly)
    compliance.acknowledge(bucket, "AwsSolutions-S2", "Once it was needed.")
    with pytest.raises(ComplianceError, match=r":\n  Fine/Bucket: AwsSolutions::AwsSolutions-S2: does not occur.*$"):
        compliance.require_order(app, assembly)


def test_no_warning_and_no_acknowledgement_above_the_resource_or_without_reason_gets_through(make_app):
    app = make_app()
    stack = Stack(app, "Above")
    bucket = s3.CfnBucket(stack, "Bucket")
    CfnParameter(stack, "Unused")
    Validations.of(stack).acknowledge(Acknowledgment(id="AwsSolutions::AwsSolutions-S10", reason="All of them."))
    compliance.acknowledge(bucket, "AwsSolutions-S1", " ")
    compliance.add_checks(app, GateSettings())
    problems = [
        "Above: W2001: a warning: .*",
        "Above/Bucket: .*S1: has no reason; .*",
        "Above: .*S10: covers what is below",
    ]
    with pytest.raises(ComplianceError, match=r"\n  ".join(problems)):
        compliance.require_order(app, Path(app.synth().directory))


YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
EXCEPTION = {"rule": "AwsSolutions-S1", "path": "Bad/Bucket", "reason": "A test of exceptions."}


def test_the_settings_choose_the_packs_and_accept_findings_for_a_time(make_app):
    app = make_app()
    s3.CfnBucket(Stack(app, "Bad"), "Bucket")
    accepted = [{**EXCEPTION, "until": date.max}] + [
        {**EXCEPTION, "rule": f"{pack}-S3BucketLoggingEnabled"} for pack in PACKS if pack[0] in "HNP"
    ]
    found = report(app, packs=list(PACKS), accepted=accepted)
    names = {plugin["pluginName"]: plugin["suppressedViolations"] for plugin in found if "violations" in plugin}
    assert names.keys() == set(PACKS) - {"Serverless"}  # which knows nothing of buckets
    assert names["AwsSolutions"][0]["reason"] == "A test of exceptions. (Until 9999-12-31.)"
    assert all(len(suppressed) == 1 for suppressed in names.values())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"until": YESTERDAY.isoformat()}, f"Bad/Bucket: AwsSolutions-S1 was accepted until {YESTERDAY}. Mend"),
        ({"path": "Bad/Bin"}, "no resource has the path Bad/Bin"),
    ],
)
def test_an_exception_of_the_settings_that_no_longer_holds_fails_the_synthesis(make_app, change, message):
    app = make_app()
    s3.CfnBucket(Stack(app, "Bad"), "Bucket")
    with pytest.raises(ComplianceError, match=message):
        compliance.add_checks(app, read_table(GateSettings, {"accepted": [EXCEPTION | change]}))


def test_the_pack_that_the_constructs_answer_to_stays():
    with pytest.raises(SettingsError, match='packs: "AwsSolutions" stays'):
        read_table(GateSettings, {"packs": ["HIPAA.Security"]})


@pytest.fixture(scope="module")
def everything(stages: dict[str, SynthesisedStage], synthesise: Callable[..., SynthesisedStage]) -> SynthesisedStage:
    """A stage that has all that a stage can have."""
    return synthesise(replace(stages["dev"].settings, stage="everything", notebook=NotebookSettings()))


def test_every_exception_has_a_documented_reason(everything):
    reasons = {found["reason"] for plugin in everything.report() for found in plugin["suppressedViolations"]}
    assert reasons
    assert [reason for reason in reasons if reason not in DOCUMENTED] == []


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

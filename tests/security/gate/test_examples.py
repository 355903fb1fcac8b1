"""The security gate: each rule refuses its bad examples, for no other reason, and lets the good ones pass."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_cdk import App, Environment, Stack
from aws_cdk.cloudformation_include import CfnInclude
from cloudsplaining.shared.constants import PRIVILEGE_ESCALATION_METHODS
from templates import PROJECT

from infra.gate import compliance, policies
from infra.tables.gate import GateSettings

ACCOUNT = "111122223333"
TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("examples.yaml").read_text(encoding="utf-8"))
AROUND = TABLE.pop("template")
del TABLE["anchors"]
OWN_RULES = {*policies.RULES, *re.findall(r"^rule (\w+)", compliance.RULES.read_text(encoding="utf-8"), re.MULTILINE)}
EXAMPLES = {
    f"{kind}-{rule.replace('_', '-')}-{index}": (rule if kind == "bad" else None, resources)
    for rule, examples in TABLE.items()
    for kind in ("bad", "good")
    for index, resources in enumerate(examples[kind])
}


def template(resources: dict[str, Any]) -> dict[str, Any]:
    parts = {part: AROUND.get(part, {}) | resources[part] for part in resources if "::" not in part}
    kinds = resources.keys() - parts or {"AWS::CloudFormation::WaitConditionHandle"}
    named = {kind.split("::")[-1]: {"Type": kind, "Properties": resources.get(kind, {})} for kind in kinds}
    return AROUND | parts | {"Resources": named}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The rules that each example breaks: all of them in one synthesis, each in a stack of its own."""
    folder = tmp_path_factory.mktemp("examples")
    app = App(outdir=str(folder / "out"), analytics_reporting=False)
    for name, (_, resources) in EXAMPLES.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps(template(resources)), encoding="utf-8")
        CfnInclude(Stack(app, name, env=Environment(account=ACCOUNT)), "Example", template_file=str(file))
    compliance.add_checks(app, GateSettings())
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    rules: dict[str, set[str]] = {name: set() for name in EXAMPLES}
    report = json.loads((folder / "out" / "validation-report.json").read_bytes())["pluginReports"]
    for violation in (violation for plugin in report for violation in plugin["violations"]):
        for place in violation["violatingConstructs"]:
            where = place["constructPath"] or place["cloudFormationResource"]["templatePath"]  # outputs
            rules[where.replace(".", "/").split("/")[0]].add(violation["ruleName"].split("[")[0])
    return rules


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_bad_example_breaks_its_rule_and_no_other_and_a_good_one_none(found, name, record_property):
    rule = EXAMPLES[name][0]
    assert found[name] & (OWN_RULES | TABLE.keys()) == ({rule} if rule else set())
    record_property("bad examples that the gate refused" if rule else "good examples that passed the gate", 1)


@pytest.mark.parametrize("way", PRIVILEGE_ESCALATION_METHODS)
def test_no_known_way_to_raise_permissions_gets_through(way, record_property):
    allowed = {"Effect": "Allow", "Action": PRIVILEGE_ESCALATION_METHODS[way], "Resource": "arn:aws:iam::1:role/r"}
    policy = {"PolicyName": "p", "RoleName": "r", "PolicyDocument": {"Statement": allowed}}
    examined = policies.examine(template({"AWS::IAM::RolePolicy": policy}), ACCOUNT)
    raising = {f"NO_ROLE_CAN_RAISE_ITSELF[{action.lower()}]" for action in PRIVILEGE_ESCALATION_METHODS[way]}
    assert set() != {finding for finding, _ in examined} <= raising | {"PASS_ROLE_NAMES_ROLE_AND_SERVICE"}
    record_property("known ways to raise permissions that the gate refused", 1)


def test_every_own_rule_has_examples_and_is_documented(record_property):
    documented = (PROJECT / "docs" / "security-gate.md").read_text(encoding="utf-8")
    assert {rule for rule in OWN_RULES if not all(TABLE.get(rule, {}).get(kind) for kind in ("bad", "good"))} == set()
    assert [rule for rule in OWN_RULES if rule not in documented] == []
    record_property("rules of the gate with examples", len(TABLE))

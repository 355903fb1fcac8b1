"""The security gate of every synthesis: the rule packs, our own rules, and exceptions from them.

`cdk synth` fails on any finding that nobody has acknowledged. A construct acknowledges what it needs itself: one
finding at one resource, with its reason, which ends up in ``cdk.out/validation-report.json`` beside the finding. An
acknowledgement that matches nothing fails the synthesis too, so that no exception outlives its cause.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from aws_cdk import Acknowledgment, App, CfnResource, CloudFormationValidatePlugin, ValidationRuleSource, Validations
from cdk_nag import AwsSolutionsChecks

RULES = Path(__file__).with_name("rules.guard")


class ComplianceError(Exception):
    """An acknowledgement matches no finding."""


def acknowledge(resource: CfnResource, rule: str, reason: str) -> None:
    """Say why a finding of cdk-nag (``AwsSolutions-…``) or of our own rules is all right at a resource.

    At the CloudFormation resource, not at a construct above it: that would cover its other resources too.
    """
    # The plugin's name before the rule: only so does the CDK match the two, and write both into its report.
    plugin = "AwsSolutions" if rule.startswith("AwsSolutions-") else "CloudFormation-Validate"
    Validations.of(resource).acknowledge(Acknowledgment(id=f"{plugin}::{rule}", reason=reason))


def acknowledge_wildcard(role: CfnResource, resource: Any, reason: str) -> None:
    """Say why a role may have a resource (a resolved ARN) with a wildcard, unless it has none or it was said before."""
    rule = f"AwsSolutions-IAM5[Resource::{_flat(resource)}]"
    if "*" in rule and f"AwsSolutions::{rule}" not in _acknowledged(role):
        acknowledge(role, rule, reason)


def add_checks(app: App) -> None:
    """Make every synthesis of the app run the rules."""
    Validations.of(app).add_plugins(AwsSolutionsChecks(app), _template_rules())


@cache  # compiling the rules takes longer than the rest of a synthesis
def _template_rules() -> CloudFormationValidatePlugin:
    """Our rules beside CloudFormation's own (schemas, deprecated runtimes and the like)."""
    own_rules = ValidationRuleSource(name="kennel", content=RULES.read_text(encoding="utf-8"))
    return CloudFormationValidatePlugin(guard_rules=[own_rules])


def require_used(app: App, assembly: Path) -> None:
    """Refuse acknowledgements for which the synthesis into the folder `assembly` had no use.

    Raises
    ------
    ComplianceError
        Naming them. Not while findings are open: their message comes first, and it is the CDK that prints it.
    """
    report = json.loads((assembly / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]
    if any(plugin["violations"] for plugin in report):
        return
    used = {
        (suppressed["acknowledgedAt"], suppressed["acknowledgedId"])
        for plugin in report
        for suppressed in plugin.get("suppressedViolations", ())
    }
    resources = (node for node in app.node.find_all() if CfnResource.is_cfn_resource(node))
    given = [(resource.node.path, rule) for resource in resources for rule in _acknowledged(resource)]
    if unused := [f"{path}: {rule}" for path, rule in given if (path, rule) not in used]:
        raise ComplianceError("\n  ".join(["Acknowledged findings that do not occur:", *unused]))


def _acknowledged(resource: Any) -> list[str]:
    """Rules that are acknowledged at a resource."""
    key = Validations.ACKNOWLEDGED_RULES_METADATA_KEY
    return [rule for entry in resource.node.metadata if entry.type == key for rule in entry.data]


def _flat(value: Any) -> str:
    """Write an ARN as cdk-nag does in its findings, references in angle brackets."""
    match value:
        case {"Fn::Join": [_, parts]}:
            return "".join(map(_flat, parts))
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::ImportValue": name}:
            return str(name)
    return str(value)

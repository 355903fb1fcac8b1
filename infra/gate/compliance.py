"""The security gate of every synthesis: the rule packs, our own rules, and exceptions from them.

`cdk synth` fails on any finding that nobody has acknowledged. A construct acknowledges what it needs itself: one
finding at one resource, with its reason, which ends up in ``cdk.out/validation-report.json`` beside the finding. An
acknowledgement that matches nothing fails the synthesis too, and so does one that has expired or that covers more than
one resource.
"""

import json
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

from aws_cdk import Acknowledgment, App, CfnResource, CloudFormationValidatePlugin, ValidationRuleSource, Validations

from infra.container_images import aws_accounts
from infra.gate import policies
from infra.gate.examiners import Examiner
from infra.gate.statements import others, texts
from infra.tables.gate import PACKS, GateSettings

RULES = Path(__file__).with_name("rules.guard")


class ComplianceError(Exception):
    """An exception that is not in order, or a warning."""


def acknowledge(resource: CfnResource, rule: str, reason: str, *, until: date | None = None) -> None:
    """Say why a finding of cdk-nag (``AwsSolutions-…``) or of our own rules is all right at a resource.

    A rule that may find several things has each in brackets: ``PRINCIPAL_IS_NAMED[*]``.

    At the CloudFormation resource, not at a construct above it: that would cover its other resources too.

    Raises
    ------
    ComplianceError
        After `until`, the last day on which the reason holds.
    """
    if expired := expiry(f"{resource.node.path}: {rule}", until):
        raise ComplianceError(expired)
    name, pack = rule.partition("[")[0], rule.split("-")[0]
    # The plugin's name before the rule: only so does the CDK match the two, and write both into its report.
    plugin = pack if pack in PACKS else "kennel" if name in policies.RULES else "CloudFormation-Validate"
    reason = f"{reason} (Until {until}.)" if until else reason
    Validations.of(resource).acknowledge(Acknowledgment(id=f"{plugin}::{rule}", reason=reason))


def acknowledge_caller(resource: CfnResource, arn: str, reason: str) -> None:
    """Say why a principal may come in at a resource, unless it is of the stack's own account."""
    if arn.split(":")[4] != resource.stack.account:
        acknowledge(resource, f"NOBODY_OF_ANOTHER_ACCOUNT[{arn}]", reason)


def acknowledge_image(resource: CfnResource, name: str) -> None:
    """Say why an image, by its address or its repository's ARN, may be of another account than the stack's or AWS's."""
    text = "".join(texts(resource.stack.resolve(name))).replace("::", ".")
    if others(text, resource.stack.account) - aws_accounts():
        acknowledge(resource, f"NOTHING_OF_ANOTHER_ACCOUNT[{text}]", "The settings name this image.")


def expiry(exception: str, until: date | None) -> str | None:
    """Say that an exception has expired and what to do, or return None while it holds."""
    if until is None or datetime.now(UTC).date() <= until:
        return None
    return (
        f"{exception} was accepted until {until}. Mend what the rule finds and take the exception out, or look at it "
        "again and give it a later date."
    )


def acknowledge_wildcard(role: CfnResource, resource: Any, reason: str) -> None:
    """Say why a role may have a resource (a resolved ARN) with a wildcard, unless it has none or it was said before."""
    rule = f"AwsSolutions-IAM5[Resource::{''.join(texts(resource))}]"
    if "*" in rule and f"AwsSolutions::{rule}" not in _acknowledged(role):
        acknowledge(role, rule, reason)


def add_checks(app: App, gate: GateSettings) -> None:
    """Make every synthesis of the app run the rules, with the exceptions that the settings add.

    Raises
    ------
    ComplianceError
        When an exception of the settings has expired, or names a resource that there is not.
    """
    Validations.of(app).add_plugins(_template_rules(), *cast(Any, map(Examiner, (*gate.packs, "kennel"))))
    resources = {resource.node.path: resource for resource in _resources(app)} if gate.accepted else {}
    for finding in gate.accepted:
        if finding.path not in resources:
            raise ComplianceError(f"gate.accepted: no resource has the path {finding.path}. The report has the paths.")
        acknowledge(resources[finding.path], finding.rule, finding.reason, until=finding.until)


def _resources(app: App) -> list[CfnResource]:
    return [cast(CfnResource, node) for node in app.node.find_all() if CfnResource.is_cfn_resource(node)]


@cache  # compiling the rules takes longer than the rest of a synthesis
def _template_rules() -> CloudFormationValidatePlugin:
    """Our rules beside CloudFormation's own (schemas, deprecated runtimes and the like)."""
    own_rules = ValidationRuleSource(name="kennel", content=RULES.read_text(encoding="utf-8"))
    return CloudFormationValidatePlugin(guard_rules=[own_rules])


def require_order(app: App, assembly: Path) -> None:
    """Refuse what the synthesis into the folder `assembly` has let pass, but for what the CDK itself prints.

    Raises
    ------
    ComplianceError
        Naming warnings, acknowledgements that match no finding, and those above the resource of their finding. Not
        while errors are open: their message comes first, and it is the CDK that prints it.
    """
    report = json.loads((assembly / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]
    found = [finding for plugin in report for finding in plugin["violations"]]
    if any(finding["severity"] != "warning" for finding in found):
        return
    covered = [finding for plugin in report for finding in plugin.get("suppressedViolations", ())]
    used = {(finding["acknowledgedAt"], finding["acknowledgedId"]) for finding in covered}
    given = {(resource.node.path, rule) for resource in _resources(app) for rule in _acknowledged(resource)}
    problems = [f"{place}: {f['ruleName']}: a warning: {f['description']}" for f in found for place in _places(f)]
    problems += [f"{place}: {rule}: does not occur; take the exception out" for place, rule in sorted(given - used)]
    bare = {(f["acknowledgedAt"], f["acknowledgedId"]) for f in covered if not f.get("reason", "").strip()}
    problems += [f"{place}: {rule}: has no reason; say why it is all right" for place, rule in sorted(bare)]
    above = {(f["acknowledgedAt"], f["acknowledgedId"]) for f in covered if _places(f) != [f["acknowledgedAt"]]}
    problems += [f"{place}: {rule}: covers what is below, too; say it at the resource" for place, rule in sorted(above)]
    if problems:
        raise ComplianceError("\n  ".join(["The security gate's findings and exceptions:", *problems]))


def _places(finding: dict[str, Any]) -> list[str]:
    return [construct["constructPath"] for construct in finding["violatingConstructs"]]


def _acknowledged(resource: Any) -> list[str]:
    """Rules that are acknowledged at a resource."""
    key = Validations.ACKNOWLEDGED_RULES_METADATA_KEY
    return [rule for entry in resource.node.metadata if entry.type == key for rule in entry.data]

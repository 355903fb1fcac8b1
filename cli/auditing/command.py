"""`kennel audit`: the vulnerability assessment of an account."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.auditing import fixing, identities, unused
from cli.auditing.account import Account
from cli.auditing.findings import Finding, NotChecked, Report, examine, name_of
from cli.auditing.reports.formats import FORMATS
from cli.auditing.resources import exposed, sagemaker
from cli.auditing.resources.policies import flaw, role_trust
from cli.auditing.rules import Severity
from cli.aws import Stage
from cli.console import AsJson, ask, console, error_console, progress_bar, show
from cli.errors import AwsError, UnhealthyError, UsageError

#: Once an account, and once a region.
GLOBAL = (
    *(identities.policy_rights, identities.combined_rights, role_trust, unused.unused_roles),
    *(unused.unused_permissions, unused.unused_policies, unused.sign_in, exposed.policy_validation, exposed.buckets),
)
REGIONAL = (*exposed.CHECKS, *sagemaker.CHECKS)

#: Role, rule and evidence: without other policies given to it, CloudFormation's role is an administrator; the role that
#: deploys may have it make anything, and reach the buckets of other accounts' pipelines; the role that looks things up
#: has AWS's ReadOnlyAccess. Whatever else such roles can do is reported as of any other role.
_DESIGN = re.compile(
    r"\S+:role/cdk-\w+-(cfn-exec-role-\S+ policy-aws-admin AdministratorAccess:"
    r"|deploy-role-\S+ policy-(escalation default allows cloudformation:\w+ \+ cloudformation:\w+:|wildcard-resource "
    r'|(exfiltration|exposure) default allows [\w:, ]+: {"Sid": "PipelineCrossAccountArtifactsBucket")'
    r"|lookup-role-\S+ policy-\S+ ReadOnlyAccess )"
)


def bootstrap_in_one(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings, with one in place of all that the template of the CDK's bootstrap has by design."""
    roles = list[str]()
    for each in findings:
        if _DESIGN.match(f"{each.resource} {each.rule} {each.evidence}"):
            roles.append(each.resource)
        else:
            yield each
    if roles:
        yield flaw("cdk-bootstrap", roles[0], f"as the CDK's template makes them: {', '.join(dict.fromkeys(roles))}")


def assess(account: Account, regions: list[str]) -> Report:
    """Run all checks; those of a region in each of the regions."""
    with progress_bar("Looking", len(regions) + 1) as report:
        whole = examine(account, GLOBAL)
        findings, skipped = [*bootstrap_in_one(whole.findings)], defaultdict[NotChecked, list[str]](list)
        for done, region in enumerate(regions, start=1):
            report(done)
            of_region = examine(account.elsewhere(region), REGIONAL)
            findings += of_region.findings
            for each in of_region.not_checked:
                skipped[each].append(region)
    findings.sort(key=lambda each: list(Severity).index(each.severity))
    in_regions = (NotChecked(f"{each.check} in {', '.join(where)}", each.reason) for each, where in skipped.items())
    not_checked = tuple(dict.fromkeys((*whole.not_checked, *in_regions)))
    return replace(whole, region=", ".join(regions), findings=tuple(findings), not_checked=not_checked)


def audit(
    context: typer.Context,
    format_: Annotated[
        Literal["table", "json", "sarif", "html"], typer.Option("--format", help="Of the report.")
    ] = "table",
    unused_days: Annotated[int, typer.Option(min=1, help="What nobody used for so many days is unused.")] = 90,
    region: Annotated[list[str] | None, typer.Option(help="A region; again for others (default: all enabled).")] = None,
    fail_on: Annotated[Severity, typer.Option(help="Findings of this severity or worse: exit code 6.")] = Severity.HIGH,
    fix: Annotated[bool, typer.Option("--fix", help="Say which unused roles and policies can be deleted.")] = False,
    backup: Annotated[Path | None, typer.Option(help="With --fix: ask, write a backup to this file, delete.")] = None,
    restore: Annotated[Path | None, typer.Option(help="Only bring back what --fix deleted, from its backup.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find what is unsafe, public or unused in the whole account."""
    stage: Stage = context.obj
    account = Account(stage, unused_days)
    if restore is not None:
        for arn in fixing.restore(account, fixing.load(account, restore)):
            console.print(f"restored: {arn}")
        return
    if backup is not None and not fix:
        raise UsageError("--backup is for --fix.", "kennel audit --fix --backup FILE")
    enabled = [each["RegionName"] for each in account.call("ec2", "describe_regions")["Regions"]]  # no others
    if unknown := [each for each in region or () if each not in enabled]:
        raise UsageError(f"Not enabled in this account: --region {', '.join(unknown)}.", f"One of {', '.join(enabled)}")
    regions = list(dict.fromkeys(region or enabled))
    report = assess(account, regions)
    show(asdict(report), FORMATS[format_](report))
    error_console.print(f"Findings: {len(report.findings)}. Not checked: {len(report.not_checked)}. {report.region}")
    if fix:
        _fix(account, report, backup)
    order = list(Severity)
    if bad := [each for each in report.findings if order.index(each.severity) <= order.index(fail_on)]:
        raise UnhealthyError(f"Findings of account {account.id} that are {fail_on} or worse: {len(bad)}")
    if {name_of(check) for check in GLOBAL} <= {each.check for each in report.not_checked}:
        raise AwsError("No policy, role, user and bucket could be read.", "docs/auditing.md says what an audit needs.")


def _fix(account: Account, report: Report, backup: Path | None) -> None:
    stale, kept = fixing.plan(account, report)
    for line in (*(f"can be deleted: {each['arn']}" for each in stale), *(f"stays: {each}" for each in kept)):
        error_console.print(line)
    if not stale or backup is None:
        error_console.print("Nothing is deleted. To be asked, and then delete: kennel audit --fix --backup FILE")
        return
    ask(f"Delete these {len(stale)}, after a backup to {backup}?")
    fixing.save(account, stale, backup)
    for arn in fixing.delete(account, stale):
        error_console.print(f"deleted: {arn}")
    error_console.print(f"To bring them back: kennel audit --restore {backup}")

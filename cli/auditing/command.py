"""`kennel audit`: the vulnerability assessment of an account."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.auditing import fixing, identities, unused
from cli.auditing.account import Account
from cli.auditing.asking import tried
from cli.auditing.findings import Check, Finding, NotChecked, Report, attempt, folded, name_of
from cli.auditing.reports.formats import FORMATS
from cli.auditing.resources import exposed, sagemaker
from cli.auditing.resources.policies import flaw, role_trust
from cli.auditing.rules import Severity
from cli.aws import Stage
from cli.console import AsJson, ask, error_console, progress_bar, show
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


def assess(account: Account, regions: list[str], checks: Iterable[Check] = GLOBAL) -> Report:
    """Run checks, and those of a region in each of the regions; what AWS does not let us check, the report says."""
    _ = account.id  # there is no report without it
    rounds = [(account, check) for check in checks]
    rounds += [(account.elsewhere(region), check) for region in regions for check in REGIONAL]
    results = list[Finding | NotChecked]()
    with progress_bar("Looking", len(rounds)) as report:
        for done, (there, check) in enumerate(rounds):
            report(done)
            results += attempt(there, check)
    worst = list(Severity)
    findings = bootstrap_in_one(each for each in results if isinstance(each, Finding))
    return Report(
        account.id,
        ", ".join(regions),
        account.now,
        tuple(sorted(findings, key=lambda each: (worst.index(each.severity), each.rule, each.resource))),
        tuple(folded(each for each in results if isinstance(each, NotChecked))),
    )


def audit(
    context: typer.Context,
    format_: Annotated[
        Literal["table", "json", "sarif", "html"], typer.Option("--format", help="Of the report.")
    ] = "table",
    unused_days: Annotated[int, typer.Option(min=1, max=400, help="What nobody used for so many days is unused.")] = 90,
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
            error_console.print(f"restored: {arn}")  # as "deleted: …": where standard output goes must not end it
        error_console.print("All of the backup is there.")
        return
    if backup is not None and not fix:
        raise UsageError("--backup is for --fix.", "kennel audit --fix --backup FILE")
    regions, unlisted = region or [account.region], tuple[NotChecked, ...]()
    if isinstance(listed := tried(lambda: account.call("ec2", "describe_regions")), AwsError):
        unlisted = (NotChecked("regions that are enabled", str(listed)),)
    else:
        enabled = [each["RegionName"] for each in listed["Regions"]]  # no others
        if unknown := [each for each in region or () if each not in enabled]:
            wrong = f"Not enabled in this account: --region {', '.join(unknown)}."
            raise UsageError(wrong, f"One of {', '.join(enabled)}")
        regions = region or enabled
    report = assess(account, list(dict.fromkeys(regions)))
    report = replace(report, not_checked=(*unlisted, *report.not_checked))
    show(asdict(report), FORMATS[format_](report))
    error_console.print(f"Findings: {len(report.findings)}. Not checked: {len(report.not_checked)}. {report.region}")
    if fix:
        _fix(account, report, backup)
    order = list(Severity)
    if bad := [each for each in report.findings if order.index(each.severity) <= order.index(fail_on)]:
        raise UnhealthyError(f"Findings of account {account.id} that are {fail_on} or worse: {len(bad)}")
    if {name_of(check) for check in GLOBAL} <= {each.check for each in report.not_checked if not each.where}:
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

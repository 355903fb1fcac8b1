"""`kennel audit`: the vulnerability assessment of an account."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.auditing import fixing, identities, trust, unused
from cli.auditing.account import Account
from cli.auditing.findings import Report, examine
from cli.auditing.reports.formats import FORMATS, table
from cli.auditing.resources import exposed, sagemaker
from cli.auditing.resources.access_analyzer import access_analyzer, policy_validation
from cli.auditing.rules import Severity
from cli.aws import Stage
from cli.console import ask, console, error_console, progress_bar
from cli.errors import UnhealthyError, UsageError

#: Once an account, and once a region.
GLOBAL = (
    *(identities.policy_rights, identities.combined_rights, trust.role_trust, unused.unused_roles),
    *(unused.unused_permissions, unused.unused_policies, unused.sign_in, policy_validation, exposed.buckets),
)
REGIONAL = (*exposed.CHECKS, *sagemaker.CHECKS, access_analyzer)


def assess(account: Account, regions: list[str]) -> Report:
    """Run all checks; those of a region in each of the regions."""
    with progress_bar("Looking", len(regions) + 1) as report:
        whole = examine(account, GLOBAL)
        findings, not_checked = list(whole.findings), list(whole.not_checked)
        for done, region in enumerate(regions, start=1):
            report(done)
            object.__setattr__(there := copy(account), "other_region", region)  # with what is known of the account
            of_region = examine(there, REGIONAL)
            findings += of_region.findings
            not_checked += [replace(each, check=f"{each.check} in {region}") for each in of_region.not_checked]
    findings.sort(key=lambda each: list(Severity).index(each.severity))
    unique = tuple(dict.fromkeys(not_checked))
    return replace(whole, region=", ".join(regions), findings=tuple(findings), not_checked=unique)


def audit(
    context: typer.Context,
    format_: Annotated[
        Literal["table", "json", "sarif", "html"], typer.Option("--format", help="How to report.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="Write the report to a file.")] = None,
    unused_days: Annotated[int, typer.Option(min=1, help="What nobody used for so many days is unused.")] = 90,
    region: Annotated[list[str] | None, typer.Option(help="A region; again for others (default: all enabled).")] = None,
    fail_on: Annotated[Severity, typer.Option(help="Findings of this severity or worse: exit code 6.")] = Severity.HIGH,
    fix: Annotated[bool, typer.Option("--fix", help="Say which unused roles and policies can be deleted.")] = False,
    backup: Annotated[Path | None, typer.Option(help="With --fix: ask, write a backup to this file, delete.")] = None,
    restore: Annotated[Path | None, typer.Option(help="Only bring back what --fix deleted, from its backup.")] = None,
) -> None:
    """Look for what is unsafe in the whole account: rights, trust, and public, unencrypted or idle resources."""
    stage: Stage = context.obj
    account = Account(stage, unused_days)
    if restore is not None:
        for arn in fixing.restore(account, fixing.load(account, restore)):
            console.print(f"restored: {arn}")
        return
    if backup is not None and not fix:
        raise UsageError("--backup is for --fix.", "kennel audit --fix --backup FILE")
    if (output is None) == (format_ == "html") or (output is not None and format_ == "table"):
        raise UsageError("A page goes to a file, a table to the terminal.", "kennel audit --format html --output FILE")
    # DescribeRegions lists those that are enabled.
    regions = region or [each["RegionName"] for each in account.call("ec2", "describe_regions")["Regions"]]
    report = assess(account, regions)
    if output is not None:
        output.write_text(FORMATS[format_](report), encoding="utf-8")
    elif format_ == "table":
        console.print(table(report))
    else:
        typer.echo(json.dumps(json.loads(FORMATS[format_](report))))
    error_console.print(f"{len(report.findings)} findings, {len(report.not_checked)} not checked in {report.region}")
    if fix:
        _fix(account, report, backup)
    bad = [each for each in report.findings if list(Severity).index(each.severity) <= list(Severity).index(fail_on)]
    if bad:
        raise UnhealthyError(f"{len(bad)} findings of account {account.id} are {fail_on} or worse.")


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

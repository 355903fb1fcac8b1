"""`kennel doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.text import Text

from cli.aws import Stage
from cli.console import AsJson, console
from cli.errors import UnhealthyError
from cli.operating.doctor import account, answering, watching
from cli.operating.doctor.diagnosis import Diagnosis, Finding
from cli.operating.doctor.orphans import orphans

CHECKS = {
    "endpoint": answering.endpoint,
    "model": answering.model,
    "function URL": answering.function_url,
    "provisioned concurrency": answering.warm,
    "scaling": answering.scaling,
    "roles": account.roles,
    "alarms": watching.alarms,
    "alarm topic": watching.topic,
    "log retention": watching.logs,
    "cost guard and budget": watching.cost_guard,
    "quotas": account.quotas,
    "orphans": orphans,
}
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "not checked": "dim"}


def diagnose(stage: Stage) -> list[Finding]:
    """Run all checks of a deployed stage; a NotReadyError says that it is not deployed."""
    found = Diagnosis(stage)
    for name, check in CHECKS.items():
        found.run(name, check)
    return found.findings


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that what is deployed is as it was deployed, and works; exit code 6 if there are problems."""
    stage: Stage = context.obj
    findings = diagnose(stage)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    for finding in [] if as_json else findings:
        console.print(
            Text(f"{finding.result:12}", style=_STYLES[finding.result]), f"{finding.check}: {finding.evidence}"
        )
        if finding.fix:
            console.print(f"{'':12} fix: {finding.fix}")
    if problems := [finding for finding in findings if finding.result == "problem"]:
        raise UnhealthyError(f"{len(problems)} problem(s) of the stage {stage.name} in {stage.place}.")

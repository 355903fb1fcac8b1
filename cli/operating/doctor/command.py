"""`kennel doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.text import Text

from cli.aws import Stage
from cli.console import AsJson, progress_bar, show
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
    with progress_bar("Checking", len(CHECKS)) as report:
        for done, (name, check) in enumerate(CHECKS.items()):
            report(done)
            found.run(name, check)
    return found.findings


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that what is deployed works (exit code 6: problems)."""
    stage: Stage = context.obj
    findings = diagnose(stage)
    lines = []
    for finding in findings:
        lines.append(Text(f"{finding.result:12} ", style=_STYLES[finding.result]))
        lines[-1].append(f"{finding.check}: {finding.evidence}", "default")
        if finding.fix:
            lines.append(Text(f"{'':12} fix: {finding.fix}"))
    show([asdict(finding) for finding in findings], *lines)
    if problems := [finding for finding in findings if finding.result == "problem"]:
        raise UnhealthyError(f"{len(problems)} problem(s) of the stage {stage.name} in {stage.place}.")

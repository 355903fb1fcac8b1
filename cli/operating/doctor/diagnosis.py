"""What the checks of `kennel doctor` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from cli.aws import Stage
from cli.errors import AwsError, NotReadyError, aws_errors

Result = Literal["ok", "warning", "problem", "not checked"]


@dataclass(frozen=True)
class Finding:
    """What a check has found: evidence is what it has read, fix a command or a setting."""

    check: str
    result: Result
    evidence: str
    fix: str = ""


@dataclass
class Diagnosis:
    """What is found of a deployed stage. A check reports warnings and problems, and returns what it has read."""

    stage: Stage
    findings: list[Finding] = field(default_factory=list)
    _check: str = ""

    def __post_init__(self) -> None:
        self.endpoint, self.function, alias_arn = (
            self.stage.output("inference", name) for name in ("EndpointName", "FunctionName", "FunctionAliasArn")
        )
        self.alias = alias_arn.rpartition(":")[2]
        self.deploy = f"{self.stage.kennel} deploy"

    def run(self, name: str, check: Callable[[Diagnosis], str]) -> None:
        """Run a check; one that AWS does not let us make has found nothing, and says so."""
        self._check, before = name, len(self.findings)
        try:
            with aws_errors():
                read = check(self)
        except (AwsError, NotReadyError) as error:
            self.add("not checked", str(error), error.hint)
        else:
            if len(self.findings) == before:
                self.add("ok", read)

    def add(self, result: Result, evidence: str, fix: str = "") -> str:
        """Report a finding; return its evidence, so that a check can end with it."""
        self.findings.append(Finding(self._check, result, evidence, fix))
        return evidence

    def problem(self, evidence: str, fix: str = "") -> str:
        """Report what does not work or is not as it was deployed; without a fix, a deployment makes it so again."""
        return self.add("problem", evidence, fix or self.restore("inference"))

    def restore(self, kind: str) -> str:
        """Return the command that brings in the settings, and undoes what was changed in a stack by hand."""
        return f"cdk deploy -c stage={self.stage.name} {self.stage.stack_name(kind)} --revert-drift"

    def find(self, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
        """Return what AWS answers, or None where there is no such thing."""
        gone = NotReadyError("There is no such thing.")
        try:
            with aws_errors(missing=gone):
                answer: dict[str, Any] = getattr(self.stage.client(service), operation)(**request)
        except NotReadyError:
            return None
        return answer

    def names(self, kind: str, resource_type: str) -> list[str]:
        """Return the names of what a stack holds of a type."""
        return [resource["PhysicalResourceId"] for resource in self.stage.resources(kind, resource_type)]

    @cached_property
    def alarms(self) -> dict[str, dict[str, Any]]:
        """All metric alarms of the account and region, by name."""
        found = self.stage.listed("cloudwatch", "describe_alarms", "MetricAlarms")
        return {alarm["AlarmName"]: alarm for alarm in found}

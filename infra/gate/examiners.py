"""The examiners as the CDK runs them, all of them on what the templates say.

cdk-nag by itself looks at constructs, and they do not show what an override changes, nor a resource that has no class.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import cdk_nag
import jsii
from aws_cdk.cloudformation_include import CfnInclude

from infra.gate.policies import RULES, examine
from infra.gate.statements import PATTERNS


@jsii.implements(cdk.IPolicyValidationPlugin)
class Examiner:
    """A plugin of the CDK's validation: a rule pack of cdk-nag, or our own rules (`kennel`)."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def validate(self, context: cdk.IPolicyValidationContext) -> cdk.PolicyValidationPluginReport:
        violations = []
        for stack in context.stack_templates:
            for name, rule, description, severity in sorted(self._found(stack)):
                place: Any = {"resource_logical_id": name, "template_path": stack.template_path, "locations": []}
                said: Any = {"rule_name": rule, "description": description, "severity": severity}
                said["violating_resources"] = [cdk.PolicyViolatingResource(**place)]
                violations.append(cdk.PolicyViolation(**said))
        return cdk.PolicyValidationPluginReport(success=not violations, violations=violations)

    def _found(self, stack: Any) -> Iterator[tuple[str, str, str, str]]:
        """Yield logical id, rule, what is wrong and severity."""
        if self._name == "kennel":
            for rule, name in examine(json.loads(Path(stack.template_path).read_bytes()), stack.account_id):
                yield name, rule, RULES[rule.partition("[")[0]], "error"
            return
        read = cdk.Stack(cdk.App(), "Template")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as readable:
            # cdk-nag takes what it cannot read for open to everybody; the range of a VPC is /16 at most.
            readable.write(PATTERNS["range_of_vpc"].sub('"10.0.0.0/16"', Path(stack.template_path).read_text()))
            readable.flush()
            CfnInclude(read, "Resources", template_file=readable.name)
        for each in getattr(cdk_nag, f"{self._name.replace('.', '')}Checks")(read).validate_scope(read).violations:
            for place in each.violating_resources:
                yield str(place.construct_path).rpartition("/")[2], each.rule_name, each.description, str(each.severity)

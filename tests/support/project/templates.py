"""Reading synthesised templates."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import App

from infra.gate.compliance import expiry
from infra.settings import Settings
from model.core.archives import write_archive

PROJECT = Path(__file__).resolve().parents[3]
ACCEPTED = PROJECT / "tests" / "infra" / "gate" / "accepted_findings.toml"
KINDS = ("storage", "training", "inference")

Resource = dict[str, Any]


@dataclass(frozen=True)
class SynthesisedStage:
    """The cloud assembly of one stage; `kind` is one of `KINDS`, a stack."""

    settings: Settings
    assembly: Path

    def read(self, name: str) -> Any:
        return json.loads((self.assembly / name).read_text(encoding="utf-8"))

    def path(self, kind: str) -> Path:
        return self.assembly / f"{self.settings.stack_name(kind)}.template.json"

    def template(self, kind: str) -> dict[str, Any]:
        return self.read(self.path(kind).name)

    def resources(self, kind: str, resource_type: str) -> dict[str, Resource]:
        """The resources of one type, by logical id; at least one."""
        resources = self.template(kind)["Resources"].items()
        found = {name: resource for name, resource in resources if resource["Type"] == resource_type}
        assert found, f"{kind} has no {resource_type}"
        return found

    def properties(self, kind: str, resource_type: str) -> dict[str, Any]:
        (resource,) = self.resources(kind, resource_type).values()
        return resource["Properties"]

    def all_resources(self) -> Iterator[tuple[str, str, Resource]]:
        for kind in KINDS:
            for name, resource in self.template(kind)["Resources"].items():
                yield kind, name, resource

    def report(self) -> list[dict[str, Any]]:
        return self.read("validation-report.json")["pluginReports"]


def make_app(folder: Path) -> App:
    """Make an app as the CDK command line does: with the context of cdk.json."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return App(context=context, outdir=str(folder), analytics_reporting=False)


def accepted(tool: str) -> set[tuple[str, str]]:
    """Findings (tool and rule, logical id of the resource) of cfn-lint or checkov that we live with."""
    entries = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["accepted"]
    assert all(len(entry["reason"]) > 30 for entry in entries)
    assert [expired for entry in entries if (expired := expiry(entry["finding"], entry.get("until")))] == []
    return {(e["finding"], resource) for e in entries if e["finding"].startswith(tool) for resource in e["resources"]}


def write_artifact(path: Path, content: bytes) -> Path:
    """Write an archive of one file in a model artifact's place; synthesis looks at nothing but its digest."""
    with tempfile.TemporaryDirectory() as folder, path.open("wb") as file:
        (Path(folder) / "model.onnx").write_bytes(content)
        write_archive(Path(folder), file)
    return path


def statements(role: Resource) -> list[dict[str, Any]]:
    """All statements of a role's inline policies, action and resource always as lists."""

    def listed(value: object) -> list[Any]:
        return value if isinstance(value, list) else [value]

    return [
        {**statement, "Action": listed(statement["Action"]), "Resource": listed(statement["Resource"])}
        for policy in role["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def role_for(stage: SynthesisedStage, kind: str, description: str) -> Resource:
    roles = stage.resources(kind, "AWS::IAM::Role").values()
    (role,) = (role for role in roles if role["Properties"]["Description"] == description)
    return role


def text(value: object) -> str:
    """A value with CloudFormation functions flattened to something like the text that they will give."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(text(part) for part in parts)
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::ImportValue": name}:
            return f"<{str(name).split(':')[1]}>"
        case {"Fn::FindInMap": [mapping, key, name]}:
            return f"<{mapping}.{text(key)}.{name}>"
        case {"Fn::Sub": template}:
            return str(template)
        case str():
            return value
    raise AssertionError(f"no text: {value!r}")


def allowed(role: Resource) -> dict[str, set[str]]:
    table: dict[str, set[str]] = {}
    for statement in statements(role):
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            table.setdefault(action, set()).update(text(resource) for resource in statement["Resource"])
    return table

"""The table of what roles must and must not do (`tests/security/roles/roles.toml`), and what templates let them do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from templates import KINDS, PROJECT, SynthesisedStage, statements, text

ACCOUNT, REGION = "000000000000", "us-east-1"
#: The tables of `roles.toml`.
TABLES: dict[str, dict[str, list[str]]] = tomllib.loads(
    (PROJECT / "tests/security/roles/roles.toml").read_text(encoding="utf-8")
)
ROLES = [name for name in TABLES if name[0].isupper()]
#: ARNs by the type and the physical id of a resource; of all other types the id is what the table means.
_ARNS = {
    "CodeBuild::Project": "codebuild:{}:project/",
    "DynamoDB::Table": "dynamodb:{}:table/",
    "ECR::Repository": "ecr:{}:repository/",
    "Events::Rule": "events:{}:rule/",
    "IAM::Role": f"iam::{ACCOUNT}:role/",
    "KMS::Key": "kms:{}:key/",
    "Lambda::Alias": "lambda:{}:function:",
    "Lambda::Function": "lambda:{}:function:",
    "Logs::LogGroup": "logs:{}:log-group:",
    "S3::Bucket": "s3:::",
    "SNS::Topic": "sns:{}:",
}
_LOGICAL_ID = re.compile(r"(.+?)[0-9A-F]{8}(?:[0-9a-f]{8})?")
_PSEUDO = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::URLSuffix": "amazonaws.com"}


class Case(NamedTuple):
    """A request: its action, its resource, and condition keys with their values."""

    action: str
    resource: str
    keys: tuple[tuple[str, str], ...] = ()


def arn(resource_type: str, identity: str) -> str:
    """The ARN of a resource of a stack, whose id may be one."""
    if identity.startswith("arn:"):
        return identity
    form = _ARNS.get(resource_type.removeprefix("AWS::"))
    return f"arn:aws:{form.format(f'{REGION}:{ACCOUNT}')}{identity}" if form else identity


def names(stage: SynthesisedStage, physical: Callable[[str, str], str], prefix: str = "") -> dict[str, str]:
    """What the table calls the resources of a stage; `physical` gives the id of one of a stack."""
    found = {
        prefix + (match[1] if (match := _LOGICAL_ID.fullmatch(name)) else name): arn(
            resource["Type"], physical(kind, name)
        )
        for kind, name, resource in stage.all_resources()
    }
    bucket = f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    for kind in KINDS:
        for file in stage.read(f"{stage.settings.stack_name(kind)}.assets.json")["files"].values():
            (place,) = file["destinations"].values()
            found[prefix + file["displayName"]] = f"{bucket}/{place['objectKey']}"
    return found


def cases(table: str, known: Mapping[str, str]) -> Iterator[Case]:
    """What a table says, with the names of resources replaced."""
    for action, entries in TABLES[table].items():
        if action == "includes":
            for name in entries:
                yield from cases(name, known)
            continue
        for entry in entries:
            resource, *keys = re.sub(r"\{(.+?)\}", lambda match: known[match[1]], entry).split()
            if resource != "*" and not resource.startswith("arn:"):
                resource = f"arn:aws:{action.partition(':')[0]}:{REGION}:{ACCOUNT}:{resource}"
            yield Case(
                action, resource, tuple((name, value) for name, _, value in (key.partition("=") for key in keys))
            )


def expectations(known: Mapping[str, str]) -> dict[str, dict[Case, bool]]:
    """By role: every request that the table holds, and whether it is the role's."""
    own = {role: set(cases(role, known)) for role in ROLES}
    everything = sorted(set(cases("nobody", known)).union(*own.values()))
    return {
        role: {case: case in own[role] or Case(case.action, "*") in own[role] for case in everything} for role in ROLES
    }


def made_up(stage: SynthesisedStage) -> Callable[[str, str], str]:
    """Ids of resources that do not exist, such as CloudFormation would make up."""
    return lambda kind, name: f"{stage.settings.stack_name(kind)}-{name}"


def documents(stage: SynthesisedStage, resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The policies of a role, or a managed one, as IAM would get them."""
    known = dict(_PSEUDO)
    for kind, name, found in stage.all_resources():
        made = made_up(stage)(kind, name)
        whole = arn(found["Type"], made)
        reference = whole if found["Type"] in ("AWS::SNS::Topic", "AWS::Lambda::Alias") else made
        known |= {name: reference, f"{name}.Arn": whole + (":*" if "LogGroup" in found["Type"] else "")}
    for output in stage.template("storage")["Outputs"].values():
        if "Export" in output:
            known[output["Export"]["Name"].split(":")[1]] = text(output["Value"])

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(item) for item in value]
        if isinstance(value, dict) and not any(name == "Ref" or name.startswith("Fn::") for name in value):
            return {name: resolved(item) for name, item in value.items()}
        flat = text(value)
        while names_in := re.findall(r"<([^<>]+)>|\$\{([^{}]+)\}", flat):
            for bracketed, braced in names_in:
                name = bracketed or braced
                flat = flat.replace(f"<{name}>", known.get(name, name)).replace(f"${{{name}}}", known.get(name, name))
        return flat

    return [{"Version": "2012-10-17", "Statement": resolved(statements(resource))}]

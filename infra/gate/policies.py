"""Rules of our own that look at more than one property: who may do what, who may come in, secrets in plain text.

The CDK runs them beside the other examiners, and they stand in the same report. A value that CloudFormation chooses
(`Fn::If`) counts with all that it may become, a parameter with its default.
"""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import aws_cdk as cdk
import jsii

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
#: The rules by name, with what is wrong and what to do.
RULES: dict[str, str] = _DATA["rules"]
_ACTIONS = {kind: {action.lower() for action in actions} for kind, actions in _DATA["actions"].items()}
# Services that work for many accounts and take a role (confused deputy).
_SHARED_SERVICES = re.compile(r"(bedrock|codebuild|pipes|sagemaker|scheduler|states)\.")
# Keys that say where a request comes from. Source: the S3 user guide, 'The meaning of "public"'.
_SOURCE = re.compile(r"aws:(source(account|arn|owner|org.*|vpce?)|principal(account|arn|org.*))|kms:calleraccount")
_ACCOUNT = re.compile(r"(?<!\d)\d{12}(?!\d)")
# Any resource of any service, or all of one service.
_ANYTHING = re.compile(r"[*?:]+|arn:[^:]*:[^:]*\*.*|arn(:[^:]*){4}:\**")
# Of AWS, GitHub, Hugging Face, Slack, and private keys.
_SECRET = re.compile(
    r"\bA[KS]IA[A-Z0-9]{16}\b|\b(gh[opsu]|github_pat|hf)_\w{30}|\bxox[abprs]-\w+-|BEGIN [A-Z ]*PRIVATE KEY-"
)
_NAME = r"(passw(or)?d|secret|token|credentials?|(api|access|private|secret|signing)[_-]?key)"
_SECRET_NAME = re.compile(rf"({_NAME}|(?<!Generate)SecretString)$", re.IGNORECASE)
# Where the secret is instead of the secret: its ARN, a reference. Nothing, a number, yes or no are none.
_HARMLESS = re.compile(r"arn:|\{\{resolve:|.*<|(\d*|true|false)$")
_SCRIPTS = {"UserData", "Content"}  # of instances, and of a notebook's life cycle
_ASSIGNMENT = re.compile(rf"{_NAME}[\"']?\s*[=:]\s*[\"']?[^\s\"'$<{{(`]{{6}}", re.IGNORECASE)


def examine(template: Mapping[str, Any], account: str | None = None) -> set[tuple[str, str]]:
    """Find rules and the logical ids that break them; without an account, every account in it is another one."""
    text = json.dumps(template["Resources"])
    for name, parameter in template.get("Parameters", {}).items():
        text = text.replace(f'{{"Ref": "{name}"}}', json.dumps(parameter.get("Default", f"<{name}>")))
    resources = json.loads(text).items()
    return {(rule, name) for name, it in resources for rule in _broken_rules(it.get("Properties", {}), account)}


@jsii.implements(cdk.IPolicyValidationPlugin)
class PolicyRules:
    """The rules as the CDK runs them."""

    @property
    def name(self) -> str:
        return "kennel"

    def validate(self, context: cdk.IPolicyValidationContext) -> cdk.PolicyValidationPluginReport:
        violations = []
        for stack in context.stack_templates:
            path = stack.template_path
            for rule, name in sorted(examine(json.loads(Path(path).read_bytes()), stack.account_id)):
                place = cdk.PolicyViolatingResource(resource_logical_id=name, template_path=path, locations=[])
                found = {"rule_name": rule, "description": RULES[rule], "severity": "error"}
                violations.append(cdk.PolicyViolation(**cast(Any, found), violating_resources=[place]))
        return cdk.PolicyValidationPluginReport(success=not violations, violations=violations)


def texts(value: Any) -> Iterator[str]:
    """Yield every text that a value may become, or holds; references in angle brackets, as cdk-nag writes them."""
    match value:
        case {"Fn::If": [_, *choices]}:
            yield from texts(choices)
        case {"Fn::Join": [separator, list(parts)]}:
            yield separator.join("".join(texts(part)) for part in parts)
        case {"Fn::Sub": str(text)}:
            yield re.sub(r"\$\{([^}]+)\}", r"<\1>", text)
        case {"Fn::GetAtt": [name, attribute]}:
            yield f"<{name}.{attribute}>"
        case {"Ref": name}:
            yield f"<{name}>"
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)
        case _:
            yield str(value)


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every table at or below a value; a policy that is written as text counts as one."""
    match value:
        case str() | {"Fn::Join": _} | {"Fn::Sub": _} if '"Effect"' in (text := "".join(texts(value))):
            with contextlib.suppress(json.JSONDecodeError):
                value = json.loads(text)
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _tables(inner)


def _broken_rules(properties: Mapping[str, Any], account: str | None) -> Iterator[str]:
    tables = list(_tables(properties))
    if any(map(_holds_secret, tables)):
        yield "NO_SECRET_IN_PLAIN_TEXT"
    statements = [table for table in tables if "Effect" in table and table["Effect"] != "Deny"]
    if "Principal" in properties:  # a permission of a function or a layer is a statement by itself
        statements.append(_as_statement(properties))
    for statement in statements:
        if {"NotAction", "NotResource", "NotPrincipal"} & statement.keys():
            yield "ALLOW_SAYS_WHAT_IT_ALLOWS"
        actions = {action.lower() for action in texts(statement.get("Action", []))}
        if "Principal" in statement:
            yield from _broken_by_caller(statement, actions, account)
        else:
            yield from _broken_by_permission(statement, actions)


def _broken_by_permission(statement: Mapping[str, Any], actions: set[str]) -> Iterator[str]:
    resources = list(texts(statement.get("Resource", [])))
    if any("*" in action or "?" in action for action in actions):
        yield "NO_WILDCARD_ACTION"
    elif actions - _ACTIONS["without_resources"] and any(map(_ANYTHING.fullmatch, resources)):
        yield "ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER"
    if actions & _ACTIONS["raising"]:
        yield "NO_ROLE_CAN_RAISE_ITSELF"
    services = [text for key, text in _conditions(statement) if key == "iam:passedtoservice"]
    if "iam:passrole" in actions and (not services or any("*" in text for text in services + resources)):
        yield "PASS_ROLE_NAMES_ROLE_AND_SERVICE"


def _broken_by_caller(statement: Mapping[str, Any], actions: set[str], account: str | None) -> Iterator[str]:
    principal = statement["Principal"]
    services = list(texts(principal.get("Service", []))) if isinstance(principal, dict) else []
    callers = [text for text in texts(principal) if text not in services]
    sources = [text for key, text in _conditions(statement) if _SOURCE.fullmatch(key)]
    narrow = sources and not any(re.fullmatch(r"\*|arn:[*:]*", source) for source in sources)
    if any("*" in caller for caller in callers) and not narrow:
        yield "PRINCIPAL_IS_NAMED"
    if {number for text in callers + sources for number in _ACCOUNT.findall(text)} - {account}:
        yield "NOBODY_OF_ANOTHER_ACCOUNT"
    in_trust = any(action.startswith("sts:") for action in actions)
    if not narrow and any(not in_trust or _SHARED_SERVICES.match(service) for service in services):
        yield "SERVICE_TRUST_NAMES_THE_ACCOUNT"


def _conditions(statement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield keys, in lower case, and values of the conditions that must hold, and that name what is allowed."""
    for operator, keys in statement.get("Condition", {}).items():
        if re.fullmatch(r"(ForAnyValue:)?(String|Arn)(Equals|Like)(IgnoreCase)?", operator):
            yield from ((key.lower(), text) for key, values in keys.items() for text in texts(values))


def _holds_secret(table: Mapping[str, Any]) -> bool:
    if "Value" in table and table.get("Type", "PLAINTEXT") == "PLAINTEXT":  # lists of variables, as in CodeBuild
        table = {**table, str(table.get("Name")): table["Value"]}
    for name, value in table.items():
        one_text = isinstance(value, str) or (isinstance(value, dict) and re.match("Fn::|Ref$", "".join(value)))
        for text in texts(value):
            named = one_text and _SECRET_NAME.search(name) and not _HARMLESS.match(text)
            if named or _SECRET.search(text) or (name in _SCRIPTS and _ASSIGNMENT.search(text)):
                return True
    return False


def _as_statement(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Write the properties of AWS::Lambda::Permission and the like as a statement of a policy."""
    kind = "Service" if "amazonaws" in str(properties["Principal"]) else "AWS"
    keys = ("SourceAccount", "SourceArn", "PrincipalOrgID")
    conditions = {f"aws:{key}": properties[key] for key in keys if key in properties}
    return {"Principal": {kind: properties["Principal"]}, "Condition": {"StringLike": conditions}}

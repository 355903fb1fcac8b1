"""Rules of our own that look at more than one property: who may do what, who may come in, secrets in plain text.

The CDK runs them beside the other examiners, and they stand in the same report. A value that CloudFormation chooses
(`Fn::If`, a mapping, a parameter with default or allowed values) counts with all that it may become.
"""

import contextlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast

import aws_cdk as cdk
import jsii

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
#: The rules by name, with what is wrong and what to do.
RULES: dict[str, str] = _DATA["rules"]
_ACTIONS = {kind: {action.lower() for action in actions} for kind, actions in _DATA["actions"].items()}
_PATTERNS = {name: re.compile(pattern, re.VERBOSE) for name, pattern in _DATA["patterns"].items()}
Conditions = list[tuple[str, list[str]]]
_ALTERNATIVES = 1000  # of one text; with more they are looked at as one


def examine(template: Mapping[str, Any], account: str | None = None) -> set[tuple[str, str]]:
    """Find rules, and what breaks them behind a blank, with logical ids; without an account any is foreign."""
    resources = template.get("Resources", {})
    filled = {name: _filled(resource, template) for name, resource in resources.items()}
    found = {(rule, name) for name, it in filled.items() for rule in _broken_rules(it, account)}
    if template.get("Transform", "AWS::LanguageExtensions") != "AWS::LanguageExtensions":
        found |= {("TEMPLATE_SHOWS_WHAT_IT_MAKES", name) for name in resources}
    return found


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
            for finding, name in sorted(examine(json.loads(Path(path).read_bytes()), stack.account_id)):
                rule, _, evidence = finding.partition(" ")
                place = cdk.PolicyViolatingResource(resource_logical_id=name, template_path=path, locations=[])
                description = f"{RULES[rule]} Found: {evidence}" if evidence else RULES[rule]
                found = {"rule_name": rule, "description": description, "severity": "error"}
                violations.append(cdk.PolicyViolation(**cast(Any, found), violating_resources=[place]))
        return cdk.PolicyValidationPluginReport(success=not violations, violations=violations)


def texts(value: Any) -> Iterator[str]:
    """Yield every text that a value may become, or holds; references in angle brackets, as cdk-nag writes them."""
    match value:
        case {"Fn::If": [_, *choices]} | {"Fn::Select": [_, *choices]}:
            yield from texts(choices)
        case {"Fn::Join": [str(separator), list(parts)]}:
            choices = [list(texts(part)) for part in parts]
            if math.prod(map(len, choices)) > _ALTERNATIVES:
                choices = [[separator.join(choice)] for choice in choices]
            yield from map(separator.join, product(*choices))
        case {"Fn::Split": [str(separator), whole]}:
            yield from (part for text in texts(whole) for part in text.split(separator))
        case {"Fn::GetAtt": [name, attribute]}:
            yield f"<{name}.{attribute}>"
        case {"Ref": name}:
            yield f"<{name}>"
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)
        case _:
            yield str(value)


def _filled(value: Any, template: Mapping[str, Any]) -> Any:
    """Put all that parameters and mappings may be in their places; references lose their colons, which ARNs count."""
    match value:
        case {"Ref": str(name)}:
            parameter = template.get("Parameters", {}).get(name, {})
            if "Default" not in parameter or parameter["Type"].startswith("AWS::SSM"):
                return {"Ref": name.replace("::", ".")}
            values = [parameter["Default"], *parameter.get("AllowedValues", ())]
            if "List" in parameter["Type"]:
                values = ",".join(map(str, values)).split(",")
            return {"Fn::If": [name, *values]}
        case {"Fn::ImportValue": _}:
            return {"Ref": "ImportValue"}
        case {"Fn::FindInMap": [mapping, _, name, *_]}:
            rows = template.get("Mappings", {}).get(str(mapping), {}).values()
            return {"Fn::If": [name, *(row.get(name) for row in rows)] if isinstance(name, str) else [name, *rows]}
        case {"Fn::Sub": whole}:
            text, names = whole if isinstance(whole, list) else (whole, {})
            parts = re.split(r"\$\{([^!}]+)\}", text)
            parts[1::2] = [names.get(name, {"Ref": name}) for name in parts[1::2]]
            return _filled({"Fn::Join": ["", parts]}, template)
        case dict():
            return {name: _filled(inner, template) for name, inner in value.items()}
        case list():
            return [_filled(inner, template) for inner in value]
    return value


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every table at or below a value; JSON in a text counts as what it says."""
    if isinstance(value, str) or (isinstance(value, dict) and "Fn::Join" in value):
        for text in texts(value):
            with contextlib.suppress(json.JSONDecodeError):
                yield from _tables(json.loads(_PATTERNS["bare_reference"].sub(r'\1"\2"', text)))
    if isinstance(value, dict):
        yield value
        # In a build specification these map names to where secrets are.
        value = [inner for name, inner in value.items() if name not in {"secrets-manager", "parameter-store"}]
    for inner in value if isinstance(value, list) else ():
        yield from _tables(inner)


def _broken_rules(resource: Mapping[str, Any], account: str | None) -> Iterator[str]:
    kind, properties = resource["Type"], resource.get("Properties", {})
    tables = list(_tables([properties, resource.get("Metadata", {})]))  # which has the files of cfn-init
    inside = [(name, text) for table in tables for name, value in table.items() for text in texts(value)]
    yield from (f"NO_SECRET_IN_PLAIN_TEXT {name}" for table in tables for name in _secrets(table))
    if any(_PATTERNS["full_access"].search(text) for _, text in inside):
        yield "NO_FULL_ACCESS"
    if any(text == "<AWS.NoValue>" and _PATTERNS["safeguard"].match(name) for name, text in inside):
        yield "SAFEGUARD_IS_ALWAYS_THERE"
    if _PATTERNS["hidden_template"].match(kind) or any("Fn::Transform" in table for table in tables):
        yield "TEMPLATE_SHOWS_WHAT_IT_MAKES"
    if _PATTERNS["only_narrows"].match(kind):
        return
    statements = [table for table in tables if "Effect" in table and table["Effect"] != "Deny"]
    for key in {"Principal", "Principals", "AllowedPrincipals"} & properties.keys():
        statements.append(_as_statement(properties, properties[key]))
    for statement in statements:
        if {"NotAction", "NotResource", "NotPrincipal"} & statement.keys():
            yield "ALLOW_SAYS_WHAT_IT_ALLOWS"
        actions = {action.lower() for action in texts(statement.get("Action", []))}
        conditions = list(_conditions(statement))
        if "Principal" not in statement:
            yield from _broken_by_permission(statement, actions, conditions)
        for principal in _choices(statement.get("Principal", [])):
            yield from _broken_by_caller(principal, actions, conditions, account)


def _broken_by_permission(statement: Mapping[str, Any], actions: set[str], conditions: Conditions) -> Iterator[str]:
    resources = list(texts(statement.get("Resource", [])))
    wide = {action for action in actions if "*" in action or "?" in action}
    if wide:
        yield f"NO_WILDCARD_ACTION {', '.join(sorted(wide))}"
    if raising := actions & _ACTIONS["raising"]:
        yield f"NO_ROLE_CAN_RAISE_ITSELF {', '.join(sorted(raising))}"
    patterns = ["anything"] if statement.get("Condition") else ["anything", "any_of_a_kind"]
    any_resource = any(_PATTERNS[name].match(text) for name in patterns for text in resources)
    limited = {a for a in actions - wide - {"iam:passrole"} if any_resource and not _has_no_resource(a)}
    if limited and not wide:
        yield f"ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER {', '.join(sorted(limited))}"
    services = [text for key, values in conditions if key == "iam:passedtoservice" for text in values]
    if "iam:passrole" in actions and (not services or any(map(_PATTERNS["open"].search, services + resources))):
        yield "PASS_ROLE_NAMES_ROLE_AND_SERVICE"


def _has_no_resource(action: str) -> bool:
    if action in _ACTIONS["without_resources"]:
        return True
    from policy_sentry.querying.actions import get_actions_that_support_wildcard_arns_only  # it reads 13 MB

    return action in map(str.lower, get_actions_that_support_wildcard_arns_only(action.partition(":")[0]))


def _broken_by_caller(principal: Any, actions: set[str], conditions: Conditions, account: str | None) -> Iterator[str]:
    services = list(texts(principal.get("Service", []))) if isinstance(principal, dict) else []
    callers = [text for text in texts(principal) if text not in services]
    closed = {key for key, values in conditions if not any(map(_is_open, values))}
    narrow = any(map(_PATTERNS["source"].fullmatch, closed))
    if any("*" in caller for caller in callers) and not narrow:
        yield "PRINCIPAL_IS_NAMED"
    claims = [values for key, values in conditions if _PATTERNS["claim"].search(key)]
    if "Federated" in principal and all(any(map(_PATTERNS["any_identity"].match, values)) for values in claims):
        yield "PRINCIPAL_IS_NAMED"
    sources = [text for key, values in conditions if _PATTERNS["source"].fullmatch(key) for text in values]
    owners = {owner for text in callers + sources for owner in _PATTERNS["account"].findall(text)}
    if foreign := owners - {account}:
        yield f"NOBODY_OF_ANOTHER_ACCOUNT {', '.join(sorted(foreign))}"
    in_trust = any(action.startswith("sts:") for action in actions)
    narrow = narrow or any("encryptioncontext" in key for key in closed)  # the ARN of what is encrypted
    if not narrow and any(not in_trust or _PATTERNS["shared_service"].match(service) for service in services):
        yield "SERVICE_TRUST_NAMES_THE_ACCOUNT"


def _is_open(value: str) -> bool:
    """Whether a value of a condition leaves open whose it is; what follows the account or a reference does not."""
    return bool(_PATTERNS["open"].search(_PATTERNS["owner"].sub(r"\1\2", value)))


def _choices(value: Any) -> Iterator[Any]:
    match value:
        case {"Fn::If": [_, *choices]}:
            for choice in choices:
                yield from _choices(choice)
        case _:
            yield value


def _conditions(statement: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield keys, in lower case, and values of the conditions that must hold, and that name what is allowed."""
    for operator, keys in statement.get("Condition", {}).items():
        if re.fullmatch(r"(ForAnyValue:)?(String|Arn)(Equals|Like)(IgnoreCase)?|Bool", operator):
            yield from ((key.lower(), found) for key, values in keys.items() if (found := list(texts(values))))


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what is a secret in plain text."""
    # Lists of variables, as in CodeBuild, and parameters: the name is a value, too.
    if "Value" in table and table.get("Type") not in {"PARAMETER_STORE", "SECRETS_MANAGER"}:
        table = {**table, **{str(table.get(key)): table["Value"] for key in ("Name", "Key", "OptionName")}}
    for name, value in table.items():
        one_text = isinstance(value, str) or (isinstance(value, dict) and re.match("Fn::|Ref$", "".join(value)))
        for text in texts(value):
            named = one_text and _PATTERNS["secret_name"].search(name) and not _PATTERNS["harmless"].match(text)
            assigned = name in {"UserData", "Content", "content"} and _PATTERNS["assignment"].search(text)
            if named or assigned or _PATTERNS["secret"].search(text):
                yield name


def _as_statement(properties: Mapping[str, Any], principal: Any) -> dict[str, Any]:
    """Write the properties of AWS::Lambda::Permission and the like as a statement of a policy."""
    kind = "Service" if "amazonaws" in str(principal) else "AWS"
    keys = {"SourceAccount": "SourceAccount", "SourceArn": "SourceArn", "PrincipalOrgID": "PrincipalOrgID"}
    keys["OrganizationId"] = "PrincipalOrgID"  # of a layer
    conditions = {"StringLike": {f"aws:{keys[name]}": properties[name] for name in keys.keys() & properties.keys()}}
    match properties.get("Condition"):
        case {"Type": str(operator), "Key": str(key), "Value": value}:  # of an event bus
            conditions = {operator: {key: value}}
    return {"Principal": {kind: principal}, "Condition": conditions}

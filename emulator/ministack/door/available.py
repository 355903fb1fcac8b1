"""The services that the local AWS has; of MiniStack's others it answers for none.

MiniStack's services call each other with all rights: a state machine or a pipeline does what its author may not. What
the services of this list do is put to IAM by the modules beside this one; the rest is refused. So are operations by
which a service of the list acts later without asking anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.ministack.door import operations

#: By MiniStack's name; the last line is ours.
SERVICES = frozenset(
    {
        *("cloudformation", "codebuild", "ec2", "ecr", "iam", "kms", "lambda", "logs", "monitoring", "s3"),
        *("secretsmanager", "sns", "ssm", "sts"),
        *("application-autoscaling", "sagemaker", "sagemaker-runtime", "service-quotas"),
    }
)
#: In the names of CloudFormation's types, in lower case, beside those above. ``AWS::CDK`` is metadata.
_NAMESPACES = SERVICES | {"applicationautoscaling", "cdk", "cloudwatch"}
#: What delivers without asking anybody: ends of the path, parameters and operations.
_DELIVERIES = frozenset({"event-source-mappings", "notification", "replication", "PutSubscriptionFilter", "Subscribe"})
_TYPES = frozenset({"AWS::Lambda::EventSourceMapping", "AWS::Logs::SubscriptionFilter", "AWS::SNS::Subscription"})


def install() -> None:
    """Take away what is not here; call it before anything else stands before a service."""
    from ministack import app
    from ministack.services.cloudformation import provisioners

    for name in set(app.SERVICE_HANDLERS) - SERVICES:
        del app.SERVICE_HANDLERS[name]
    for kind in list(provisioners._RESOURCE_HANDLERS):
        if kind in _TYPES or (kind.startswith("AWS::") and kind.split("::")[1].lower() not in _NAMESPACES):
            del provisioners._RESOURCE_HANDLERS[kind]


def missing(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> str | None:
    """Say why nothing here answers a request."""
    if service not in SERVICES:
        return f"The local AWS has no {service}; docs/local-aws.md says what it has."
    named = {
        "lambda": [path.rstrip("/").rpartition("/")[2]] if method == "POST" else [],
        "logs": [headers.get("x-amz-target", "").rpartition(".")[2]],
        "s3": query if method == "PUT" else [],
        "sns": {**query, **operations.form(body)}.get("Action", []) if service == "sns" else [],
    }
    asked = _DELIVERIES.intersection(named.get(service, ()))
    return f"The local AWS delivers nothing by {service} ({', '.join(asked)})." if asked else None

"""The services that the local AWS has; of MiniStack's others it answers for none.

MiniStack's services call each other with all rights: a state machine or a pipeline does what its author may not. What
the services of this list do is put to IAM by the modules beside this one; the rest is refused. So are operations by
which a service of the list acts later without asking anybody.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from emulator.ministack.door import operations
from emulator.platform.errors import Response, ServiceError

#: By MiniStack's name. Ours, such as SageMaker, are not MiniStack's.
SERVICES = frozenset(
    [
        "cloudformation",
        "codebuild",
        "ec2",
        "ecr",
        "iam",
        "kms",
        "lambda",
        "logs",
        "monitoring",
        "s3",
        "secretsmanager",
        "sns",
        "ssm",
        "sts",
    ]
)
#: Of CloudFormation's types, by the service in their names. ``AWS::CDK`` is metadata.
_NAMESPACES = frozenset(
    [
        "ApplicationAutoScaling",
        "CDK",
        "CloudFormation",
        "CloudWatch",
        "CodeBuild",
        "EC2",
        "ECR",
        "IAM",
        "KMS",
        "Lambda",
        "Logs",
        "S3",
        "SNS",
        "SSM",
        "SageMaker",
        "SecretsManager",
    ]
)
#: Services whose errors are XML, beside those of the query protocol.
_XML = frozenset({"cloudfront", "route53", "s3"})
#: What delivers without asking anybody: by service, method and parameter or end of the path.
_DELIVERIES = {
    "lambda": ("POST", {"event-source-mappings"}),
    "s3": ("PUT", {"notification", "replication"}),
    "logs": ("POST", {"PutSubscriptionFilter"}),
    "sns": ("POST", {"Subscribe"}),
}
_TYPES = frozenset({"AWS::Lambda::EventSourceMapping", "AWS::Logs::SubscriptionFilter", "AWS::SNS::Subscription"})


def install(ours: Mapping[str, Any]) -> None:
    """Refuse what is not here; call it before anything else stands before a service.

    Parameters
    ----------
    ours
        The services that the emulator brings itself, by name.
    """
    from ministack import app
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    for name in set(app.SERVICE_REGISTRY) - SERVICES - set(ours):
        app.SERVICE_HANDLERS[name] = functools.partial(_absent, name)
    for name, delivery in _DELIVERIES.items():
        if name == "s3":  # a bucket has a host of its own, and each way in ends there
            s3.handle_request = functools.partial(_without_delivery, s3.handle_request, name, delivery)
        else:
            app.SERVICE_HANDLERS[name] = functools.partial(
                _without_delivery, app.SERVICE_HANDLERS[name], name, delivery
            )
    for kind in list(provisioners._RESOURCE_HANDLERS):
        if kind in _TYPES or (kind.startswith("AWS::") and kind.split("::")[1] not in _NAMESPACES):
            del provisioners._RESOURCE_HANDLERS[kind]


async def _absent(service: str, *_: Any) -> Response:
    return _refusal(service, f"The local AWS has no {service}; docs/local-aws.md says what it has.")


async def _without_delivery(
    inner: Callable[..., Any], service: str, delivery: tuple[str, set[str]],
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any],
    **options: Any,
) -> Response:  # fmt: skip
    verb, names = delivery
    target = headers.get("x-amz-target", "").rpartition(".")[2]
    actions = {**query, **operations.form(body)}.get("Action", []) if service == "sns" else []
    if method == verb and (asked := names & {*query, *actions, path.rstrip("/").rpartition("/")[2], target}):
        return _refusal(service, f"The local AWS delivers nothing by {service} ({asked.pop()}).")
    return await inner(method, path, headers, body, query, **options)  # type: ignore[no-any-return]


def _refusal(service: str, message: str) -> Response:
    from ministack.core.responses import error_response_xml

    if service in operations.QUERY_SERVICES | _XML:
        return error_response_xml("NotImplemented", message, 501)  # type: ignore[no-any-return]
    return ServiceError("NotImplemented", message, status=501).response()

"""What may be made of a REST API: by requests, which the table of members holds back at the door, and by templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from botocore.model import ListShape, StructureShape
from ministack.services import apigateway_v1 as v1

from emulator.evaluation import evaluator
from emulator.ministack.apigateway import templates
from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.patching import within_time
from emulator.platform.awsapi import service_model
from emulator.platform.validation import refused_members

FUNCTION = re.compile(
    r"arn:aws:apigateway:[a-z0-9-]+:lambda:path/2015-03-31/functions/"
    r"(?P<arn>arn:aws:lambda:[a-z0-9-]+:\d{12}:function:[\w:$-]+)/invocations"
)
ENDPOINT = re.compile(
    r"arn:aws:apigateway:(?P<region>[a-z0-9-]+):runtime\.sagemaker:path/+endpoints/(?P<name>[\w{}-]+)/invocations"
)
_GROUP = re.compile(r"arn:aws:logs:[a-z0-9-]+:\d{12}:log-group:[^:]+(:\*)?")
_ROLE = re.compile(r"arn:aws:iam::\d{12}:role/.+")
_FROM = re.compile(r"'[^']*'|method\.request\.(header|querystring|path)\.[\w.$-]+|(stageVariables|context)\.[\w.]+")
_TO = re.compile(r"integration\.request\.(header|path)\.[\w.$-]+")
_BACK = re.compile(r"'[^']*'|integration\.response\.header\.[\w-]+|(stageVariables|context)\.[\w.]+")
#: CloudFormation's types, by the operation that makes one; what else a template may say of each.
TYPES: Mapping[str, tuple[str, set[str]]] = {
    "Account": ("UpdateAccount", {"cloudWatchRoleArn"}),
    "ApiKey": ("CreateApiKey", set()),
    "Deployment": ("CreateDeployment", set()),
    "Method": ("PutMethod", {"integration", "methodResponses"}),
    "Model": ("CreateModel", set()),
    "RequestValidator": ("CreateRequestValidator", set()),
    "Resource": ("CreateResource", set()),
    "RestApi": ("CreateRestApi", {"apiKeySourceType", "failOnWarnings"}),
    "Stage": ("CreateStage", {"accessLogSetting", "methodSettings"}),
    "UsagePlan": ("CreateUsagePlan", {"usagePlanName"}),
    "UsagePlanKey": ("CreateUsagePlanKey", set()),
}
_OF_CACHES = {"CacheDataEncrypted", "CacheTtlInSeconds", "CachingEnabled"}
_FALSE = (False, "false")


def refuse_if(wrong: object, message: str) -> None:
    if wrong:
        raise ValueError(message)


def _lowered(value: Any, shape: Any) -> Any:
    """Write a template's properties as members of a request."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        names = {name[:1].lower() + name[1:]: item for name, item in value.items()}
        return {name: _lowered(item, shape.members.get(name)) for name, item in names.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_lowered(item, shape.member) for item in value]
    return value


def _request(operation: str, properties: Mapping[str, Any], also: set[str]) -> dict[str, Any]:
    """Give the members that a template's properties stand for, unless one of them is not here."""
    shape: Any = service_model("apigateway").operation_model(operation).input_shape
    request: dict[str, Any] = _lowered(properties, shape)
    given = {name: value for name, value in request.items() if name not in also}
    unknown = sorted(name for name, value in given.items() if name not in shape.members and value is not None)
    refuse_if(unknown, f"The local AWS has no {', '.join(unknown)} of {operation}.")
    refused = " ".join(refused_members("apigateway", operation, given, shape))
    refuse_if(refused, refused)
    return request


def check_properties(kind: str, identity: str, properties: Mapping[str, Any]) -> None:
    operation, also = TYPES[kind]
    try:
        request = _request(operation, properties, also)
        if kind == "RestApi":
            in_headers = request.get("apiKeySourceType", "HEADER") == "HEADER"
            refuse_if(not in_headers, "The local AWS has API keys in headers only.")
        elif kind == "Method":
            _check_method(request)
        elif kind == "Stage":
            check_stage(request.get("restApiId", ""), request, request.get("accessLogSetting"))
            settings = request.get("methodSettings") or ()
            cached = {name for each in settings for name in _OF_CACHES & each.keys() if each[name] not in _FALSE}
            refuse_if(cached, f"The local AWS has no {', '.join(sorted(cached))}: no stage has a cache.")
    except ValueError as wrong:
        raise ValueError(handler_message(str(wrong), "InvalidRequest")) from None


def _check_method(method: Mapping[str, Any]) -> None:
    responses = {
        str(each["StatusCode"]): each.get("ResponseParameters") or {} for each in method.get("methodResponses") or ()
    }
    if not (properties := method.get("integration")):
        return
    own = {name: value for name, value in properties.items() if name != "IntegrationResponses"}
    request = _request("PutIntegration", own, set())
    check_integration(request, request.get("integrationHttpMethod"), method.get("requestParameters") or {})
    for each in properties.get("IntegrationResponses") or ():
        response = _request("PutIntegrationResponse", each, set())
        check_integration_response(response, responses.get(str(response["statusCode"])))


def check_integration(integration: Mapping[str, Any], method: str | None, declared: Mapping[str, Any]) -> None:
    """Refuse, as API Gateway does, what could not be called; `declared` are the parameters of the method's request."""
    kind, uri = integration["type"], integration.get("uri") or ""
    credentials, timeout = integration.get("credentials"), int(integration.get("timeoutInMillis") or 29_000)
    function, endpoint = FUNCTION.fullmatch(uri), ENDPOINT.fullmatch(uri)
    if kind != "MOCK":
        refuse_if(not uri.startswith("arn:aws:apigateway:"), "Invalid ARN specified in the request")
        here = "functions (lambda:path/2015-03-31/functions/ARN/invocations)"
        if kind == "AWS":
            here += " and endpoints (runtime.sagemaker:path/endpoints/NAME/invocations)"
        known = function or (endpoint and kind == "AWS")
        refuse_if(not known, f"The local AWS integrates {here} only, not {uri}.")
        refuse_if(method != "POST", "Functions and endpoints are called by POST: integrationHttpMethod must be POST.")
        refuse_if(endpoint and not credentials, "Role ARN must be specified for AWS integrations")
    no_role = credentials and not _ROLE.fullmatch(credentials)
    refuse_if(no_role, "Invalid ARN specified in the request: a role's is needed.")
    refuse_if(not 50 <= timeout <= 29_000, "Timeout should be between 50 ms and 29000 ms")
    for to, source in (integration.get("requestParameters") or {}).items():
        wrong = not _TO.fullmatch(to) or not _FROM.fullmatch(str(source)) or to.lower().endswith("invocation-type")
        refuse_if(wrong, f"Invalid mapping expression specified: {to} from {source}.")
        undeclared = source.startswith("method.request.") and source not in declared
        refuse_if(undeclared, f"Invalid mapping expression parameter specified: {source}")
    for template in (integration.get("requestTemplates") or {}).values():
        evaluator.call(templates.check, (template,))


def check_integration_response(response: Mapping[str, Any], declared: Mapping[str, Any] | None) -> None:
    """`declared` are the parameters of the method's response of this status; None when it has no such response."""
    refuse_if(declared is None, "Invalid Response status code specified")
    for to, source in (response.get("responseParameters") or {}).items():
        refuse_if(not _BACK.fullmatch(str(source)), f"Invalid mapping expression specified: {to} from {source}.")
        refuse_if(to not in (declared or {}), f"Invalid mapping expression parameter specified: {to}")
    for template in (response.get("responseTemplates") or {}).values():
        evaluator.call(templates.check, (template or "",))
    try:
        within_time(re.compile, response.get("selectionPattern") or "")
    except re.error as wrong:
        raise ValueError(f"Invalid selection pattern: {wrong}") from None


def check_stage(api_id: str, stage: Mapping[str, Any], access_log: Mapping[str, str] | None) -> None:
    known = stage.get("deploymentId") in v1._deployments_v1.get(api_id, {})
    refuse_if(not known, "Invalid deployment identifier specified")
    if access_log:
        role = (v1._account_settings.get("settings") or {}).get("cloudwatchRoleArn")
        refuse_if(not role, "CloudWatch Logs role ARN must be set in account settings to enable logging")
        group = _GROUP.fullmatch(access_log.get("DestinationArn", ""))
        refuse_if(not group, "The local AWS writes access logs to log groups only.")
        named = re.search(r"\$context\.(requestId|extendedRequestId)\b", access_log.get("Format") or "")
        refuse_if(not named, "Access Log format must contain $context.requestId or $context.extendedRequestId")

"""Real requests for what the table of the roles says (`role_table.Case`)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from local_aws_harness import LocalAws
from role_table import ACCOUNT, REGION, Case

_PARTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_LACKING = tuple(_PARTS["lacking"])
#: Keys that only services set.
_OF_SERVICES = {"kms:ViaService", "kms:GrantIsForAWSResource"}


def possible(case: Case, urls: dict[str, str]) -> bool:
    """Whether a request of ours can be such a case on a local AWS."""
    by_service = _OF_SERVICES & {name for name, _ in case.keys}
    return not by_service and not case.action.startswith(_LACKING) and (case.resource in urls or not _by_url(case))


def _by_url(case: Case) -> bool:
    return case.action == "lambda:InvokeFunctionUrl" or ("lambda:InvokedViaFunctionUrl", "true") in case.keys


def performs(aws: LocalAws, key: dict[str, str], case: Case, urls: dict[str, str]) -> bool:
    """Whether IAM lets the holder of a key do something; `urls` are those of functions, by the ARN of the alias."""
    service, _, action = case.action.partition(":")
    if _by_url(case):
        return aws.call(urls[case.resource], key=key).status != 403
    try:
        _send(aws, key, service, action, case)
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if not re.search("Denied|Unauthorized|NotAuthorized|AuthorizationError", code):
            return True  # what it asked for is wrong or not there, which is said to those only who may
        # It was IAM, and because of this; a role is passed with another action.
        assert case.action in message or action == "PassRole", f"{case}: {code} {message}"
        return False
    return True


def _send(aws: LocalAws, key: dict[str, str], service: str, action: str, case: Case) -> None:
    given = dict(case.keys)
    if action == "PassRole":
        service = given["iam:PassedToService"].partition(".")[0]
        action = {"lambda": "CreateFunction", "sagemaker": "CreateTrainingJob"}[service]
    name = "sagemaker-runtime" if action == "InvokeEndpoint" else service
    region = [*case.resource.split(":"), "", "", ""][3] or REGION
    client = _client(aws, name, region, tuple(key.items()))
    operation = getattr(client, _PARTS["operations"].get(action, xform_name(action)))
    method = client.meta.method_to_api_mapping[operation.__name__]
    shape = client.meta.service_model.operation_model(method).input_shape
    request = {name: value for name, value in _members(case, given).items() if shape and name in shape.members}
    if action == "Decrypt" and f":{ACCOUNT}:" in case.resource:
        named = {name: request[name] for name in ("KeyId", "EncryptionContext") if name in request}
        request["CiphertextBlob"] = aws.client("kms").encrypt(Plaintext=b"x", **named)["CiphertextBlob"]
    operation(**request)


@cache
def _client(aws: LocalAws, service: str, region: str, key: tuple[tuple[str, str], ...]) -> Any:
    return aws.client(service, dict(key), Config(parameter_validation=False), region_name=region)


def _members(case: Case, given: dict[str, str]) -> dict[str, Any]:
    """All members that a request for this could have."""
    resource = case.resource.split(":", 5)[-1]
    parts = [*re.split("[/:]", resource), ""]  # such as function:NAME:live, and a topic is nothing but its name
    name = parts[1] or parts[0]
    bucket, _, key = resource.partition("/")
    context = {name.removeprefix("kms:EncryptionContext:"): value for name, value in given.items() if "Context" in name}
    return {
        **_PARTS["more"],
        **dict.fromkeys(_PARTS["names"], name),
        **dict.fromkeys(_PARTS["arns"], case.resource),
        **{member: [name] for member in _PARTS["lists"] if name != "*"},
        **{"Bucket": bucket.replace("*", "any-bucket"), "Key": key, "Prefix": given.get("s3:prefix", "")},
        **{"id": f"{name}:b", "ids": [f"{name}:b"]},
        **({"VersionId": "null"} if "Version" in case.action else {}),
        **({"Tags": [{"Key": "k", "Value": "v"}]} if "Tags" in case.action else {}),
        **({"Qualifier": parts[2]} if any(parts[2:]) else {}),
        **({"EncryptionContext": context} if context else {}),
        **({"Key": {"k": {"S": "x"}}, "Item": {"k": {"S": "x"}}} if case.action.startswith("dynamodb:") else {}),
        "logGroupName": resource.removeprefix("log-group:").partition(":log-stream:")[0],
        "Namespace": given.get("cloudwatch:namespace", "Kennel"),
    }

"""The operation that IAM is asked about, as botocore's models of the services have it."""

import functools
from typing import Any

import botocore.session
import pytest
from ministack import app
from ministack.core import iam_actions, router

from emulator.ministack.door import enforcement, operations

SESSION = botocore.session.get_session()
#: botocore's names of services that MiniStack calls otherwise.
NAMES = {
    "documentdb": "docdb",
    "elasticfilesystem": "efs",
    "elasticloadbalancing": "elbv2",
    "elasticmapreduce": "emr",
    "airflow": "mwaa",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
SERVICES = sorted(app.SERVICE_REGISTRY.keys() - {"appsync-events", "ecs-metadata", "imds"})


@functools.cache
def metadata(service: str) -> dict[str, Any]:
    return dict(SESSION.get_service_model(NAMES.get(service, service)).metadata)


def name_of(service: str, method: str, path: str, query: dict[str, list[str]], **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return operations.action(service, method, path, named, query, iam_actions.extract_iam_action)


@pytest.mark.parametrize("service", SERVICES)
def test_action_counts_for_services_of_the_query_protocol_only(service: str) -> None:
    model = metadata(service)
    speaks = {model["protocol"], *model.get("protocols", [])}
    # SQS took the query protocol before it took JSON, and still does.
    assert (service in operations.QUERY_SERVICES) == bool(speaks & {"query", "ec2"} or service == "sqs")
    found = name_of(service, "GET", "/nowhere/at/all/of/it", {"Action": ["Trick"]})
    assert found.endswith(":Trick") == (service in operations.QUERY_SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_target_counts_for_services_that_go_by_it_only(service: str) -> None:
    assert not name_of(service, "GET", "/nowhere/at/all/of/it", {}, x_amz_target="Other.Trick").endswith("Trick")
    for prefix in router.SERVICE_PATTERNS.get(service, {}).get("target_prefixes", []):
        found = name_of(service, "POST", "/", {}, x_amz_target=f"{prefix.rstrip('.')}.Trick")
        # MiniStack knows prefixes of SNS and STS, which speak no JSON.
        assert found.endswith(":Trick") == (service not in ("sns", "sts"))


@pytest.mark.parametrize("service", SERVICES)
def test_requests_are_signed_for_the_name_that_botocore_signs_for(service: str) -> None:
    signed_for = metadata(service).get("signingName") or metadata(service)["endpointPrefix"]
    assert enforcement.SIGNING_NAMES.get(service, service) == signed_for


def test_every_operation_of_lambda_is_found_by_its_own_path() -> None:
    model = SESSION.get_service_model("lambda")
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, parameters = http["requestUri"].partition("?")
        for label in ("{", "}", "+"):
            path = path.replace(label, "")
        query = {parameter.partition("=")[0]: [""] for parameter in parameters.split("&") if parameter}
        action = name_of("lambda", http["method"], path, query).removeprefix("lambda:")
        assert action in (name, operations._LAMBDA_ACTIONS.get(name)), path


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/2015-03-31/functions/f%2Finvocations"),
        ("POST", "//2015-03-31/functions/f/invocations"),
        ("DELETE", "/2015-03-31/functions/f/url"),
        ("POST", "/2015-03-31/layers/../functions/f/invocations"),
        ("POST", "/2015-03-31/functions/f/g/invocations"),
        ("PATCH", "/2015-03-31/functions/f"),
    ],
)
def test_another_spelling_of_a_path_of_lambda_is_no_operation(method: str, path: str) -> None:
    assert name_of("lambda", method, path, {"Action": ["ListFunctions"]}) == "lambda:"

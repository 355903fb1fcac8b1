"""The operation that IAM is asked about, as botocore's models of the services have it."""

from typing import Any

import pytest
from ministack.core import router

from emulator.ministack.door import available, enforcement, operations
from emulator.platform.awsapi import service_model

SERVICES = sorted(available.SERVICES)
NOWHERE = "/nowhere/at/all/of/it"


def metadata(service: str) -> dict[str, Any]:
    return dict(service_model({"monitoring": "cloudwatch"}.get(service, service)).metadata)


def name_of(service: str, method: str, path: str, query: dict[str, list[str]], **headers: str) -> str:
    return operations.action(
        service, method, path, {key.replace("_", "-"): text for key, text in headers.items()}, query
    )


@pytest.mark.parametrize("service", SERVICES)
def test_an_operation_is_named_in_the_way_of_the_services_protocol_only(service: str) -> None:
    model = metadata(service)
    speaks_query = bool({model["protocol"], *model.get("protocols", [])} & {"query", "ec2"})
    assert (service in operations.QUERY_SERVICES) == speaks_query
    assert name_of(service, "GET", NOWHERE, {"Action": ["Trick"]}).endswith(":Trick") == speaks_query
    assert not name_of(service, "GET", NOWHERE, {}, x_amz_target="Other.Trick").endswith("Trick")
    for prefix in router.SERVICE_PATTERNS.get(service, {}).get("target_prefixes", []):
        found = name_of(service, "POST", "/", {}, x_amz_target=f"{prefix.rstrip('.')}.Trick")
        # MiniStack knows prefixes of SNS and STS, which speak no JSON.
        assert found.endswith(":Trick") == (service not in ("sns", "sts"))


@pytest.mark.parametrize("service", SERVICES)
def test_requests_are_signed_for_the_name_that_botocore_signs_for(service: str) -> None:
    signed_for = metadata(service).get("signingName") or metadata(service)["endpointPrefix"]
    assert enforcement.SIGNING_NAMES.get(service, service) == signed_for


def test_every_operation_of_lambda_is_found_by_its_own_path() -> None:
    model = service_model("lambda")
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, parameters = http["requestUri"].partition("?")
        for label in ("{", "}", "+"):
            path = path.replace(label, "")
        query = {parameter.partition("=")[0]: [""] for parameter in parameters.split("&") if parameter}
        action = name_of("lambda", http["method"], path, query).removeprefix("lambda:")
        assert action in (name, operations._LAMBDA_ACTIONS.get(name)), path

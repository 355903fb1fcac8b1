"""The operation that IAM is asked about, as botocore's models of the services have it."""

import asyncio
import contextlib

import pytest
from examples import examples
from ministack.core import router

from emulator.ministack.door import available, enforcement, members, operations
from emulator.ministack.s3 import copies
from emulator.platform.awsapi import ServiceModel, service_model
from emulator.platform.errors import ServiceError

SERVICES = sorted(available.SERVICES)


def model(service: str) -> ServiceModel:
    return service_model(members.MODELS.get(service, service))


@pytest.mark.parametrize("service", SERVICES)
def test_an_operation_is_named_in_the_way_of_the_services_protocol_only(service: str) -> None:
    def name_of(method: str, query: dict[str, list[str]], **headers: str) -> str:
        return operations.action(service, method, "/nowhere/at/all/of/it", headers, query)

    metadata = model(service).metadata
    speaks_query = bool({metadata["protocol"], *metadata.get("protocols", [])} & {"query", "ec2"})
    assert (service in operations.QUERY_SERVICES) == speaks_query
    assert name_of("GET", {"Action": ["Trick"]}).endswith(":Trick") == speaks_query
    assert not name_of("GET", {}, **{"x-amz-target": "Other.Trick"}).endswith("Trick")
    for prefix in router.SERVICE_PATTERNS.get(service, {}).get("target_prefixes", []):
        found = name_of("POST", {}, **{"x-amz-target": f"{prefix.rstrip('.')}.Trick"})
        # MiniStack knows prefixes of SNS and STS, which speak no JSON.
        assert found.endswith(":Trick") == (service not in ("sns", "sts"))


@pytest.mark.parametrize("service", SERVICES)
def test_requests_are_signed_for_the_name_that_botocore_signs_for(service: str) -> None:
    metadata = model(service).metadata
    signed_for = metadata.get("signingName") or metadata["endpointPrefix"]
    assert enforcement.SIGNING_NAMES.get(service, service) == signed_for


def test_every_operation_of_lambda_is_found_by_its_own_path() -> None:
    for name in model("lambda").operation_names:
        http = model("lambda").operation_model(name).http
        path, _, parameters = http["requestUri"].partition("?")
        for label in ("{", "}", "+"):
            path = path.replace(label, "")
        query = {parameter.partition("=")[0]: [""] for parameter in parameters.split("&") if parameter}
        action = operations.action("lambda", http["method"], path, {}, query).removeprefix("lambda:")
        assert action in (name, operations._LAMBDA_ACTIONS.get(name)), path


@pytest.mark.parametrize(("service", "path", "headers", "body", "dropped"), examples(__file__, "dropped"))
def test_what_ministack_would_drop_is_refused(
    service: str, path: str, headers: dict[str, str], body: str, dropped: str | None
) -> None:
    problem = operations.ambiguity(service, "POST", path, headers, body.encode(), {})
    assert f"The local AWS has no {dropped}" in str(problem) if dropped else not problem


@pytest.mark.parametrize(("operation", "body", "refused"), examples(__file__, "xml"))
def test_xml_is_that_of_the_operation(operation: str, body: str, refused: str | None) -> None:
    with pytest.raises(ServiceError) if refused else contextlib.nullcontext() as error:
        members.check_xml(operation, body.encode())
    assert not refused or refused in f"{error.value.code}: {error.value.message}"


@pytest.mark.parametrize(
    ("key", "query", "body", "refused"),
    [
        ("é" * 512, {}, "", None),
        ("é" * 512 + "k", {}, "", "KeyTooLongError"),
        ("k", {"tagging": [""]}, "<Tagging>" + " " * 6 * 2**20, "MaxMessageLengthExceeded"),
    ],
    ids=["longest", "longer", "long"],
)
def test_keys_and_xml_have_a_longest(key: str, query: dict[str, list[str]], body: str, refused: str | None) -> None:
    async def s3(*_: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b""

    answer = asyncio.run(operations._with_xml(s3, "PUT", f"/b/{key}", {}, body.encode(), query))
    assert (refused or "").encode() in answer[2] and (answer[0] == 200) == (refused is None)


@pytest.mark.parametrize(
    ("source", "headers", "status"),
    [
        ("b/k%20k", {}, 400), ("/b/k k", {"x-amz-metadata-directive": "COPY"}, 400),
        ("b/k k", {"x-amz-acl": "private"}, 400),
        ("b/k k", {"x-amz-metadata-directive": "REPLACE"}, 200), ("b/k k", {"x-amz-storage-class": "STANDARD_IA"}, 200),
        ("b/k k?versionId=1", {}, 200), ("b/k", {}, 200), ("c/k k", {}, 200),
    ],
)  # fmt: skip
def test_a_copy_onto_itself_has_to_change_something(source: str, headers: dict[str, str], status: int) -> None:
    asked = {"x-amz-copy-source": source, **headers}
    assert copies._copy(lambda *_: (200, {}, b""), "b", "k k", asked)[0] == status

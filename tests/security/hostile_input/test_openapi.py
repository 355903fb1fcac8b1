"""The description at `/openapi.json` is what the function does: what it allows is taken, and the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import schemathesis
from hypothesis import assume, settings
from lambda_fakes import ANSWER, http_event
from schemathesis.config import SchemathesisConfig
from templates import PROJECT

from lambda_fn.aws.endpoint import Classification
from lambda_fn.config import Settings
from lambda_fn.errors import ServiceError
from lambda_fn.service import Service

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/lambda/aws4_request"
SIGNED = {"Authorization": AUTHORIZATION}
CHECKS = {
    # Without Authorization AWS answers 403; this check wants 401, and `ignored_auth` takes both.
    "missing_required_header": {"enabled": False},
    # Whether bytes are an image, and a URL leads to one, no form tells.
    "positive_data_acceptance": {"expected-statuses": ["2xx", 415, 422]},
}
ENDPOINT: Any = SimpleNamespace(
    classify=lambda *_, **__: Classification(optional={"scores": [0.5], "known": True, "ood_score": 0.4}, **ANSWER)
)  # type: ignore
FETCHER: Any = SimpleNamespace(fetch=lambda *_: b"an image")
SETTINGS = Settings.from_environment({"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "us-east-1"})
SERVICE = Service(SETTINGS, ENDPOINT, FETCHER)
statuses: list[int] = []


def function_url(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What AWS does between HTTP and the function's events."""
    headers = {name[5:].replace("_", "-").lower(): environ[name] for name in environ if name.startswith("HTTP_")}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    joined = {name: ",".join(values) for name, values in query.items()}
    event = http_event(body, method=environ["REQUEST_METHOD"], path=environ["PATH_INFO"], headers=headers)
    event["queryStringParameters"] = joined
    reply = {"statusCode": 403, "headers": {"content-type": "application/json"}, "body": '{"Message": "Forbidden"}'}
    if headers.get("authorization") == AUTHORIZATION:
        reply = SERVICE.answer(event, request_id="1", remaining_seconds=10)
        statuses.append(reply["statusCode"])
    start_response(f"{reply['statusCode']} -", [*reply["headers"].items()])
    return [reply["body"].encode()]


schemathesis.serializer.alias(["application/x-image", "file-path/raw-bytes"], "application/octet-stream")
CONFIG = SchemathesisConfig.from_dict({"seed": 1, "checks": CHECKS})
SCHEMA = schemathesis.openapi.from_wsgi("/openapi.json", function_url, config=CONFIG, headers=SIGNED)


def conforms(path: str) -> Callable[[schemathesis.Case], None]:
    @SCHEMA.include(path=path).parametrize()
    @settings(max_examples=300, derandomize=True)
    def test(case: schemathesis.Case) -> None:
        twice = isinstance(case.body, dict) and case.query and case.body.keys() & case.query.keys()
        assume(not twice)  # which OpenAPI cannot say
        case.call_and_validate(headers=SIGNED)

    return test


test_classify, test_health = map(conforms, ("/", "/health"))


def test_it_is_openapi_and_many_requests_were_sent(record_property: Callable[[str, object], None]) -> None:
    SCHEMA.validate()
    assert {200, 400, 405} <= {*statuses} <= {200, 400, 405, 415, 422}
    record_property("OpenAPI: requests of schemathesis answered as described", len(statuses))


def test_every_error_is_described_here_and_in_the_documentation() -> None:
    codes = SCHEMA.raw_schema["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (PROJECT / "docs/function.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(table) == sorted((str(error.status), error.code) for error in ServiceError.__subclasses__())
    assert sorted(codes) == sorted(code for _, code in table)

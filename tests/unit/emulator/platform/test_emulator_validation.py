"""Requests are refused as AWS refuses them, before anything is changed."""

from __future__ import annotations

import asyncio
import json

import pytest
from emulator_fixtures import ACCOUNT, CALLER, refusal, training_job
from examples import examples

from emulator.platform.awsapi import Caller, Payload, Service, operation, page
from emulator.platform.validation import compile_pattern

# The model's patterns are Java's: what Python only warns of in one of them, it reads differently.
pytestmark = pytest.mark.filterwarnings("error::FutureWarning", "error::DeprecationWarning")


class Recorder(Service):
    """SageMaker's model around an implementation that keeps what it is given."""

    name = "sagemaker"

    def __init__(self) -> None:
        super().__init__(ACCOUNT)
        self.seen: list[tuple[Payload, Caller]] = []
        self.register(self)

    @operation("CreateTrainingJob")
    def create_training_job(self, request: Payload, caller: Caller) -> Payload:
        self.seen.append((request, caller))
        return {"TrainingJobArn": "arn"}

    @operation("DescribeTrainingJob")
    def describe_training_job(self, request: Payload, caller: Caller) -> Payload:
        raise RuntimeError("secret detail")


@pytest.fixture
def service() -> Recorder:
    return Recorder()


VALIDATION, SERIALIZATION = "ValidationException", "SerializationException"


@pytest.mark.parametrize(("change", "code", "message"), examples(__file__, "refused"))
def test_a_bad_value_is_named_with_its_constraint(service: Recorder, change: Payload, code: str, message: str) -> None:
    error = refusal(lambda: service.call("CreateTrainingJob", training_job(**change), CALLER))
    assert (error.code, error.status) == (code, 400)
    assert message in error.message
    assert service.seen == []


def test_all_problems_are_reported_at_once(service: Recorder) -> None:
    error = refusal(lambda: service.call("CreateTrainingJob", {"TrainingJobName": "_", "Extra": 1}, CALLER))
    assert error.message.startswith("4 validation errors detected: ")
    for part in ("'roleArn'", "'outputDataConfig'", "'trainingJobName'", "'extra'"):
        assert part in error.message


def test_unknown_and_missing_operations_are_told_apart(service: Recorder) -> None:
    assert refusal(lambda: service.call("MakeCoffee", {}, CALLER)).code == "UnknownOperationException"
    missing = refusal(lambda: service.call("CreateApp", {}, CALLER))
    assert (missing.code, missing.status) == ("NotImplementedException", 501)
    assert "CreateTrainingJob" in missing.message


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"\p{Print}+", "a b~", "a\x07"),
        (r"arn:[\p{Alnum}\-]+:x", "arn:aws-cn:x", "arn:aws_cn:x"),
        (r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)", "Ünïcode 中 ٣@", "semi;colon"),
        ("[\\u0020-\\uD7FF\\uE000-\\uFFFD\\uD800\\uDC00-\\uDBFF\\uDFFF\\t]*", "dog \U0001f415\t", "line\nbreak"),
    ],
)
def test_patterns_mean_what_they_mean_in_java(pattern: str, good: str, bad: str) -> None:
    expression = compile_pattern(pattern)
    assert expression is not None
    assert expression.fullmatch(good)
    assert not expression.fullmatch(bad)


def wire(service: Recorder, target: str, body: bytes, method: str = "POST") -> tuple[int, Payload, str]:
    """Status, body and error type of the answer to a request over HTTP."""
    headers = {
        "x-amz-target": target,
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20260101/ap-south-1/sagemaker/aws4_request, Signature=0",
    }
    status, answer_headers, answer = asyncio.run(service.handle(method, "/", headers, body, {}))
    return status, json.loads(answer), answer_headers.get("x-amzn-errortype", "")


def test_the_region_of_a_call_is_that_of_its_signature(service: Recorder) -> None:
    status, answer, _ = wire(service, "SageMaker.CreateTrainingJob", json.dumps(training_job()).encode())
    assert (status, answer) == (200, {"TrainingJobArn": "arn"})
    assert service.seen[0][1] == Caller(ACCOUNT, "ap-south-1")


@pytest.mark.parametrize(
    ("target", "body", "method", "code"),
    [
        ("SageMaker.CreateTrainingJob", b"\xff\xfe\x00", "POST", "SerializationException"),
        ("SageMaker.CreateTrainingJob", b"[" * 1_000_000, "POST", "SerializationException"),
        ("SageMaker.CreateTrainingJob", b"{}", "GET", "UnknownOperationException"),
    ],
)
def test_what_is_no_request_is_refused(service: Recorder, target: str, body: bytes, method: str, code: str) -> None:
    status, answer, error_type = wire(service, target, body, method)
    assert (status, answer["__type"], error_type) == (400, code, code)


def test_a_failure_of_ours_says_nothing_of_the_inside(service: Recorder) -> None:
    answer = wire(service, "SageMaker.DescribeTrainingJob", b'{"TrainingJobName": "a"}')
    assert (answer[0], "secret" in json.dumps(answer[1])) == (500, False)


def test_pages_neither_repeat_nor_skip_when_items_come_and_go() -> None:
    items = [{"n": number} for number in range(0, 20, 2)]

    def following(token: str | None) -> tuple[list[int], str | None]:
        request = {"MaxResults": 4, **({"NextToken": token} if token else {})}
        answer = page(items, request, "Items", "n")
        return [item["n"] for item in answer["Items"]], answer.get("NextToken")

    first, token = following(None)
    items = [{"n": -1}, {"n": -2}, *[item for item in items if item["n"] != 2]]
    second, token = following(token)
    third, token = following(token)
    assert first + second + third == list(range(0, 20, 2))
    assert token is None
